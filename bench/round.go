package main

import (
	"cmp"
	"slices"
	"time"

	"stampede/bench/load"
)

// round is one load on one server, as measured.
type round struct {
	Server       string             `json:"server"`
	Load         string             `json:"load"`
	Seconds      float64            `json:"seconds"` // to the last reply
	Accepted     int64              `json:"accepted"`
	PerSecond    float64            `json:"accepted_per_second"`
	P50          int64              `json:"latency_p50_us"`
	P99          int64              `json:"latency_p99_us"`
	ReplyBytes   float64            `json:"reply_bytes"`
	Cores        map[string]float64 `json:"cores"`      // CPU seconds a second, by program
	CPU          map[string]float64 `json:"cpu_us"`     // an accepted request, by program, to the last reply
	CPUDrained   map[string]float64 `json:"cpu_us_all"` // the same, until the writer's lag was 0
	DrainSeconds float64            `json:"drain_seconds"`
	Lag          int64              `json:"lag_events"`     // at the last reply
	LagGrowth    float64            `json:"lag_growth"`     // events a second in the second half, where it is watched
	Batch        float64            `json:"batch"`          // operations a script call, where there are any
	Due          float64            `json:"due_per_second"` // of an open loop
}

// newRound relates what was counted and what was used. For the CPU time an order costs, both count the same orders:
// the load is measured to its last reply, and the drain on top to the last order in PostgreSQL.
func newRound(server string, t load.Tally, took, drain time.Duration, burst, drained usage) round {
	r := round{
		Server: server, Seconds: took.Seconds(),
		Accepted: t.Accepted, PerSecond: float64(t.Accepted) / took.Seconds(),
		P50: t.P50.Microseconds(), P99: t.P99.Microseconds(), ReplyBytes: t.ReplyBytes,
		Cores: make(map[string]float64), CPU: make(map[string]float64), CPUDrained: make(map[string]float64),
		DrainSeconds: drain.Seconds(),
	}
	orders := float64(max(1, t.Accepted))
	for program, cpu := range burst {
		r.Cores[program] = cpu.Seconds() / took.Seconds()
		r.CPU[program] = cpu.Seconds() * 1e6 / orders
		r.CPUDrained[program] = drained[program].Seconds() * 1e6 / orders
	}
	return r
}

// shopCores is what Stampede and its servers used.
func (r round) shopCores() float64 {
	return r.Cores[programStampede] + r.Cores[programRedis] + r.Cores[programPostgres]
}

// spread is a median with the lowest and the highest of its rounds.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Clone(values)
	slices.SortFunc(sorted, cmp.Compare[float64])
	n := len(sorted)
	return spread{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Low: sorted[0], High: sorted[n-1]}
}

// over takes a figure of every round.
func over(rounds []round, figure func(round) float64) spread {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = figure(r)
	}
	return spreadOf(values)
}

// summary is what the rounds of one server come to.
type summary struct {
	PerSecond  spread            `json:"accepted_per_second"`
	P50        spread            `json:"latency_p50_us"`
	P99        spread            `json:"latency_p99_us"`
	Cores      map[string]spread `json:"cores"`
	CPU        map[string]spread `json:"cpu_us"`
	CPUDrained map[string]spread `json:"cpu_us_all"`
	Drain      spread            `json:"drain_seconds"`
}

func summarize(rounds []round) summary {
	s := summary{
		PerSecond: over(rounds, func(r round) float64 { return r.PerSecond }),
		P50:       over(rounds, func(r round) float64 { return float64(r.P50) }),
		P99:       over(rounds, func(r round) float64 { return float64(r.P99) }),
		Drain:     over(rounds, func(r round) float64 { return r.DrainSeconds }),
		Cores:     make(map[string]spread), CPU: make(map[string]spread), CPUDrained: make(map[string]spread),
	}
	for _, program := range programs {
		s.Cores[program] = over(rounds, func(r round) float64 { return r.Cores[program] })
		s.CPU[program] = over(rounds, func(r round) float64 { return r.CPU[program] })
		s.CPUDrained[program] = over(rounds, func(r round) float64 { return r.CPUDrained[program] })
	}
	return s
}

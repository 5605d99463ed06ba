package main

import (
	"fmt"
	"slices"
)

// The loads. Each order is one unit of one product.
const (
	loadMany    = "many products"
	loadHot     = "one hot product"
	loadSoldOut = "sold out"
	loadCrowd   = "full batches" // many products, and as many connections as fill batches
	loadBatched = "many orders a request"
	loadSet     = "SET"
	loadHalf    = "half the peak" // an open loop
	loadSteady  = "lag flat"      // an open loop at the highest rate at which it is
)

// cell is one load on one server.
type cell struct {
	server, load string
	burst        bool // its rounds are as long as a burst
}

var (
	burstOfStampede = cell{programStampede, loadMany, true}
	burstOfEmpty    = cell{programEmpty, loadMany, true}
	hotOfStampede   = cell{programStampede, loadHot, false}
	halfOfStampede  = cell{programStampede, loadHalf, false}
	halfOfEmpty     = cell{programEmpty, loadHalf, false}
	steadyStampede  = cell{programStampede, loadSteady, false}
)

// row is a line of the promises: what is held against what, and how far it should be.
type row struct {
	name     string // for --only
	what     string
	unit     string
	target   float64
	moonshot float64
	atMost   bool // the figure must not be above; else not below
	part     bool // the figure is of a part of what is promised
	cells    []cell
	figure   func(r *comparisonReport) (figure spread, detail string)
}

const rowMemory = "memory" // the one row that has a shop of its own

// rows are what is measured, in the order of the promises.
var rows = []row{
	{
		name: "burst", what: "accepted orders a second, burst, against the empty handler", target: 0.4, moonshot: 0.6,
		cells: []cell{burstOfStampede, burstOfEmpty},
		figure: func(r *comparisonReport) (spread, string) {
			ours := r.of(burstOfStampede)
			ratio, detail := r.ratio(burstOfStampede, burstOfEmpty)
			return ratio, fmt.Sprintf("%s; then drained in %s s from a lag of %s events", detail,
				over(ours, func(r round) float64 { return r.DrainSeconds }).text(2), over(ours, func(r round) float64 { return float64(r.Lag) }).text(0))
		},
	},
	{
		name: "sustained", what: "the same sustained, the writer's lag flat", target: 0.15, moonshot: 0.3,
		cells: []cell{burstOfStampede, burstOfEmpty, steadyStampede},
		figure: func(r *comparisonReport) (spread, string) {
			n := over(r.of(burstOfEmpty), perSecond)
			steady := r.of(steadyStampede)
			if len(steady) == 0 {
				return spread{}, "the lag grew at every rate that was tried"
			}
			s := steady[0]
			return spread{s.PerSecond / n.Median, s.PerSecond / n.High, s.PerSecond / n.Low},
				fmt.Sprintf("%.0f against %.0f; a lag of %d events at the end, which grew by %.0f a second", s.PerSecond, n.Median, s.Lag, s.LagGrowth)
		},
	},
	{
		name: "evalsha", what: "burst against one EVALSHA a request", unit: "times", target: 2, moonshot: 3,
		cells: []cell{burstOfStampede, {programEvalsha, loadMany, false}},
		figure: func(r *comparisonReport) (spread, string) {
			return r.ratio(burstOfStampede, cell{programEvalsha, loadMany, false})
		},
	},
	{
		name: "postgres", what: "burst against PostgreSQL with row locks, one hot product", unit: "times", target: 20, moonshot: 40,
		cells: []cell{hotOfStampede, {programRowLocks, loadHot, false}},
		figure: func(r *comparisonReport) (spread, string) {
			return r.ratio(hotOfStampede, cell{programRowLocks, loadHot, false})
		},
	},
	{
		name: "postgres", what: "burst against PostgreSQL with row locks, many products", unit: "times", target: 8, moonshot: 15,
		cells: []cell{burstOfStampede, {programRowLocks, loadMany, false}},
		figure: func(r *comparisonReport) (spread, string) {
			return r.ratio(burstOfStampede, cell{programRowLocks, loadMany, false})
		},
	},
	{
		name: "refusals", what: "refusals a second of a sold-out product, against the empty handler", target: 0.5, moonshot: 0.8,
		cells: []cell{{programStampede, loadSoldOut, false}, burstOfEmpty},
		figure: func(r *comparisonReport) (spread, string) {
			return r.ratio(cell{programStampede, loadSoldOut, false}, burstOfEmpty)
		},
	},
	{
		name: "redis", what: "Redis CPU an accepted order in full batches, in pipelined SETs with the same AOF", unit: "SETs", target: 7, moonshot: 4, atMost: true,
		cells: []cell{{programStampede, loadCrowd, false}, {programSet, loadSet, false}},
		figure: func(r *comparisonReport) (spread, string) {
			ours, theirs := cell{programStampede, loadCrowd, false}, cell{programSet, loadSet, false}
			ratio, detail := r.paired(ours, theirs, redisCPU, redisCPU)
			return ratio, fmt.Sprintf("µs: %s; batches of %s orders", detail, over(r.of(ours), func(r round) float64 { return r.Batch }).text(0))
		},
	},
	{
		name: "hot", what: "Redis CPU an order of one hot product, above that of many", unit: "%", target: 15, moonshot: 5, atMost: true,
		cells: []cell{burstOfStampede, hotOfStampede},
		figure: func(r *comparisonReport) (spread, string) {
			ratio, detail := r.paired(hotOfStampede, burstOfStampede, redisCPU, redisCPU)
			return spread{100 * (ratio.Median - 1), 100 * (ratio.Low - 1), 100 * (ratio.High - 1)}, "µs: " + detail
		},
	},
	{
		name: "p99", what: "p99 at half the own peak, open loop, from the scheduled time", unit: "ms", target: 20, moonshot: 5, atMost: true,
		cells: []cell{burstOfStampede, halfOfStampede, halfOfEmpty},
		figure: func(r *comparisonReport) (spread, string) {
			ms := func(r round) float64 { return float64(r.P99) / 1000 }
			return over(r.of(halfOfStampede), ms), fmt.Sprintf("at %.0f a second; empty handler %s ms, the disk's sync %.1f ms",
				over(r.of(halfOfStampede), func(r round) float64 { return r.Due }).Median, over(r.of(halfOfEmpty), ms).text(1), r.Disk.P99/1000)
		},
	},
	{
		name: "writer", what: "PostgreSQL CPU an order (the writer's own part: go test -run '^$' -bench Writer ./persist)", unit: "µs", target: 60, moonshot: 20, atMost: true, part: true,
		cells: []cell{burstOfStampede},
		figure: func(r *comparisonReport) (spread, string) {
			return over(r.of(burstOfStampede), func(r round) float64 { return r.CPUDrained[programPostgres] }), "drain included"
		},
	},
	{
		name: "batch", what: "orders a second by POST /orders/batch, against one order a request", unit: "times", target: 2, moonshot: 5,
		cells: []cell{burstOfStampede, {programStampede, loadBatched, false}},
		figure: func(r *comparisonReport) (spread, string) {
			ratio, detail := r.ratio(cell{programStampede, loadBatched, false}, burstOfStampede)
			return ratio, fmt.Sprintf("%s; %d orders a request, %d requests at once", detail, batchOrders, batchConnections)
		},
	},
	{
		name: rowMemory, what: "Redis memory an order once it is in PostgreSQL", unit: "bytes", target: 350, moonshot: 175, atMost: true,
		figure: func(r *comparisonReport) (spread, string) {
			return spreadOf([]float64{r.Memory.BytesAnOrder}), "idempotency record included"
		},
	},
	{
		name: rowMemory, what: "Redis memory a user", unit: "bytes", target: 150, moonshot: 75, atMost: true,
		figure: func(r *comparisonReport) (spread, string) {
			return spreadOf([]float64{r.Memory.BytesAUser}), ""
		},
	},
}

func perSecond(r round) float64 { return r.PerSecond }

// redisCPU is what Redis used for an order, the writer's reading and trimming included.
func redisCPU(r round) float64 { return r.CPUDrained[programRedis] }

// rowNames are what --only takes.
func rowNames() []string {
	var names []string
	for _, r := range rows {
		if !slices.Contains(names, r.name) {
			names = append(names, r.name)
		}
	}
	return names
}

// chosenRows are those of some names; of none: all.
func chosenRows(names []string) []row {
	if len(names) == 0 {
		return rows
	}
	var chosen []row
	for _, r := range rows {
		if slices.Contains(names, r.name) {
			chosen = append(chosen, r)
		}
	}
	return chosen
}

// verdict is how far a figure came.
func (r row) verdict(figure float64) string {
	reaches := func(bound float64) bool { return figure >= bound && !r.atMost || figure <= bound && r.atMost }
	switch {
	case reaches(r.target) && r.part:
		return "target, in this part"
	case reaches(r.moonshot):
		return "moonshot"
	case reaches(r.target):
		return "target"
	}
	return "short of target"
}

package result

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	sampleNoon    = 20  // s; the sale opens
	sampleStock   = 2e5 // orders that find something
	sampleDueMost = 24000
)

// sample is a flash sale: a calm shop, a spike at noon, and sold out some seconds later. It is the same each time.
func sample(intervals int) *Result {
	r := &Result{
		Scenario: "flash-sale", Loop: "open", Pace: "spike, 500 a second, at 20 s 24000 a second, falling by half every 10 s", Seed: 42,
		Connections: 256, Users: 100000, Products: 20, Target: "stampede up, in a data directory of its own",
		Machine: []Fact{
			{"Cores", "2"},
			{"Kernel", "6.1.0"},
			{"Filesystem", "ext4"},
			{"Go", "go1.26.0"},
			{"Redis", "7.0.15"},
			{"PostgreSQL", "15.6"},
			{"Durability", "fsync"},
			{"Stampede", "v0.4.0 (4bb8f0a9c2d1)"},
		},
		Started: time.Date(2026, 5, 1, 11, 59, 40, 0, time.UTC),
		Seconds: 60,
		Total:   Counts{Statuses: map[int]int64{}},
		Books:   Books{Closed: true},
		Marks:   []string{"the generator used up to 0.62 cores (more than 0.5)"},
	}
	random := rand.New(rand.NewPCG(1, 2))
	length := r.Seconds / float64(intervals)
	lag := 0.0
	for i := range intervals {
		r.Timeline = append(r.Timeline, r.sampleInterval(float64(i)*length, length, &lag, random))
	}
	t := &r.Total
	t.Asked = t.Failed * 2
	t.Statuses[201], t.Statuses[409], t.Statuses[503] = t.Accepted, t.Refused-t.Refused/50, t.Refused/50+t.Asked
	r.Latency = sampleLatency(2100)
	r.sampleParts()
	return r
}

// sampleInterval is what came of a piece of the load, added to the total.
func (r *Result) sampleInterval(start, length float64, lag *float64, random *rand.Rand) Interval {
	due := 500.0
	if start >= sampleNoon {
		due += sampleDueMost * math.Pow(0.5, (start-sampleNoon)/10)
	}
	due *= 0.97 + 0.06*random.Float64()
	one := Interval{At: start, Seconds: length, Due: int64(due * length), Lag: -1}
	sent := min(due, 19500)
	accepted := min(sent, 16000) * length
	if left := float64(sampleStock - r.Total.Accepted); accepted > left {
		accepted = left
	}
	one.NotSent = one.Due - int64(sent*length)
	one.Accepted = int64(accepted)
	if due > 20000 {
		one.Failed = int64(due * length / 4000)
	}
	one.Refused = one.Due - one.NotSent - one.Accepted - one.Failed
	crowd := sent / 16000
	*lag = max(0, *lag+accepted-9000*length)
	one.Lag = int64(*lag)
	if one.Accepted > 0 {
		one.P50 = int64(900 + 3000*crowd*crowd*(0.9+0.2*random.Float64()))
		one.P99 = int64(float64(one.P50) * (3 + 2*random.Float64()))
		one.P999 = int64(float64(one.P99) * (1.3 + random.Float64()))
		one.Max = int64(float64(one.P999) * (1.1 + random.Float64()))
	}
	one.Batch = 1 + 180*crowd*crowd*(0.95+0.1*random.Float64())
	one.Cores = map[string]float64{
		"stampede": 0.05 + 0.6*crowd, "redis": 0.02 + 0.45*crowd, "postgres": 0.01 + 0.2*min(1, *lag/5000+crowd),
		"generator": 0.04 + 0.5*crowd, "others": 0.03 + 0.02*random.Float64(),
	}
	r.Total.Due += one.Due
	r.Total.Accepted += one.Accepted
	r.Total.Refused += one.Refused
	r.Total.Failed += one.Failed
	r.Total.NotSent += one.NotSent
	return one
}

// sampleLatency has a long tail above its median, in µs.
func sampleLatency(median float64) (list []Quantile) {
	for _, percent := range []float64{0, 10, 25, 50, 75, 87.5, 90, 95, 97.5, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100} {
		nines := -math.Log10(max(1-percent/100, 2e-6))
		list = append(list, Quantile{Percent: percent, Us: int64(median * math.Pow(2.1, nines-0.3))})
	}
	return list
}

// sampleParts split the total by kind and by batch.
func (r *Result) sampleParts() {
	order, browse := r.Total, r.Total
	for _, part := range []struct{ whole, rest *int64 }{
		{&order.Due, &browse.Due},
		{&order.Accepted, &browse.Accepted},
		{&order.Refused, &browse.Refused},
		{&order.Failed, &browse.Failed},
		{&order.NotSent, &browse.NotSent},
		{&order.Asked, &browse.Asked},
	} {
		*part.rest = *part.whole / 3
		*part.whole -= *part.rest
	}
	browse.Statuses = map[int]int64{200: browse.Accepted}
	r.Kinds = []Kind{
		{Name: "order", Counts: order, Latency: sampleLatency(2600)},
		{Name: "browse", Counts: browse, Latency: sampleLatency(700)},
	}
	for i, calls := range []int64{8200, 3100, 2400, 1900, 1100, 640, 410, 980, 310} {
		r.Batches = append(r.Batches, Bucket{UpTo: 1 << i, Calls: calls})
	}
	r.Batches = append(r.Batches, Bucket{Calls: 4})
}

// sampleSearch is a search for the highest rate that holds.
func sampleSearch() []Step {
	return []Step{
		{Rate: 4000, Reached: 3999.6, P99: 4100, Held: true},
		{Rate: 8000, Reached: 7998.2, P99: 6900, Held: true},
		{Rate: 16000, Reached: 15240, P99: 184000, Why: "p99 of 184 ms is above 20 ms"},
		{Rate: 12000, Reached: 11990, P99: 14200, Held: true},
		{Rate: 14000, Reached: 13950, P99: 31000, Why: "p99 of 31 ms is above 20 ms"},
		{Rate: 13000, Reached: 12988, P99: 18800, Held: true},
	}
}

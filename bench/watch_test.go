package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/bench/result"
)

const metricsText = `# HELP stampede_batch_operations Operations in a script call.
# TYPE stampede_batch_operations histogram
stampede_batch_operations_bucket{script="place",le="1"} 10
stampede_batch_operations_bucket{script="place",le="2"} 14
stampede_batch_operations_bucket{script="place",le="4"} 14
stampede_batch_operations_bucket{script="place",le="+Inf"} 15
stampede_batch_operations_sum{script="place"} 118
stampede_batch_operations_count{script="place"} 15
stampede_batch_operations_bucket{script="charge",le="1"} 5
stampede_batch_operations_bucket{script="charge",le="2"} 5
stampede_batch_operations_bucket{script="charge",le="4"} 5
stampede_batch_operations_bucket{script="charge",le="+Inf"} 5
stampede_batch_operations_sum{script="charge"} 5
stampede_batch_operations_count{script="charge"} 5
stampede_writer_lag_events{partition="0"} 7
stampede_writer_lag_events{partition="1"} 4
stampede_writer_lag_events_seen_total 99
`

func TestScrape_ReadsAllScriptsAndPartitions(t *testing.T) {
	s, err := readScrape(strings.NewReader(metricsText))
	if err != nil {
		t.Fatal(err)
	}
	if s.lag != 11 || s.calls != 20 || s.operations != 123 {
		t.Errorf("read %+v", s)
	}
	want := []result.Bucket{{UpTo: 1, Calls: 15}, {UpTo: 2, Calls: 4}, {UpTo: 4}, {Calls: 1}}
	if got := s.batches(scrape{}); !slices.Equal(got, want) {
		t.Errorf("batches %+v, want %+v", got, want)
	}
	if got := s.batches(s); len(got) != 0 {
		t.Errorf("no calls are %+v", got)
	}
	if s.batch(scrape{calls: 10, operations: 23}) != 10 || s.batch(s) != 0 {
		t.Error("not the mean of the calls since")
	}
	if none, err := readScrape(strings.NewReader("up 1\n")); err != nil || none.lag != lagUnseen || len(none.batches(none)) > 0 {
		t.Errorf("another program's metrics are %+v (%v)", none, err)
	}
	for _, bad := range []string{"stampede_writer_lag_events x\n", "stampede_batch_operations_bucket{le=\"many\"} 1\n"} {
		if s, err := readScrape(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as %+v", bad, s)
		}
	}
}

func TestWatched_FillsThePiecesInWhichItLooked(t *testing.T) {
	used := func(generator, shop time.Duration) usage {
		return usage{programGenerator: generator, programStampede: shop}
	}
	w := watched{every: 100 * time.Millisecond, points: []point{
		{at: 0, seen: true, used: used(0, 0)},
		{at: 101 * time.Millisecond, seen: true, scrape: scrape{lag: 5, calls: 2, operations: 8}},
		{at: 201 * time.Millisecond, seen: true, scrape: scrape{lag: 7, calls: 4, operations: 10}, used: used(40*time.Millisecond, 100*time.Millisecond)},
		{at: 420 * time.Millisecond}, // it was not seen, and late
		{at: 500 * time.Millisecond, seen: true, scrape: scrape{lag: 9, calls: 5, operations: 16}, used: used(70*time.Millisecond, 399*time.Millisecond)},
		{at: 505 * time.Millisecond, seen: true, scrape: scrape{lag: 1, calls: 6, operations: 17}, used: used(79*time.Millisecond, 400*time.Millisecond)},
	}}
	r := &result.Result{Timeline: []result.Interval{{Lag: -1}, {Lag: -1}, {Lag: -1}, {Lag: -1}, {Lag: -1}}}
	w.fill(r, true)
	for n, want := range []struct {
		lag         int64
		batch, shop float64
	}{{5, 4, 0.498}, {7, 1, 0.498}, {-1, 0, 1}, {-1, 0, 1}, {9, 0, 1}} {
		i := r.Timeline[n]
		if i.Lag != want.lag || i.Batch != want.batch || math.Abs(i.Cores[programStampede]-want.shop) > 0.001 {
			t.Errorf("piece %d is %+v, want %+v", n, i, want)
		}
	}
	w.fill(r, false)
	if cores := r.Timeline[0].Cores; len(cores) != 1 || cores[programGenerator] == 0 {
		t.Errorf("of somebody else's servers it tells %v", cores)
	}
}

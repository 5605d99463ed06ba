package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stampede/bench/load"
	"stampede/bench/result"
)

const (
	searchStep  = 5 * time.Second // a load of the search
	searchPeak  = 3 * time.Second // the closed loop whose rate it begins with
	searchPause = time.Second     // before each, of a deployment whose processes cannot be seen
)

// find searches for the highest rate that holds the bound. 0: none did, and that is a failure.
func (l *loading) find(ctx context.Context, r *result.Result) (rate float64, err error) {
	from := l.Rate
	if from == 0 {
		if from, err = l.peak(ctx); err != nil {
			return 0, err
		}
	}
	tried := 0
	r.Search, rate, err = load.Search(from, func(rate float64) (result.Step, error) {
		tried++
		return l.try(ctx, rate, fmt.Sprintf("step-%d", tried), r)
	})
	if err == nil && rate == 0 {
		r.Failures = append(r.Failures, fmt.Sprintf("no rate down to %.0f a second held a p99 of %v", r.Search[len(r.Search)-1].Rate, l.P99))
	}
	return rate, err
}

// peak is what a short closed loop reaches.
func (l *loading) peak(ctx context.Context) (rate float64, err error) {
	s, g, err := l.begin(ctx, "peak")
	if err != nil {
		return 0, err
	}
	defer g.Close() //nolint:errcheck // nothing is in flight
	recorder := load.NewRecorder(s)
	took := g.ClosedLoop(ctx, min(searchPeak, l.step), s, recorder)
	g.Settle(ctx, s, recorder)
	l.count(recorder)
	t := recorder.Tally()
	if t.Accepted == 0 {
		return 0, errors.Join(ctx.Err(), errors.New("a closed loop had nothing accepted: "+t.Wrong()))
	}
	rate = float64(t.Accepted+t.RefusedAll()) / took.Seconds()
	l.say("A closed loop reaches %.0f a second", rate)
	return rate, nil
}

// try puts a rate on the target for a while.
func (l *loading) try(ctx context.Context, rate float64, name string, r *result.Result) (step result.Step, err error) {
	s, g, err := l.begin(ctx, name)
	if err != nil {
		return step, err
	}
	defer g.Close() //nolint:errcheck // nothing is in flight
	recorder := load.NewRecorder(s)
	took := g.OpenLoop(ctx, l.step, l.pacer(rate, l.step), s, recorder)
	if err := ctx.Err(); err != nil {
		return step, err
	}
	step = load.Judge(rate, recorder, l.step, took, l.P99)
	g.Settle(ctx, s, recorder)
	l.count(recorder)
	r.Failures = append(r.Failures, recorder.Misbehaviour()...)
	verdict := "holds"
	if !step.Held {
		verdict = "does not hold: " + step.Why
	}
	l.say("%.0f a second: p99 %.1f ms, %s", rate, float64(step.P99)/1000, verdict)
	return step, nil
}

// begin makes a load of the search ready once the one before it is in PostgreSQL.
func (l *loading) begin(ctx context.Context, name string) (load.Scenario, *load.Generator, error) {
	if l.metered {
		if _, err := l.target.awaitWritten(ctx); err != nil {
			return nil, nil, err
		}
	}
	if !l.private() {
		time.Sleep(searchPause)
	}
	s, err := l.scenario(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	g, err := l.dial(ctx, l.step)
	return s, g, err
}

package main

import (
	"context"
	"errors"
	"runtime"
	"time"

	"stampede/bench/load"
)

// contender is a server under the generator.
type contender struct {
	*shop
	name     string
	meter    meter
	goods    load.Goods
	soldOut  string // a product of which there is nothing
	accepted int64  // orders answered with 201 in all rounds, warm-up included
}

// writes is whether a writer brings into PostgreSQL what was sold, behind the answers.
func (c *contender) writes() bool { return c.name == programStampede || c.name == programEvalsha }

// round puts one load on one server while nothing else is under way. wrong says what was answered other than it should
// have been.
func (c *contender) round(ctx context.Context, w workload) (r round, wrong string, err error) {
	if err := awaitQuiet(ctx, c.meter, w.duration); err != nil {
		return r, "", err
	}
	// Anew for every round: between two of them a server closes connections that are idle for too long.
	load, err := w.dial(ctx, c)
	if err != nil {
		return r, "", err
	}
	defer load.close()
	runtime.GC() // the generator's garbage of the rounds before
	calls, err := c.batches(ctx)
	if err != nil {
		return r, "", err
	}
	before, err := c.meter.read()
	if err != nil {
		return r, "", err
	}
	growth := c.watchLag(ctx, w)
	took := load.run(ctx)
	burst, err := c.meter.read()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return r, "", err
	}
	drained, lag, drain := burst, int64(0), time.Duration(0)
	if c.writes() {
		began := time.Now()
		if lag, err = c.awaitWritten(ctx); err != nil {
			return r, "", err
		}
		drain = time.Since(began)
		if drained, err = c.meter.read(); err != nil {
			return r, "", err
		}
	}
	counts := w.count(load.tally())
	if !w.soldOut {
		c.accepted += counts.Accepted
	}
	r = newRound(c.name, counts, took, drain, burst.since(before), drained.since(before))
	r.Load, r.Due, r.Lag, r.LagGrowth = w.name, w.rate, lag, <-growth
	after, err := c.batches(ctx)
	if orders, calls := after.operations-calls.operations, after.calls-calls.calls; calls > 0 {
		r.Batch = float64(orders) / float64(calls)
	}
	return r, counts.Wrong(), err
}

// batches is what script calls have carried so far; nothing where there are none.
type batches struct{ operations, calls int64 }

// What Prometheus calls the number of calls that placed orders, and the orders they carried.
const (
	callsMetric  = `stampede_batch_operations_count{script="place"}`
	ordersMetric = `stampede_batch_operations_sum{script="place"}`
)

func (c *contender) batches(ctx context.Context) (b batches, err error) {
	if !c.writes() {
		return b, nil
	}
	if b.operations, err = c.api.gauge(ctx, ordersMetric); err != nil {
		return b, err
	}
	b.calls, err = c.api.gauge(ctx, callsMetric)
	return b, err
}

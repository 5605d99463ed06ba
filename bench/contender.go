package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
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

// workload is what a round puts on a server.
type workload struct {
	name        string // also of the rounds in a report
	round       int    // equal rounds get equal orders, whoever answers them
	duration    time.Duration
	connections int
	hot         bool // all orders are of one product
	soldOut     bool // of one that is sold out: its refusals are what is counted
}

// sources are the orders of a workload.
func (w workload) sources(c *contender) []load.Source {
	g := c.goods
	switch {
	case w.hot:
		g.Products = g.Products[:1]
	case w.soldOut:
		g.Products = []string{c.soldOut}
	}
	return load.NewUniformOrders(g, fmt.Sprintf("%s-%d", w.name, w.round), uint64(w.round), w.connections)
}

// count makes of a tally what the workload counts.
func (w workload) count(t load.Tally) load.Tally {
	if w.soldOut {
		sold := t.Accepted
		t.Accepted = t.Refused[http.StatusConflict]
		delete(t.Refused, http.StatusConflict)
		if sold > 0 { // of what is not there
			t.Refused[http.StatusCreated] = sold
		}
	}
	return t
}

// round puts one load on one server while nothing else is under way. wrong says what was answered other than it should
// have been.
func (c *contender) round(ctx context.Context, w workload) (r round, wrong string, err error) {
	if err := awaitQuiet(ctx, c.meter); err != nil {
		return r, "", err
	}
	// Anew for every round: between two of them a server closes connections that are idle for too long.
	generator, err := load.Dial(ctx, c.addr, w.connections)
	if err != nil {
		return r, "", err
	}
	defer generator.Close() //nolint:errcheck // nothing is in flight
	runtime.GC()            // the generator's garbage of the rounds before
	sources, recorder := w.sources(c), load.NewRecorder()
	calls, err := c.batches(ctx)
	if err != nil {
		return r, "", err
	}
	before, err := c.meter.read()
	if err != nil {
		return r, "", err
	}
	took := generator.ClosedLoop(ctx, w.duration, sources, recorder)
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
	counts := w.count(recorder.Tally())
	if !w.soldOut {
		c.accepted += counts.Accepted
	}
	r = newRound(c.name, counts, took, drain, burst.since(before), drained.since(before))
	r.Load, r.Lag = w.name, lag
	after, err := c.batches(ctx)
	if orders, calls := after.operations-calls.operations, after.calls-calls.calls; calls > 0 {
		r.Batch = float64(orders) / float64(calls)
	}
	return r, counts.Wrong(), err
}

// batches is what script calls have carried so far; nothing where there are none.
type batches struct{ operations, calls int64 }

const batchMetric = "stampede_batch_operations"

func (c *contender) batches(ctx context.Context) (b batches, err error) {
	if !c.writes() {
		return b, nil
	}
	if b.operations, err = c.api.gauge(ctx, batchMetric+"_sum"); err != nil {
		return b, err
	}
	b.calls, err = c.api.gauge(ctx, batchMetric+"_count")
	return b, err
}

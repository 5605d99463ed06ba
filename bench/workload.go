package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"stampede/bench/load"
)

// workload is what a round puts on a server.
type workload struct {
	name        string // also of the rounds in a report
	round       int    // equal rounds get equal orders, whoever answers them
	duration    time.Duration
	connections int
	rate        float64 // requests a second that are due, an open loop; 0: as many as are answered, a closed one
	hot         bool    // all orders are of one product
	soldOut     bool    // of one that is sold out: its refusals are what is counted
	batched     bool    // many orders in a request
	watched     bool    // it is seen whether the writer's lag grows
}

// running is a workload whose connections are open.
type running struct {
	run   func(ctx context.Context) time.Duration // until the last reply
	tally func() load.Tally
	close func()
}

// dial connects to a server.
func (w workload) dial(ctx context.Context, c *contender) (running, error) {
	if w.batched {
		b := newBatched(c, w)
		return running{
			run:   func(ctx context.Context) time.Duration { return b.run(ctx, w.duration) },
			tally: func() load.Tally { return b.tally },
			close: b.http.CloseIdleConnections,
		}, nil
	}
	orders := w.orders(c)
	recorder := load.NewRecorder(orders)
	generator, err := load.Dial(ctx, c.addr, w.connections)
	return running{
		run: func(ctx context.Context) time.Duration {
			if w.rate > 0 {
				return generator.OpenLoop(ctx, w.duration, load.Constant(w.rate), orders, recorder)
			}
			return generator.ClosedLoop(ctx, w.duration, orders, recorder)
		},
		tally: recorder.Tally,
		close: func() { _ = generator.Close() }, // nothing is in flight
	}, err
}

// orders are those of a workload.
func (w workload) orders(c *contender) load.Scenario {
	g := c.goods
	switch {
	case w.hot:
		g.Products = g.Products[:1]
	case w.soldOut:
		g.Products = []string{c.soldOut}
	}
	return load.NewOrders(g, fmt.Sprintf("%s-%d", w.name, w.round), uint64(w.round), 0)
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

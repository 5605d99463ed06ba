package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"stampede/bench/load"
)

// smokeCmd is `bench smoke`.
type smokeCmd struct {
	JSON     bool   `name:"json" help:"Print the result as JSON."`
	Stampede string `placeholder:"PATH" help:"Measure this binary (default: bin/stampede, or a new build where there is none)."`
}

// Run measures, prints, and fails when the shop did anything wrong.
func (c *smokeCmd) Run(ctx context.Context, to console) error {
	s := smoke{
		connections: 256, users: 1000, products: 8,
		rounds: 3, roundTime: 1500 * time.Millisecond, warmUp: 500 * time.Millisecond,
		binary: c.Stampede, console: to,
	}
	r, err := s.run(ctx)
	if err != nil {
		return err
	}
	write := r.table
	if c.JSON {
		write = r.json
	}
	if err := write(to.out); err != nil {
		return err
	}
	if len(r.Failures) > 0 {
		return fmt.Errorf("failed: %s", r.Failures[0])
	}
	return nil
}

// smoke measures a shop and the empty handler in turns: A B A B, so that what drifts meanwhile hits both.
type smoke struct {
	connections, users, products int

	rounds    int
	roundTime time.Duration
	warmUp    time.Duration
	binary    string // empty: find or build it
	console
}

// run returns what it measured, or an error when it could not. Whatever it started is gone when it returns.
func (s *smoke) run(ctx context.Context) (r *report, err error) {
	started := time.Now()
	w, err := newWorkspace()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	binary, err := w.binary(ctx, s.binary)
	if err != nil {
		return nil, err
	}
	s.say("Starting %s with Redis and PostgreSQL, and the empty handler", binary)
	a, err := startShop(ctx, w, binary)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.stop()) }()
	b, err := startEmpty(ctx, w)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.stop()) }()

	r = &report{
		Benchmark: "smoke", Loop: "closed", Connections: s.connections, Users: s.users, Products: s.products,
		RoundSeconds: s.roundTime.Seconds(), Marks: []string{}, Failures: []string{},
	}
	if r.Machine, err = a.inspect(ctx); err != nil {
		return nil, err
	}
	if err := s.measure(ctx, a, b, r); err != nil {
		return nil, err
	}
	r.summarize()
	r.Seconds = time.Since(started).Seconds()
	return r, nil
}

// contender is one of the two servers under the generator.
type contender struct {
	*load.Generator
	name string
	shop *shop // nil for the empty handler
}

// measure fills the shop, runs the rounds and looks at the books.
func (s *smoke) measure(ctx context.Context, a *shop, b *emptyServer, r *report) error {
	s.say("Filling it: %d users, %d products", s.users, s.products)
	g, err := a.fill(ctx, s.users, s.products)
	if err != nil {
		return err
	}
	m, err := newMeter("/proc", map[int]string{
		a.pid(): programStampede, b.pid(): programEmpty, os.Getpid(): programGenerator,
	})
	if err != nil {
		return err
	}
	toShop, err := load.Dial(ctx, a.addr, s.connections)
	if err != nil {
		return err
	}
	defer toShop.Close() //nolint:errcheck // nothing is in flight
	toEmpty, err := load.Dial(ctx, b.addr, s.connections)
	if err != nil {
		return err
	}
	defer toEmpty.Close() //nolint:errcheck // nothing is in flight
	contenders := []contender{{toShop, programStampede, a}, {toEmpty, programEmpty, nil}}
	for i := range s.rounds + 1 {
		name, duration := fmt.Sprintf("Round %d of %d", i, s.rounds), s.roundTime
		if i == 0 {
			name, duration = "Warm-up", s.warmUp
		}
		for _, c := range contenders {
			s.say("%s: %s", name, readable(c.name))
			measured, counts, err := s.round(ctx, c, m, g, i, duration)
			if err != nil {
				return err
			}
			if wrong := counts.Wrong(); wrong != "" {
				r.Failures = append(r.Failures, fmt.Sprintf("%s, %s: %s", name, readable(c.name), wrong))
			}
			if c.shop != nil {
				r.Books.Accepted += counts.Accepted
			}
			if i > 0 {
				r.Rounds = append(r.Rounds, measured)
			}
		}
	}
	s.say("Auditing the books")
	return r.Books.check(ctx, a, g)
}

// round puts one load on one server while nothing else is under way.
func (s *smoke) round(ctx context.Context, c contender, m meter, g load.Goods, i int, d time.Duration) (round, load.Tally, error) {
	if err := awaitQuiet(ctx, m); err != nil {
		return round{}, load.Tally{}, err
	}
	runtime.GC() // the generator's garbage of the rounds before
	sources := load.NewUniformOrders(g, fmt.Sprintf("smoke-%d", i), uint64(i), s.connections)
	recorder := load.NewRecorder()
	before, err := m.read()
	if err != nil {
		return round{}, load.Tally{}, err
	}
	took := c.ClosedLoop(ctx, d, sources, recorder)
	burst, err := m.read()
	if err != nil {
		return round{}, load.Tally{}, err
	}
	if err := ctx.Err(); err != nil {
		return round{}, load.Tally{}, err
	}
	drained, drain := burst, time.Duration(0)
	if c.shop != nil {
		began := time.Now()
		if err := c.shop.awaitWritten(ctx); err != nil {
			return round{}, load.Tally{}, err
		}
		drain = time.Since(began)
		if drained, err = m.read(); err != nil {
			return round{}, load.Tally{}, err
		}
	}
	counts := recorder.Tally()
	return newRound(c.name, counts, took, drain, burst.since(before), drained.since(before)), counts, nil
}

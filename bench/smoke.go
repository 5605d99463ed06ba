package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
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

// measure fills the shop, runs the rounds and looks at the books.
func (s *smoke) measure(ctx context.Context, a, b *shop, r *report) error {
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
	ours := &contender{shop: a, name: programStampede, meter: m, goods: g}
	theirs := &contender{shop: b, name: programEmpty, meter: m, goods: g}
	for i := range s.rounds + 1 {
		name, w := fmt.Sprintf("Round %d of %d", i, s.rounds), workload{name: "smoke", round: i, duration: s.roundTime, connections: s.connections}
		if i == 0 {
			name, w.duration = "Warm-up", s.warmUp
		}
		for _, c := range []*contender{ours, theirs} {
			s.say("%s: %s", name, readable(c.name))
			measured, wrong, err := c.round(ctx, w)
			if err != nil {
				return err
			}
			if wrong != "" {
				r.Failures = append(r.Failures, fmt.Sprintf("%s, %s: %s", name, readable(c.name), wrong))
			}
			if i > 0 {
				r.Rounds = append(r.Rounds, measured)
			}
		}
	}
	s.say("Auditing the books")
	r.Books.Accepted = ours.accepted
	return r.Books.check(ctx, a, g)
}

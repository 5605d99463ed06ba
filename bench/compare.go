package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// compareCmd is `bench compare`.
type compareCmd struct {
	Only        []string `placeholder:"ROW" help:"Measure these rows only: ${rows}."`
	Quick       bool     `help:"Rounds as short as they can be: about two minutes instead of nine."`
	Connections int      `default:"256" help:"Connections of a load."`
	JSON        string   `name:"json" placeholder:"FILE" help:"Write all that was measured into a file, as JSON."`
	Stampede    string   `placeholder:"PATH" help:"Measure this binary (default: bin/stampede, or a new build where there is none)."`
}

// Validate refuses rows that there are not.
func (c *compareCmd) Validate() error {
	for _, name := range c.Only {
		if !slices.Contains(rowNames(), name) {
			return fmt.Errorf("there is no row %q: take some of %s", name, strings.Join(rowNames(), ", "))
		}
	}
	if c.Connections < 1 || c.Connections > 10_000 {
		return errors.New("--connections must be 1 to 10000")
	}
	return nil
}

// Run measures, prints, and fails when a shop did anything wrong.
func (c *compareCmd) Run(ctx context.Context, to console) error {
	x := comparison{
		connections: c.Connections, crowd: max(1024, c.Connections), users: 4000, products: 1000,
		rounds: 3, burst: 10 * time.Second, other: 5 * time.Second, warmUp: time.Second,
		memory: memory{orders: 200_000, users: 20_000, settled: 30_000},
		only:   c.Only, binary: c.Stampede, console: to,
	}
	if c.Quick {
		x.rounds, x.burst, x.other = 2, 4*time.Second, 2*time.Second
		x.memory.orders, x.memory.users = 60_000, 5_000
	}
	r, err := x.run(ctx)
	if err != nil {
		return err
	}
	if c.JSON != "" {
		if err := r.write(c.JSON); err != nil {
			return err
		}
	}
	if err := r.table(to.out); err != nil {
		return err
	}
	if len(r.Failures) > 0 {
		return fmt.Errorf("failed: %s", r.Failures[0])
	}
	return nil
}

// comparison measures Stampede and what it is held against, each load on each server in turns, so that what drifts
// meanwhile hits all.
type comparison struct {
	connections, users, products int
	crowd                        int // connections that fill batches

	rounds int
	burst  time.Duration // of a round of what is promised of a burst
	other  time.Duration // of any other round
	warmUp time.Duration
	memory memory
	only   []string // rows; none: all
	binary string   // empty: find or build it
	console

	workspace  workspace
	contenders map[string]*contender
	yardstick  *yardstick
}

// run returns what it measured, or an error when it could not. Whatever it started is gone when it returns.
func (x *comparison) run(ctx context.Context) (r *comparisonReport, err error) {
	started := time.Now()
	if x.workspace, err = newWorkspace(); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, x.workspace.remove()) }()
	if x.binary, err = x.workspace.binary(ctx, x.binary); err != nil {
		return nil, err
	}
	r = &comparisonReport{
		Benchmark: "compare", Connections: x.connections, Crowd: x.crowd, Users: x.users, Products: x.products, Rounds: []round{},
		BurstSeconds: x.burst.Seconds(), RoundSeconds: x.other.Seconds(), Marks: []string{}, Failures: []string{},
	}
	r.chosen = chosenRows(x.only)
	defer func() { err = errors.Join(err, x.stop()) }()
	if err := x.start(ctx, r); err != nil {
		return nil, err
	}
	if err := x.measure(ctx, r); err != nil {
		return nil, err
	}
	r.conclude()
	r.Seconds = time.Since(started).Seconds()
	return r, nil
}

// start starts and fills every server that the chosen rows need. The empty handler gets the orders of Stampede.
func (x *comparison) start(ctx context.Context, r *comparisonReport) error {
	x.contenders = make(map[string]*contender)
	for _, name := range r.servers() {
		x.say("Starting and filling %s", readable(name))
		var s *shop
		var err error
		switch name {
		case programStampede:
			s, err = startShop(ctx, x.workspace, x.binary)
		case programEmpty:
			s, err = startEmpty(ctx, x.workspace)
		case programEvalsha:
			s, err = startPrivate(ctx, x.workspace, name, "evalsha-server")
		case programRowLocks:
			s, err = startPrivate(ctx, x.workspace, name, "postgres-server")
		case programSet:
			x.yardstick, err = startYardstick(ctx, x.workspace)
		}
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		if x.contenders[name], err = x.engage(ctx, name, s); err != nil {
			return err
		}
	}
	shop := x.contenders[programStampede]
	if shop == nil {
		return nil // none of the rows is of a load
	}
	var err error
	r.Machine, err = shop.inspect(ctx)
	if err != nil {
		return err
	}
	r.Disk, err = probeDisk(ctx, shop.data)
	return err
}

// engage fills a server. When it fails the server is stopped.
func (x *comparison) engage(ctx context.Context, name string, s *shop) (c *contender, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	m, err := newMeter("/proc", map[int]string{s.pid(): name, os.Getpid(): programGenerator})
	if err != nil {
		return nil, err
	}
	if name == programEmpty {
		shop := x.contenders[programStampede]
		return &contender{shop: s, name: name, meter: m, goods: shop.goods, soldOut: shop.soldOut}, nil
	}
	goods, err := s.fill(ctx, x.users, x.products)
	if err != nil {
		return nil, err
	}
	soldOut, err := s.api.createProduct(ctx, "Nothing left", productPrice, 0)
	if err != nil {
		return nil, err
	}
	return &contender{shop: s, name: name, meter: m, goods: goods, soldOut: soldOut}, nil
}

// stop ends all that runs.
func (x *comparison) stop() error {
	var errs []error
	for _, c := range x.contenders {
		errs = append(errs, c.stop())
	}
	if x.yardstick != nil {
		errs = append(errs, x.yardstick.stop())
	}
	return errors.Join(errs...)
}

// measure runs the rounds, looks at the books, and then at what needs the machine for itself.
func (x *comparison) measure(ctx context.Context, r *comparisonReport) error {
	for i := range x.rounds + 1 {
		for _, c := range r.cells() {
			if i == 0 && (c.load != loadMany || c.server == programSet) {
				continue // any load warms up its server
			}
			if err := x.round(ctx, r, c, i); err != nil {
				return err
			}
		}
	}
	for _, name := range r.servers() {
		if c := x.contenders[name]; c != nil && name != programEmpty {
			if err := x.checkBooks(ctx, r, c); err != nil {
				return err
			}
		}
	}
	if r.needsMemory() {
		x.say("Memory, on a shop of its own")
		m := x.memory
		m.connections, m.binary, m.console = 64, x.binary, x.console
		var err error
		if r.Memory, err = m.run(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// round measures one cell once; round 0 is a warm-up and is not kept.
func (x *comparison) round(ctx context.Context, r *comparisonReport, c cell, i int) error {
	name, d := fmt.Sprintf("Round %d of %d", i, x.rounds), x.other
	if c.burst {
		d = x.burst
	}
	if i == 0 {
		name, d = "Warm-up", x.warmUp
	}
	x.say("%s: %s, %s", name, readable(c.server), c.load)
	if c.server == programSet {
		measured, err := x.yardstick.round(ctx, d)
		if err == nil {
			r.Rounds = append(r.Rounds, measured)
		}
		return err
	}
	w := workload{
		name: c.load, round: i, duration: d, connections: x.connections,
		hot: c.load == loadHot, soldOut: c.load == loadSoldOut && c.server != programEmpty,
	}
	if c.load == loadCrowd {
		w.connections = x.crowd
	}
	measured, wrong, err := x.contenders[c.server].round(ctx, w)
	if err != nil {
		return err
	}
	if wrong != "" {
		r.Failures = append(r.Failures, fmt.Sprintf("%s, %s, %s: %s", name, readable(c.server), c.load, wrong))
	}
	if i > 0 {
		r.Rounds = append(r.Rounds, measured)
	}
	return nil
}

// checkBooks holds the stock against the answers, for a baseline that sells what is not there would be no opponent, and
// has Stampede's books audited.
func (x *comparison) checkBooks(ctx context.Context, r *comparisonReport, c *contender) (err error) {
	x.say("Looking at the books of %s", readable(c.name))
	b := books{Accepted: c.accepted}
	if c.name == programStampede {
		if err := b.check(ctx, c.shop, c.goods); err != nil {
			return err
		}
		r.Books = b
	} else if b.UnitsSold, err = c.sold(ctx, c.goods); err != nil {
		return err
	}
	for _, failure := range b.failures() {
		r.Failures = append(r.Failures, readable(c.name)+": "+failure)
	}
	return nil
}

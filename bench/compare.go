package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// compareCmd is `bench compare`.
type compareCmd struct {
	Only        []string `placeholder:"ROW" help:"Measure these rows only: ${rows}."`
	Quick       bool     `help:"Rounds as short as they can be, for a first look."`
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
		rounds: 3, burst: 10 * time.Second, steady: 10 * time.Second, other: 5 * time.Second, warmUp: time.Second,
		memory: memory{orders: 200_000, users: 20_000, settled: 30_000},
		only:   c.Only, binary: c.Stampede, console: to,
	}
	if c.Quick {
		x.rounds, x.burst, x.steady, x.other = 2, 4*time.Second, 6*time.Second, 2*time.Second
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
	steady time.Duration // of a round that shows whether the writer keeps up
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

// start starts every server that the chosen rows need, side by side, and fills them. The empty handler gets the orders of
// Stampede.
func (x *comparison) start(ctx context.Context, r *comparisonReport) error {
	servers := r.servers()
	started := make([]*shop, len(servers))
	group := new(errgroup.Group)
	for i, name := range servers {
		x.say("Starting %s", readable(name))
		group.Go(func() (err error) {
			started[i], err = x.launch(ctx, name)
			return err
		})
	}
	err := group.Wait()
	x.contenders = make(map[string]*contender)
	for i, s := range started {
		if s != nil {
			x.contenders[servers[i]] = &contender{shop: s, name: servers[i]}
		}
	}
	for _, name := range servers {
		if c := x.contenders[name]; err == nil && c != nil {
			err = x.fill(ctx, c)
		}
	}
	shop := x.contenders[programStampede]
	if err != nil || shop == nil {
		return err // without any: none of the rows is of a load
	}
	if r.Machine, err = shop.inspect(ctx); err != nil {
		return err
	}
	r.Disk, err = probeDisk(ctx, shop.data)
	return err
}

// launch starts one server; nil is the one that is no shop.
func (x *comparison) launch(ctx context.Context, name string) (s *shop, err error) {
	switch name {
	case programStampede:
		return startShop(ctx, x.workspace, x.binary)
	case programEmpty:
		return startEmpty(ctx, x.workspace)
	case programEvalsha:
		return startPrivate(ctx, x.workspace, name, "evalsha-server")
	case programRowLocks:
		return startPrivate(ctx, x.workspace, name, "postgres-server")
	}
	x.yardstick, err = startYardstick(ctx, x.workspace)
	return nil, err
}

// fill gives a server users and products.
func (x *comparison) fill(ctx context.Context, c *contender) (err error) {
	if c.meter, err = newMeter("/proc", map[int]string{c.pid(): c.name, os.Getpid(): programGenerator}); err != nil {
		return err
	}
	if c.name == programEmpty {
		c.goods = x.contenders[programStampede].goods
		return nil
	}
	x.say("Filling %s: %d users, %d products", readable(c.name), x.users, x.products)
	if c.goods, err = c.fill(ctx, x.users, x.products); err != nil {
		return err
	}
	c.soldOut, err = c.api.createProduct(ctx, "Nothing left", productPrice, 0)
	return err
}

// stop ends all that runs, side by side.
func (x *comparison) stop() error {
	var stops []func() error
	for _, c := range x.contenders {
		stops = append(stops, c.stop)
	}
	if x.yardstick != nil {
		stops = append(stops, x.yardstick.stop)
	}
	errs := make([]error, len(stops))
	var stopping sync.WaitGroup
	for i, stop := range stops {
		stopping.Go(func() { errs[i] = stop() })
	}
	stopping.Wait()
	return errors.Join(errs...)
}

// measure runs the rounds, looks at the books, and then at what needs the machine for itself.
func (x *comparison) measure(ctx context.Context, r *comparisonReport) error {
	closed, half, steady := r.cellsByLoop()
	for i := range x.rounds + 1 {
		for _, c := range closed {
			if i == 0 && (c.load != loadMany || c.server == programSet) {
				continue // any load warms up its server
			}
			if _, err := x.round(ctx, r, c, i, 0); err != nil {
				return err
			}
		}
	}
	peak := over(r.of(burstOfStampede), perSecond).Median
	for i := 1; i <= x.rounds; i++ {
		for _, c := range half {
			if _, err := x.round(ctx, r, c, i, peak/2); err != nil {
				return err
			}
		}
	}
	if len(steady) > 0 {
		if err := x.findSteady(ctx, r); err != nil {
			return err
		}
	}
	for _, name := range r.servers() {
		if c := x.contenders[name]; c != nil && name != programEmpty {
			if err := x.checkBooks(ctx, r, c); err != nil {
				return err
			}
		}
	}
	return x.measureMemory(ctx, r)
}

func (x *comparison) measureMemory(ctx context.Context, r *comparisonReport) (err error) {
	if !slices.ContainsFunc(r.chosen, func(row row) bool { return row.name == rowMemory }) {
		return nil
	}
	x.say("Memory, on a shop of its own")
	m := x.memory
	m.connections, m.binary, m.console = 64, x.binary, x.console
	r.Memory, err = m.run(ctx)
	return err
}

// round measures one cell once; round 0 is a warm-up and is not kept. rate is of an open loop, 0 a closed one.
func (x *comparison) round(ctx context.Context, r *comparisonReport, c cell, i int, rate float64) (measured round, err error) {
	name, d := fmt.Sprintf("Round %d of %d", i, x.rounds), x.other
	if c.burst {
		d = x.burst
	}
	if c.load == loadSteady {
		d = x.steady
	}
	switch {
	case i == 0:
		name, d = "Warm-up", x.warmUp
	case rate > 0:
		name = fmt.Sprintf("Round %d, %.0f a second", i, rate)
	}
	x.say("%s: %s, %s", name, readable(c.server), c.load)
	if c.server == programSet {
		if measured, err = x.yardstick.round(ctx, d); err == nil {
			r.Rounds = append(r.Rounds, measured)
		}
		return measured, err
	}
	w := workload{
		name: c.load, round: i, duration: d, connections: x.connections, rate: rate,
		hot: c.load == loadHot, batched: c.load == loadBatched, soldOut: c.load == loadSoldOut, watched: c.load == loadSteady,
	}
	if c.load == loadCrowd {
		w.connections = x.crowd
	}
	measured, wrong, err := x.contenders[c.server].round(ctx, w)
	if err != nil {
		return measured, err
	}
	if wrong != "" {
		r.Failures = append(r.Failures, fmt.Sprintf("%s, %s, %s: %s", name, readable(c.server), c.load, wrong))
	}
	if i > 0 {
		r.Rounds = append(r.Rounds, measured)
	}
	return measured, nil
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

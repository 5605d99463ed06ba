package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"

	"stampede/bench/load"
	"stampede/bench/result"
)

// loading is a load test under way.
type loading struct {
	loadCmd
	step time.Duration // a load of the search
	console

	target  *shop  // the deployment; one of somebody else is a shop without a program
	where   string // it is, in words
	metered bool   // its /metrics can be read
	meter   meter  // of the generator and, where they are known, of the servers
	goods   load.Goods
	hot     []hot // what flash has sold
}

// hot is a product of a flash sale of which the stock is known.
type hot struct {
	id       string
	accepted int64 // orders of one unit
	open     bool  // some have no definite answer, so more may be sold
}

// run returns what it measured, or an error when it could not. Whatever it started is gone when it returns.
func (l *loading) run(ctx context.Context) (r *result.Result, err error) {
	w, err := newWorkspace()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	if err := l.open(ctx, w); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.target.stop()) }()
	if r, err = l.measure(ctx); err != nil {
		return nil, err
	}
	return r, l.checkBooks(ctx, r)
}

// measure fills the deployment and loads it.
func (l *loading) measure(ctx context.Context) (r *result.Result, err error) {
	r = l.newResult()
	if r.Machine, err = l.facts(ctx); err != nil {
		return nil, err
	}
	if err := l.fill(ctx); err != nil {
		return nil, err
	}
	if r.Products = len(l.goods.Products); l.Scenario == scenarioFlash {
		r.Products = 1
	}
	rate := cmp.Or(l.Rate, rateDefault)
	if l.Find {
		if rate, err = l.find(ctx, r); err != nil {
			return nil, err
		}
	}
	r.Pace = l.pace(rate)
	if rate == 0 { // the search has found none
		return r, nil
	}
	return r, l.load(ctx, rate, r)
}

// open finds the deployment, or starts a private one.
func (l *loading) open(ctx context.Context, w workspace) (err error) {
	private := l.Addr == "" && l.DataDir == ""
	binary := ""
	if private || l.DataDir != "" {
		if binary, err = w.binary(ctx, l.Stampede); err != nil {
			return err
		}
	}
	roots := map[int]string{os.Getpid(): programGenerator}
	switch {
	case private:
		l.say("Starting %s with Redis and PostgreSQL", binary)
		if l.target, err = startShop(ctx, w, binary); err != nil {
			return err
		}
		roots[l.target.pid()] = programStampede
		l.where = "a private stampede up, durability fsync"
	case l.DataDir != "":
		l.target = &shop{binary: binary, data: l.DataDir}
		settings, err := l.target.settings()
		if err != nil {
			return fmt.Errorf("--data-dir: %w (does `stampede up` run there?)", err)
		}
		l.target.addr = settings["STAMPEDE_ADDR"]
		l.target.api = newAPI(l.target.addr, settings["STAMPEDE_ADMIN_TOKEN"])
		l.where = fmt.Sprintf("the stampede up in %s, at %s", l.DataDir, l.target.addr)
	default:
		l.target = &shop{addr: l.Addr, api: newAPI(l.Addr, l.AdminToken)}
		l.where = "the deployment at " + l.Addr
	}
	if err = l.target.api.ready(ctx); err != nil {
		err = fmt.Errorf("%s does not answer as ready: %w", l.where, err)
	}
	if err == nil {
		if l.meter, err = newMeter("/proc", roots); errors.Is(err, errNoProc) {
			l.say("This system has no /proc, from which CPU time by program is read: the result has none")
			err = nil
		}
		first, unread := l.target.api.scrape(ctx)
		if l.metered = unread == nil && first.lag != lagUnseen; !l.metered {
			l.say("Its /metrics tell nothing of batches and of the writer's lag: neither will the result")
		}
	}
	if err != nil {
		return errors.Join(err, l.target.stop())
	}
	return nil
}

// private is whether the deployment is the run's own.
func (l *loading) private() bool { return l.target.program != nil }

// facts are on what the load ran.
func (l *loading) facts(ctx context.Context) ([]result.Fact, error) {
	if l.private() {
		m, err := l.target.inspect(ctx)
		server, version, _ := strings.Cut(m.Redis, " ")
		return []result.Fact{
			{Name: "cores", Value: fmt.Sprintf("%d, for the generator too", m.Cores)},
			{Name: "kernel", Value: m.Kernel},
			{Name: "filesystem", Value: m.Filesystem},
			{Name: "Go", Value: m.Go},
			{Name: "Stampede", Value: m.Stampede},
			{Name: server, Value: version},
			{Name: "PostgreSQL", Value: m.Postgres},
			{Name: "durability", Value: m.Durability},
		}, err
	}
	name, err := kernel()
	return []result.Fact{
		{Name: "generator's cores", Value: fmt.Sprint(runtime.NumCPU())},
		{Name: "generator's kernel", Value: name},
		{Name: "Go", Value: runtime.Version()},
	}, err
}

// fill creates users and, unless it is to sell what is there, products.
func (l *loading) fill(ctx context.Context) error {
	l.goods = load.Goods{Users: make([]string, l.Users), Products: l.ProductIDs}
	if len(l.ProductIDs) == 0 && (l.Scenario == scenarioMixed || l.Scenario == scenarioUniform) {
		l.goods.Products = make([]string, l.Products)
	}
	if !l.private() {
		l.say("This is no rehearsal for the shop at %s: %d users are created with a balance of %d each, and what they do with it moves "+
			"real stock and money and stays in its books.", l.target.addr, l.Users, int64(userBalance))
	}
	l.say("Filling it: %d users, %d products", l.Users, len(l.goods.Products))
	var err error
	if len(l.ProductIDs) == 0 {
		err = l.target.api.fillProducts(ctx, l.goods.Products)
	}
	for _, id := range l.ProductIDs {
		if err == nil {
			_, err = l.target.api.stock(ctx, id)
		}
	}
	if err == nil {
		// Every run has users of its own: a shop has each address once.
		err = l.target.api.fillUsers(ctx, l.goods.Users, strings.ToLower(rand.Text())+".example.com")
	}
	if err != nil && !l.private() {
		return fmt.Errorf("fill the shop: %w (bench acts as a gateway does: it wants --auth trusted and the admin token)", err)
	}
	return l.target.explain(err)
}

// scenario makes the requests of one load, under keys that begin with its name.
func (l *loading) scenario(ctx context.Context, name string) (load.Scenario, error) {
	g := l.goods
	switch l.Scenario {
	case scenarioCharge:
		return load.NewCharges(g.Users, name, l.Seed), nil
	case scenarioUniform:
		return load.NewOrders(g, name, l.Seed, l.exponent()), nil
	case scenarioMixed:
		return load.NewMixed(g, name, l.Seed, l.exponent()), nil
	}
	if len(g.Products) == 0 {
		// A product of its own: the one before it may be sold out.
		id, err := l.target.api.createProduct(ctx, "Hot thing", productPrice, l.Stock)
		if err != nil {
			return nil, l.target.explain(err)
		}
		l.hot = append(l.hot, hot{id: id})
		g.Products = []string{id}
	}
	g.Products = g.Products[:1]
	return load.NewOrders(g, name, l.Seed, 0), nil
}

// load puts the load on the target that the result is about.
func (l *loading) load(ctx context.Context, rate float64, r *result.Result) error {
	s, err := l.scenario(ctx, "load")
	if err != nil {
		return err
	}
	every := interval(l.For)
	recorder := load.NewRecorder(s)
	recorder.KeepTimeline(every)
	g, err := l.dial(ctx, l.For)
	if err != nil {
		return err
	}
	defer g.Close() //nolint:errcheck // nothing is in flight
	l.say("Loading %s: %s, %v, %s", l.where, l.Scenario, l.For, r.Pace)
	r.Started = time.Now().UTC()
	before, err := l.meter.read()
	if err != nil {
		return err
	}
	watch := l.watch(ctx, every)
	told := l.tell(recorder)
	var took time.Duration
	if l.Closed {
		took = g.ClosedLoop(ctx, l.For, s, recorder)
	} else {
		took = g.OpenLoop(ctx, l.For, l.pacer(rate, l.For), s, recorder)
	}
	told()
	watched := watch()
	used, err := l.meter.read()
	if err := errors.Join(err, ctx.Err()); err != nil {
		return l.target.explain(err)
	}
	if open := recorder.Open(); open > 0 {
		l.say("Asking again for %d requests without a definite answer", open)
		g.Settle(ctx, s, recorder)
	}
	r.Seconds = took.Seconds()
	recorder.Fill(r)
	watched.fill(r, l.private())
	l.count(recorder)
	r.Marks = append(r.Marks, marks(r, recorder.Dispatch(), cores(used.since(before), took), l.private())...)
	if p99 := recorder.Tally().P99; l.Find && p99 > l.P99 {
		r.Marks = append(r.Marks, fmt.Sprintf("the rate that was found held a p99 of %v in the %v of its search, but not in the %v of this load: "+
			"here it was %v", l.P99, l.step, l.For, p99.Round(100*time.Microsecond)))
	}
	r.Failures = append(r.Failures, recorder.Misbehaviour()...)
	if r.Total.Failed > 0 {
		r.Failures = append(r.Failures, fmt.Sprintf("%d requests have no definite answer, however often it was asked again", r.Total.Failed))
	}
	return nil
}

// dial connects anew for a load of a length, once the shop is at rest: between two loads a server closes connections that are
// idle for too long.
func (l *loading) dial(ctx context.Context, next time.Duration) (*load.Generator, error) {
	if l.private() {
		if err := awaitQuiet(ctx, l.meter, next); err != nil {
			return nil, err
		}
	}
	runtime.GC() // the generator's garbage of what was before
	return load.Dial(ctx, l.target.addr, l.Connections)
}

// count notes what a load has sold.
func (l *loading) count(r *load.Recorder) {
	if len(l.hot) > 0 {
		t := r.Tally()
		sold := &l.hot[len(l.hot)-1]
		sold.accepted, sold.open = t.Accepted, t.Failed > 0
	}
}

const (
	pieces        = 120
	shortestPiece = 100 * time.Millisecond
)

// interval is the length of the pieces into which a load is cut.
func interval(d time.Duration) time.Duration {
	return max(shortestPiece, (d / pieces).Round(10*time.Millisecond))
}

// cores is CPU time as processors that were busy.
func cores(used usage, took time.Duration) map[string]float64 {
	busy := make(map[string]float64, len(used))
	for program, cpu := range used {
		busy[program] = cpu.Seconds() / took.Seconds()
	}
	return busy
}

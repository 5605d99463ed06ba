package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"stampede/bench/load"
	"stampede/bench/result"
)

// loadCmd is `bench load`.
type loadCmd struct {
	Scenario    string        `default:"flash" enum:"flash,mixed,uniform,charge" help:"What is asked for. flash: one product sells out. mixed: ${shares}. uniform: orders of many products. charge: charges of balances."`
	Rate        float64       `placeholder:"N" help:"Requests a second (2000). With --find: where the search begins; by default at what a short closed loop reaches."`
	Pace        string        `default:"constant" enum:"constant,poisson,spike" help:"When they are due. constant: at equal distances. poisson: as of many people, in clumps. spike: nothing at first, then within a second all that is due in the whole time."`
	Closed      bool          `xor:"loop" help:"A closed loop instead: one request in flight on each connection, as fast as they are answered."`
	Find        bool          `xor:"loop" help:"Search for the highest rate that holds --p99, and load with it."`
	P99         time.Duration `name:"p99" default:"20ms" help:"What --find holds: 99 of 100 accepted requests are answered so soon after they were due."`
	For         time.Duration `default:"30s" help:"How long the load is."`
	Connections int           `default:"256" help:"Connections, each with one request at a time."`
	Users       int           `default:"1000" help:"Users to create, with balances that do not run out."`
	Products    int           `default:"1000" help:"Products to create, with stock that does not run out; flash creates one."`
	ProductIDs  []string      `name:"product-ids" placeholder:"ID" help:"Sell these products of the deployment instead of new ones; flash sells the first."`
	Stock       int64         `default:"10000" help:"Units of the product of flash."`
	Zipf        *float64      `placeholder:"S" help:"Sell product number k in proportion to k^-S, S above 1; 0: all alike. By default 1.1 in mixed, 0 in uniform."`
	Seed        uint64        `default:"1" help:"Equal seeds make equal requests and, with poisson, at equal times."`
	Addr        string        `placeholder:"HOST:PORT" xor:"target" help:"Load the deployment that listens there, over HTTP. It sells real stock. By default a private stampede is started and removed."`
	DataDir     string        `placeholder:"DIR" xor:"target" help:"Load the running stampede up of this directory, and audit its books."`
	AdminToken  string        `env:"STAMPEDE_ADMIN_TOKEN" placeholder:"T" help:"Admin token of the deployment at --addr, to create users and products. Rather put it in the environment, where other users of the machine cannot read it."`
	JSON        string        `name:"json" placeholder:"FILE" help:"Write the result into a file, as JSON."`
	HTML        string        `name:"html" placeholder:"FILE" help:"Write the result into a file, as a page of charts that needs nothing but a browser."`
	Stampede    string        `placeholder:"PATH" help:"Start this binary, and audit with it (default: bin/stampede, or a new build where there is none)."`
}

const (
	rateDefault    = 2000.0
	zipfMixed      = 1.1
	loadUsersMax   = 1_000_000
	loadProductMax = 1_000_000
	loadConnsMax   = 10_000 // an address has no more at a server
	rateMax        = 10_000_000
	shortestLoad   = 100 * time.Millisecond
	longestLoad    = 24 * time.Hour
)

// Validate refuses what cannot be meant.
func (c *loadCmd) Validate() error {
	within := func(name string, value, most int) error {
		if value < 1 || value > most {
			return fmt.Errorf("--%s %d: take 1 to %d", name, value, most)
		}
		return nil
	}
	err := errors.Join(within("users", c.Users, loadUsersMax), within("products", c.Products, loadProductMax),
		within("connections", c.Connections, loadConnsMax), within("stock", int(c.Stock), productStock))
	switch {
	case err != nil:
		return err
	case c.Rate < 0 || c.Rate > rateMax:
		return fmt.Errorf("--rate %g: take up to %d a second", c.Rate, rateMax)
	case c.For < shortestLoad || c.For > longestLoad:
		return fmt.Errorf("--for %v: take %v to %v", c.For, shortestLoad, longestLoad)
	case c.Find && c.Pace == paceSpike:
		return errors.New("--find wants a rate that lasts: take --pace constant or poisson")
	case c.Closed && (c.Rate != 0 || c.Pace != paceConstant):
		return errors.New("--closed has no rate and no pace: it goes as fast as it is answered")
	case c.P99 <= 0:
		return fmt.Errorf("--p99 %v: take a time above 0", c.P99)
	case c.Zipf != nil && *c.Zipf != 0 && (*c.Zipf <= 1 || *c.Zipf > 10):
		return fmt.Errorf("--zipf %g: take 0, or more than 1 up to 10", *c.Zipf)
	case len(c.ProductIDs) > 0 && c.Addr == "" && c.DataDir == "":
		return errors.New("--product-ids are of a deployment: name it with --addr or --data-dir")
	case strings.Contains(c.Addr, "://"):
		return fmt.Errorf("--addr %s: take host:port, of plain HTTP (behind what ends TLS)", c.Addr)
	}
	if _, _, err := net.SplitHostPort(c.Addr); c.Addr != "" && err != nil {
		return fmt.Errorf("--addr: %w", err)
	}
	return nil
}

// Run loads, prints, and fails when the shop did anything wrong.
func (c *loadCmd) Run(ctx context.Context, to console) (err error) {
	// Made first: a load is too long to learn afterwards that there is no such folder.
	asJSON, err := create(c.JSON)
	if err != nil {
		return fmt.Errorf("--json: %w", err)
	}
	defer func() { err = errors.Join(err, asJSON.Close()) }()
	asHTML, err := create(c.HTML)
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	defer func() { err = errors.Join(err, asHTML.Close()) }()
	l := loading{loadCmd: *c, step: searchStep, console: to}
	r, err := l.run(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(r.JSON(asJSON), r.HTML(asHTML), r.Table(to.out)); err != nil {
		return err
	}
	if len(r.Failures) > 0 {
		return fmt.Errorf("failed: %s", r.Failures[0])
	}
	return nil
}

// create makes a file; one without a name is nowhere.
func create(path string) (*os.File, error) {
	if path == "" {
		path = os.DevNull
	}
	return os.Create(path)
}

// The scenarios and paces.
const (
	scenarioFlash   = "flash"
	scenarioMixed   = "mixed"
	scenarioUniform = "uniform"
	scenarioCharge  = "charge"
	paceConstant    = "constant"
	pacePoisson     = "poisson"
	paceSpike       = "spike"
)

// pacer plans a load of a rate.
func (c *loadCmd) pacer(rate float64, d time.Duration) load.Pacer {
	switch c.Pace {
	case pacePoisson:
		return load.NewPoisson(rate, c.Seed)
	case paceSpike:
		return load.NewSpike(rate, d)
	}
	return load.Constant(rate)
}

// pace is the plan in words.
func (c *loadCmd) pace(rate float64) string {
	switch {
	case c.Closed:
		return fmt.Sprintf("as fast as %d connections are answered", c.Connections)
	case c.Pace == paceSpike:
		return fmt.Sprintf("spike, %.0f within a second", rate*c.For.Seconds())
	case c.Pace == pacePoisson:
		return fmt.Sprintf("poisson, %.0f a second in the mean", rate)
	}
	return fmt.Sprintf("constant, %.0f a second", rate)
}

// exponent is how uneven products sell.
func (c *loadCmd) exponent() float64 {
	switch {
	case c.Zipf != nil:
		return *c.Zipf
	case c.Scenario == scenarioMixed:
		return zipfMixed
	}
	return 0
}

// newResult is what is known of a load before it begins.
func (l *loading) newResult() *result.Result {
	c := l.loadCmd
	r := &result.Result{
		Target:   l.where,
		Scenario: c.Scenario, Loop: "open", Seed: c.Seed, Connections: c.Connections, Users: c.Users,
		Marks: []string{}, Failures: []string{},
	}
	if c.Closed {
		r.Loop = "closed"
	}
	return r
}

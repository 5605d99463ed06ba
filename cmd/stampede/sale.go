package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/engine/rest"
)

const (
	// openPatience is how long requests wait in the listener's queue for the doors to open. After it they are
	// answered, with what is wrong.
	openPatience = 10 * time.Second
	drainMax     = 10 * time.Second // for requests under way
	catchUpMax   = 8 * time.Second  // for the writer; what it does not reach waits in Redis
	closeMax     = 10 * time.Second // for the whole shop, the writer's part included
	hurriedMax   = time.Second      // for the shop, after a second signal
)

// sale is a shop to be opened with HTTP in front of it: what `up` and `serve` have in common.
type sale struct {
	listener    net.Listener
	tls         bool // the listener speaks it
	redis       engine.Redis
	postgresURL string
	adminToken  string
	showToken   bool
	partitions  int
	noWriter    bool
	oneMachine  bool // its servers run beside it
	replica     bool // what is answered has one
	demo        bool

	hold         time.Duration
	refundWindow time.Duration

	tokens rest.Tokens
	limits rest.Limits

	profiles net.Listener // nil: none
}

// sale returns what the flags say of one, listening already; userRate and ipRate hold where the flags say nothing.
func (f *saleFlags) sale(log *slog.Logger, userRate, ipRate int) (s sale, err error) {
	s = sale{
		tls: f.TLSCert != "", partitions: f.Partitions, noWriter: f.NoWriter,
		hold: f.Hold, refundWindow: f.refundWindow(),
	}
	if s.tokens, err = f.tokens(log); err != nil {
		return s, err
	}
	if s.limits, err = f.limits(userRate, ipRate); err != nil {
		return s, err
	}
	if s.profiles, err = listenProfiles(f.AdminAddr); err != nil {
		return s, err
	}
	s.listener, err = f.listen(log)
	return s, err
}

// sell opens the shop and serves until a signal comes or the listener fails, then stops: HTTP first, the shop behind
// it.
func sell(c *console, s sale) (err error) {
	if s.profiles != nil {
		defer serveProfiles(s.profiles, c.log)() // a stop that hangs can be looked into
	}
	registry, err := newRegistry()
	if err != nil {
		return err
	}
	opened, err := shop.Open(c.interrupts.stop, shop.Config{
		Redis: s.redis, PostgresURL: s.postgresURL, Partitions: s.partitions, NoWriter: s.noWriter, OneMachine: s.oneMachine, Replica: s.replica,
		Hold: s.hold, RefundWindow: s.refundWindow, Log: c.log, Metrics: registry,
	})
	if err != nil {
		return c.unlessInterrupted(err)
	}
	defer func() { err = errors.Join(err, closeShop(c, opened)) }()
	h := &health{shop: opened}
	server, err := s.server(c, h, registry)
	if err != nil {
		return err
	}
	ready := make(chan error, 1)
	ctx, cancel := context.WithCancel(c.interrupts.stop)
	var opening sync.WaitGroup
	defer opening.Wait() // before the shop closes under it
	defer cancel()
	opening.Go(func() { ready <- s.open(ctx, c, h) })
	return c.unlessInterrupted(s.serve(c, server, ready))
}

// server puts HTTP in front of the shop.
func (s *sale) server(c *console, h *health, registry *prometheus.Registry) (*rest.Server, error) {
	if err := watchWriter(registry, h.shop); err != nil {
		return nil, err
	}
	return rest.New(rest.Config{
		Sales: h.shop.Engine, Registry: h.shop.Books, Health: h, AdminToken: s.adminToken,
		TLS: s.tls, Tokens: s.tokens, Limits: s.limits, Metrics: registry, Log: c.log,
	})
}

// open waits for the doors and fills in the demo catalogue.
func (s *sale) open(ctx context.Context, c *console, h *health) error {
	if err := h.shop.Engine.AwaitReady(ctx); err != nil {
		return err
	}
	if s.demo {
		if err := fillDemo(ctx, h.shop, c.log); err != nil {
			return fmt.Errorf("the demo catalogue is not complete (%w): start again with --demo, which goes on with it", err)
		}
	}
	h.opened.Store(true)
	return nil
}

// serve answers requests from the moment the shop is ready, or patience ends, until a signal comes.
func (s *sale) serve(c *console, server *rest.Server, ready <-chan error) error {
	patience := time.NewTimer(openPatience)
	defer patience.Stop()
	var served chan error // nil until requests are answered
	for {
		select {
		case err := <-ready:
			if err != nil {
				return errors.Join(err, s.shutdown(c, server, served))
			}
			patience.Stop()
			if err := s.announce(c); err != nil {
				c.log.Warn("nobody reads that the shop is ready", "error", err)
			}
		case <-patience.C:
			c.log.Warn("the shop is not open yet; answering all the same, GET /readyz says why", "address", reachable(s.listener))
		case err := <-served:
			return fmt.Errorf("the listener failed: %w", err)
		case <-c.interrupts.stop.Done():
			c.log.Info("stopping")
			return s.shutdown(c, server, served)
		}
		if served == nil {
			served = make(chan error, 1)
			go func() { served <- server.Serve(s.listener) }()
		}
	}
}

// announce is the one line on standard output. The token is for people only: it always stands in stack.env.
func (s *sale) announce(c *console) error {
	scheme := "http"
	if s.tls {
		scheme = "https"
	}
	text := fmt.Sprintf("Stampede is ready at %s://%s\n", scheme, reachable(s.listener))
	if s.showToken {
		text += fmt.Sprintf("Admin token: %s\n", s.adminToken)
	}
	_, err := fmt.Fprint(c.out, text)
	return err
}

// shutdown ends HTTP. Requests that outlast the bound are cut: their clients retry with the same key.
func (s *sale) shutdown(c *console, server *rest.Server, served <-chan error) error {
	if served == nil {
		return nil
	}
	ctx, cancel := c.interrupts.bound(drainMax, 0)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		c.log.Warn("requests under way were cut", "error", err)
	}
	// Where Serve had not begun when Shutdown came, this is what ends it.
	_ = s.listener.Close()
	if err := <-served; err != nil {
		c.log.Warn("the listener did not end in order", "error", err)
	}
	return nil
}

// closeShop lets the writer catch up, within bounds. A shop that hangs on a server which hangs is left behind: the
// servers must be stopped all the same, and the process ends.
func closeShop(c *console, s *shop.Shop) error {
	ctx, cancel := c.interrupts.bound(catchUpMax, 0)
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- s.Close(ctx) }()
	last, stop := c.interrupts.bound(closeMax, hurriedMax)
	defer stop()
	select {
	case err := <-closed:
		return err
	case <-last.Done():
		c.log.Warn("the shop does not close, because Redis or PostgreSQL does not answer; going on without it")
		return nil
	}
}

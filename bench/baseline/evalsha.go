package baseline

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/engine/rest"
)

const (
	catchUpMax = 10 * time.Second // for the writer, when the server stops; its data is thrown away after it
	lagMax     = 2 * time.Second  // for a measurement
)

// Evalsha runs a Redis and a PostgreSQL of its own and serves Stampede on them until ctx ends, with one difference: a
// script call carries one operation, and so many calls are under way at once, each on a connection of its own. All else is
// the same: scripts, durability, the writer.
func Evalsha(ctx context.Context, p Private, calls int) (err error) {
	servers, err := stack.Start(ctx, stack.Options{DataDir: p.DataDir, Log: p.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, servers.Stop(context.WithoutCancel(ctx))) }()
	registry := prometheus.NewRegistry()
	opened, err := shop.Open(ctx, shop.Config{
		Redis: engine.Redis{URL: servers.RedisURL()}, PostgresURL: servers.PostgresURL(), Partitions: 1,
		BatchMax: 1, Workers: calls, Log: p.Log, Metrics: registry,
	})
	if err != nil {
		return err
	}
	if err := registry.Register(lag(opened)); err != nil {
		return errors.Join(err, opened.Close(ctx))
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), catchUpMax)
		defer cancel()
		err = errors.Join(err, opened.Close(ctx))
	}()
	if err := opened.Engine.AwaitReady(ctx); err != nil {
		return err
	}
	return serve(ctx, p.Addr, rest.Config{
		Sales: opened.Engine, Registry: opened.Books, Health: evalshaHealth{opened.Engine}, AdminToken: p.AdminToken, Metrics: registry,
	})
}

// lag is the one measure of Stampede's command that a load waits for, by the same name.
func lag(s *shop.Shop) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "stampede_writer_lag_events", Help: "Events in Redis that Postgres lacks, measured when asked; -1: it could not be.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), lagMax)
		defer cancel()
		found, err := s.Books.Lag(ctx)
		if err != nil {
			return rest.LagUnknown
		}
		return float64(found.Events)
	})
}

// evalshaHealth says whether the partitions are open.
type evalshaHealth struct{ engine *engine.Engine }

// Check asks the engine.
func (h evalshaHealth) Check(context.Context) rest.Readiness {
	if err := h.engine.Ready(); err != nil {
		return rest.Readiness{NoOrders: true, Partitions: []string{err.Error()}}
	}
	return rest.Readiness{}
}

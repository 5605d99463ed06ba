package persist_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"stampede/cmd/shop"
	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
	"stampede/persist"
)

// Any number of processes that start first at once make one shop.
func TestFirstStart_OfManyProcessesMakesOneShop(t *testing.T) {
	t.Parallel()
	const processes = 8
	rounds := 5
	if long {
		rounds = 20
	}
	servers := stacktest.Start(t, stack.Options{})
	client, err := engine.Connect(engine.Redis{URL: servers.RedisURL()}, 1, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // nothing is pending
	admin := dial(t, servers.PostgresURL())
	for round := range rounds {
		name := fmt.Sprint("first", round)
		exec(t, admin, "CREATE DATABASE "+name)
		if err := client.FlushAll(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		at, err := url.Parse(servers.PostgresURL())
		if err != nil {
			t.Fatal(err)
		}
		at.Path = "/" + name
		c := shop.Config{Redis: engine.Redis{URL: servers.RedisURL()}, PostgresURL: at.String()}
		bindAtOnce(t, processes, c)
		shops := make([]*shop.Shop, processes)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		group := new(errgroup.Group)
		for n := range shops {
			group.Go(func() (err error) {
				if shops[n], err = shop.Open(ctx, c); err != nil {
					return err
				}
				return shops[n].Engine.AwaitReady(ctx)
			})
		}
		if err := group.Wait(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		closing := new(errgroup.Group)
		for _, s := range shops {
			if s != nil {
				closing.Go(func() error { return s.Close(ctx) })
			}
		}
		if err := closing.Wait(); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		cancel()
		books := dial(t, at.String())
		if n := number(t, books, "SELECT max(fence) FROM checkpoints"); n != 1 {
			t.Errorf("round %d: epoch %d", round, n)
		}
		if err := books.Close(t.Context()); err != nil {
			t.Error(err)
		}
		exec(t, admin, "DROP DATABASE "+name)
	}
}

// bindAtOnce has processes find the empty servers at the same instant: their starts may be far apart by then.
func bindAtOnce(t *testing.T, processes int, c shop.Config) {
	t.Helper()
	start, group := make(chan struct{}), new(errgroup.Group)
	for range processes {
		books, err := persist.Open(t.Context(), c.PostgresURL, 1, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer books.Close()
		client, err := engine.Connect(c.Redis, 1, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close() //nolint:errcheck // nothing is pending
		group.Go(func() error {
			if err := errors.Join(books.Ping(t.Context()), client.Ping(t.Context()).Err()); err != nil {
				return err
			}
			<-start
			_, err := books.Bind(t.Context(), client, 0, false)
			return err
		})
	}
	time.Sleep(10 * time.Millisecond)
	close(start)
	if err := group.Wait(); err != nil {
		t.Errorf("at once: %v", err)
	}
}

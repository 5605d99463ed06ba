package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/persist"
)

type restoreCommand struct {
	stackFlags `embed:""`
	Partitions int `placeholder:"P" help:"Partitions the books are expected to have; they refuse another number."`
}

// Run rebuilds Redis. Beside a running `up` it joins its servers; the shop there opens by itself afterwards. Where
// none runs it starts the servers for itself, because an `up` refuses to open books without their Redis.
func (r *restoreCommand) Run(c *console) (err error) {
	if err := checkPartitions(r.Partitions); err != nil {
		return err
	}
	env, stop, err := r.servers(c)
	if err != nil {
		return c.unlessInterrupted(err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	return c.unlessInterrupted(r.restore(c, env))
}

// servers returns where they are, and what stops those that this process started.
func (r *restoreCommand) servers(c *console) (env stackEnv, stop func() error, err error) {
	nothing := func() error { return nil }
	given, err := r.byURL(c)
	if err != nil {
		return env, nil, err
	}
	if given {
		return stackEnv{redisURL: r.RedisURL, postgresURL: r.PostgresURL}, nothing, nil
	}
	if env, err = r.readStack(); err != nil {
		return env, nil, err
	}
	servers, err := stack.Start(c.interrupts.stop, stack.Options{DataDir: r.DataDir, Log: c.log})
	var held *stack.HeldError
	if errors.As(err, &held) { // by an `up`
		return env, nothing, nil
	}
	if err != nil {
		return env, nil, err
	}
	env = stackEnv{redisURL: servers.RedisURL(), postgresURL: servers.PostgresURL()}
	return env, func() error { return stopServers(c, servers) }, nil
}

func (r *restoreCommand) restore(c *console, env stackEnv) (err error) {
	ctx, start := c.interrupts.stop, time.Now()
	if err := refuseFilled(ctx, env.redisURL); err != nil {
		return err
	}
	if err := requireBooks(ctx, c, env.postgresURL); err != nil {
		return err
	}
	s, err := shop.Open(ctx, shop.Config{
		RedisURL: env.redisURL, PostgresURL: env.postgresURL, Partitions: r.Partitions,
		NoWriter: true, Restore: true, Log: c.log,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeShop(c, s)) }()
	if err := s.Engine.AwaitReady(ctx); err != nil {
		return fmt.Errorf("the restore was cut short: empty Redis (redis-cli FLUSHALL) and run it again: %w", err)
	}
	return tell(ctx, c, s, time.Since(start))
}

// tell prints what was done.
func tell(ctx context.Context, c *console, s *shop.Shop, took time.Duration) error {
	partitions, events := s.Engine.Keys().Partitions(), int64(0)
	for p := range partitions {
		door, err := s.Engine.Look(ctx, p)
		if err != nil {
			return err
		}
		events += door.Events()
	}
	_, err := fmt.Fprintf(c.out, "Redis is rebuilt from the books: %d events in %d partition(s), all of them open, in %s.\n",
		events, partitions, took.Round(time.Millisecond))
	return err
}

const probeMax = 5 * time.Second

// refuseFilled makes sure that Redis is empty. The mark that a restore leaves first is no content: a restore that got
// no further can be repeated.
func refuseFilled(ctx context.Context, url string) error {
	client, err := engine.Connect(url, 1, probeMax)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // nothing is pending
	found, marked, err := engine.FindDeployment(ctx, client)
	if err != nil {
		return unreadable(err)
	}
	keys, err := client.DBSize(ctx).Result()
	if err != nil {
		return unreadable(err)
	}
	const advice = "if it is the right one, stop what sells from it, see to it that PostgreSQL has everything " +
		"(writer lag 0), empty it (redis-cli FLUSHALL) and restore again"
	switch {
	case marked && keys > 1:
		return fmt.Errorf("this Redis is not empty, it holds deployment %s: %s", found.ID, advice)
	case !marked && keys > 0:
		return fmt.Errorf("this Redis is not empty, it holds %d keys that are not Stampede's: %s", keys, advice)
	}
	return nil
}

func unreadable(err error) error {
	text := strings.TrimPrefix(err.Error(), engine.ErrUnavailable.Error()+": ")
	return fmt.Errorf("this Redis cannot be read (%s): is it running, and are URL and password right?", text)
}

// requireBooks makes sure that there is something to restore from: opening a shop on a wrong, empty database would
// found a new one there.
func requireBooks(ctx context.Context, c *console, url string) error {
	books, err := persist.OpenExisting(ctx, url, c.log)
	if err != nil {
		return err
	}
	books.Close()
	return nil
}

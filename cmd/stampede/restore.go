package main

import (
	"context"
	"errors"
	"fmt"
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
	config, stop, err := r.servers(c)
	if err != nil {
		return c.unlessInterrupted(err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	return c.unlessInterrupted(r.restore(c, config))
}

// servers returns where they are, and what stops those that this process started.
func (r *restoreCommand) servers(c *console) (config shop.Config, stop func() error, err error) {
	nothing := func() error { return nil }
	given, err := r.byURL(c)
	if err != nil {
		return config, nil, err
	}
	if given {
		return shop.Config{Redis: r.redis(), PostgresURL: r.PostgresURL}, nothing, nil
	}
	env, err := r.readStack()
	if err != nil {
		return config, nil, err
	}
	servers, err := stack.Start(c.interrupts.stop, stack.Options{DataDir: r.DataDir, Log: c.log})
	var held *stack.HeldError
	if errors.As(err, &held) { // by an `up`
		return shop.Config{Redis: engine.Redis{URL: env.redisURL}, PostgresURL: env.postgresURL}, nothing, nil
	}
	if err != nil {
		return config, nil, err
	}
	config = shop.Config{Redis: engine.Redis{URL: servers.RedisURL()}, PostgresURL: servers.PostgresURL()}
	return config, func() error { return stopServers(c, servers) }, nil
}

func (r *restoreCommand) restore(c *console, config shop.Config) (err error) {
	ctx, start := c.interrupts.stop, time.Now()
	if err := refuseFilled(ctx, config.Redis); err != nil {
		return err
	}
	if err := requireBooks(ctx, c, config.PostgresURL); err != nil {
		return err
	}
	config.Partitions, config.NoWriter, config.Restore, config.Log = r.Partitions, true, true, c.log
	s, err := shop.Open(ctx, config)
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
func refuseFilled(ctx context.Context, from engine.Redis) error {
	client, err := engine.Connect(from, 1, probeMax)
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
	return fmt.Errorf("this Redis cannot be read: %s", engine.Explain(err))
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

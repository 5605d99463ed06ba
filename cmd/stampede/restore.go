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
	Partitions int `placeholder:"P" help:"Number of partitions from now on; as it is where left out."`
	RedisNodes int `default:"0" enum:"0,1,3" help:"Redis servers to run where no stampede up runs: 1, or a Redis Cluster of 3 masters; 0 for as the directory has it."`
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
	return r.restore(c, config)
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
	servers, err := stack.Start(c.interrupts.stop, stack.Options{DataDir: r.DataDir, RedisNodes: r.RedisNodes, Log: c.log})
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

func (r *restoreCommand) restore(c *console, config shop.Config) error {
	ctx, start := c.interrupts.stop, time.Now()
	if err := refuseFilled(ctx, config.Redis); err != nil {
		return err
	}
	if err := requireBooks(ctx, c, config.PostgresURL); err != nil {
		return err
	}
	config.Partitions, config.Log = r.Partitions, c.log
	var watch persist.RestoreProgress
	stop := showProgress(&watch)
	err := shop.Restore(ctx, config, &watch)
	stop()
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("the restore was interrupted: run it again, it takes up what stands in this Redis")
	case errors.Is(err, persist.ErrRefused):
		return err
	case err != nil:
		return fmt.Errorf("the restore was cut short (%w): run it again, it takes up what stands in this Redis", err)
	}
	_, err = fmt.Fprintf(c.out, "Redis is rebuilt from the books and open, in %s: %s.\n", time.Since(start).Round(time.Millisecond), counted(&watch))
	return err
}

const probeMax = 5 * time.Second

// refuseFilled makes sure that Redis is empty, or holds what a restore has begun and not finished.
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
		"(writer lag 0), keep a copy of its data directory, empty it (redis-cli FLUSHALL, on each master of a cluster) and restore again"
	switch {
	case found.Restoring:
		return nil
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

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/persist"
)

type moveCommand struct {
	stackFlags `embed:""`
	Partition  int    `required:"" placeholder:"N" help:"Partition to move, from 0 on."`
	To         string `required:"" placeholder:"HOST:PORT" help:"Master of the Redis Cluster that gets it, by its address as the cluster knows it, or by its node id."`
}

// Run moves a partition, beside the processes that sell.
func (m *moveCommand) Run(c *console) error {
	given, err := m.byURL(c)
	if err != nil {
		return err
	}
	config := shop.Config{Redis: m.redis(), PostgresURL: m.PostgresURL, Log: c.log}
	if !given {
		env, err := m.readStack()
		if err != nil {
			return err
		}
		config.Redis, config.PostgresURL = engine.Redis{URL: env.redisURL}, env.postgresURL
	}
	return m.move(c, config)
}

func (m *moveCommand) move(c *console, config shop.Config) error {
	ctx := c.interrupts.stop
	told := &moveLines{out: c.out, partition: m.Partition, start: time.Now()}
	stop := func() {}
	if isTerminal(os.Stderr) {
		stop = tellLines(os.Stderr, true, told.progress)
	}
	done, err := shop.Move(ctx, config, m.Partition, m.To, told.step)
	stop()
	switch {
	case err != nil && ctx.Err() != nil:
		return errors.New("the move was interrupted: run it again, or the partition stays where it was (unless stampede move must finish it: see /readyz)")
	case err != nil:
		return err
	case done.Already:
		_, err = fmt.Fprintf(c.out, "Partition %d is on %s and open.\n", m.Partition, done.To)
		return err
	}
	_, err = fmt.Fprintf(c.out, "Partition %d moved from %s to %s: %d keys, shut for %s.\n",
		m.Partition, done.From, done.To, done.Keys, done.Shut.Round(time.Millisecond))
	return err
}

// moveLines tells a move's steps, a line each, and on a terminal how far the copy is.
type moveLines struct {
	out       io.Writer
	partition int
	start     time.Time

	mu   sync.Mutex
	last persist.MoveStep
	keys int64
}

func (l *moveLines) step(step persist.MoveStep, keys int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys = keys
	if step == l.last {
		return
	}
	l.last = step
	if isTerminal(os.Stderr) {
		_, _ = os.Stderr.WriteString("\r\x1b[K") // it is written on the line of the progress otherwise
	}
	// A move whose lines nobody reads goes on all the same.
	_, _ = fmt.Fprintf(l.out, "%9s  partition %d: %s\n", time.Since(l.start).Round(time.Millisecond), l.partition, step)
}

func (l *moveLines) progress(time.Duration) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintf("Moving: %s, %d keys", l.last, l.keys)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// source writes the next request of one connection, whole and ready to send, behind buf.
type source interface {
	next(buf []byte) []byte
}

const (
	stragglerMax = 10 * time.Second       // from the end of a load until what is in flight is given up
	redialPause  = 100 * time.Millisecond // after an error: a dead server must not make the generator spin
	requestSize  = 1 << 10                // bytes; a larger request grows its buffer once
)

// generator holds the connections to one server. They outlive a load, as those of a gateway would.
type generator struct{ conns []*conn }

func dial(ctx context.Context, addr string, connections int) (*generator, error) {
	g := &generator{conns: make([]*conn, connections)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64) // stay below the servers' listen backlog
	for i := range g.conns {
		g.conns[i] = newConn(addr)
		group.Go(func() error { return g.conns[i].dial(ctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), g.close())
	}
	return g, nil
}

func (g *generator) close() error {
	var errs []error
	for _, c := range g.conns {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

// closedLoop keeps one request in flight on every connection for a while, and returns when every reply is in. Each
// connection draws from its own source. The time it returns reaches to the last reply, so that the same requests
// stand in the counts, in the time and in the CPU time that is measured around the call.
//
// In a closed loop a slow server gets fewer requests: the latencies are those of saturation and leave out what
// buyers of an open shop would have waited.
func (g *generator) closedLoop(ctx context.Context, d time.Duration, sources []source, r *recorder) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, d+stragglerMax)
	defer cancel()
	start := time.Now()
	end := start.Add(d)
	var workers sync.WaitGroup
	for i, c := range g.conns {
		workers.Go(func() {
			release := context.AfterFunc(ctx, c.interrupt)
			defer release()
			c.loop(ctx, end, sources[i], r)
		})
	}
	workers.Wait()
	return time.Since(start)
}

// loop sends one request after the other until end, or until ctx ends.
func (c *conn) loop(ctx context.Context, end time.Time, from source, r *recorder) {
	buf := make([]byte, 0, requestSize)
	for ctx.Err() == nil {
		buf = from.next(buf[:0])
		sent := time.Now()
		if !sent.Before(end) {
			return
		}
		answer, err := c.roundTrip(ctx, buf)
		if err == nil {
			r.reply(answer, time.Since(sent))
			continue
		}
		r.fail(err)
		select {
		case <-time.After(redialPause):
		case <-ctx.Done():
		}
	}
}

package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Source writes the next request of one connection, whole and ready to send, behind buf.
type Source interface {
	Next(buf []byte) []byte
}

const (
	stragglerMax = 10 * time.Second       // from the end of a load until what is in flight is given up
	redialPause  = 100 * time.Millisecond // after an error: a dead server must not make the generator spin
	requestSize  = 1 << 10                // bytes; a larger request grows its buffer once
)

// Generator holds the connections to one server. They outlive a load, as those of a gateway would.
type Generator struct{ conns []*Conn }

// Dial opens that many connections to addr, host and port.
func Dial(ctx context.Context, addr string, connections int) (*Generator, error) {
	g := &Generator{conns: make([]*Conn, connections)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(64) // stay below the servers' listen backlog
	for i := range g.conns {
		g.conns[i] = NewConn(addr)
		group.Go(func() error { return g.conns[i].Dial(ctx) })
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), g.Close())
	}
	return g, nil
}

// Close closes every connection.
func (g *Generator) Close() error {
	var errs []error
	for _, c := range g.conns {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// ClosedLoop keeps one request in flight on every connection for a while, and returns when every reply is in. Each
// connection draws from its own source. The time it returns reaches to the last reply, so that the same requests
// stand in the counts, in the time and in the CPU time that is measured around the call.
//
// In a closed loop a slow server gets fewer requests: the latencies are those of saturation and leave out what
// buyers of an open shop would have waited.
// Close closes every connection.
func (g *Generator) ClosedLoop(ctx context.Context, d time.Duration, sources []Source, r *Recorder) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, d+stragglerMax)
	defer cancel()
	start := time.Now()
	end := start.Add(d)
	var workers sync.WaitGroup
	for i, c := range g.conns {
		workers.Go(func() {
			release := context.AfterFunc(ctx, c.Interrupt)
			defer release()
			c.loop(ctx, end, sources[i], r)
		})
	}
	workers.Wait()
	return time.Since(start)
}

// loop sends one request after the other until end, or until ctx ends.
func (c *Conn) loop(ctx context.Context, end time.Time, from Source, r *Recorder) {
	buf := make([]byte, 0, requestSize)
	for ctx.Err() == nil {
		buf = from.Next(buf[:0])
		sent := time.Now()
		if !sent.Before(end) {
			return
		}
		answer, err := c.RoundTrip(ctx, buf)
		if err == nil {
			r.Reply(answer, time.Since(sent))
			continue
		}
		r.Fail(err)
		select {
		case <-time.After(redialPause):
		case <-ctx.Done():
		}
	}
}

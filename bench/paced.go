package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"stampede/bench/load"
)

const (
	pacedStragglerMax = 10 * time.Second // from the end of a load until what is in flight is given up
	dialsAtOnce       = 64               // stay below the servers' listen backlog
)

// paced is an open loop: requests are due at equal distances, whatever has become of those before them. Latency counts
// from when a request was due: a server that keeps a client waiting keeps those waiting who come after it, too.
type paced struct{ conns []*load.Conn }

func dialPaced(ctx context.Context, addr string, connections int) (*paced, error) {
	p := &paced{conns: make([]*load.Conn, connections)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(dialsAtOnce)
	for i := range p.conns {
		p.conns[i] = load.NewConn(addr)
		group.Go(func() error { return p.conns[i].Dial(ctx) })
	}
	return p, group.Wait()
}

func (p *paced) close() {
	for _, c := range p.conns {
		_ = c.Close() // nothing is in flight
	}
}

// run sends so many requests a second for a while, each on whichever connection is free first, and returns when every
// reply is in, with the time it took.
func (p *paced) run(ctx context.Context, rate float64, d time.Duration, sources []load.Source, r *load.Recorder) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, d+pacedStragglerMax)
	defer cancel()
	var next atomic.Int64
	start := time.Now()
	var workers sync.WaitGroup
	for i, c := range p.conns {
		workers.Go(func() {
			release := context.AfterFunc(ctx, c.Interrupt)
			defer release()
			var buf []byte
			for ctx.Err() == nil {
				due := time.Duration(float64(next.Add(1)-1) / rate * float64(time.Second))
				if due >= d {
					return
				}
				time.Sleep(time.Until(start.Add(due)))
				buf = sources[i].Next(buf[:0])
				answer, err := c.RoundTrip(ctx, buf)
				if err != nil {
					r.Fail(err)
					continue
				}
				r.Reply(answer, time.Since(start)-due)
			}
		})
	}
	workers.Wait()
	return time.Since(start)
}

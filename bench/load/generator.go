package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	stragglerMax = 10 * time.Second       // from the last request that may be sent until what is in flight is given up
	requestMax   = 10 * time.Second       // of one request; then nobody knows what became of it
	redialPause  = 100 * time.Millisecond // after an error: a dead server must not make the generator spin
	dialsAtOnce  = 64                     // stay below the servers' listen backlog
	watchLooks   = 10                     // at a request within that time
)

// Generator holds the connections to one server. They outlive a load, as those of a gateway would.
type Generator struct{ conns []*Conn }

// Dial opens that many connections to addr, host and port.
func Dial(ctx context.Context, addr string, connections int) (*Generator, error) {
	g := &Generator{conns: make([]*Conn, connections)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(dialsAtOnce)
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

// each has a goroutine work on every connection until all are done. What is in flight for too long is interrupted, and
// so is everything when ctx ends.
func (g *Generator) each(ctx context.Context, work func(*Conn)) {
	watching, unwatch := context.WithCancel(ctx)
	var workers, watch sync.WaitGroup
	watch.Go(func() { g.watch(watching, requestMax/watchLooks) })
	for _, c := range g.conns {
		workers.Go(func() {
			release := context.AfterFunc(ctx, c.Interrupt)
			defer release()
			work(c)
		})
	}
	workers.Wait()
	unwatch()
	watch.Wait()
}

// watch interrupts requests that it finds under way at so many looks in a row: a deadline a request would cost more than
// all the rest of the client.
func (g *Generator) watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last, same := make([]uint64, len(g.conns)), make([]int, len(g.conns))
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for i, c := range g.conns {
			turn := c.turns.Load()
			if turn%2 == 0 || turn != last[i] {
				last[i], same[i] = turn, 0
				continue
			}
			if same[i]++; same[i] == watchLooks {
				c.Interrupt()
			}
		}
	}
}

// pause waits after an error, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

package main

import (
	"context"
	"maps"
	"time"

	"stampede/bench/result"
)

// watched is what was seen of the servers, from before a load until its end.
type watched struct {
	every  time.Duration
	points []point
}

// point is one look at the servers.
type point struct {
	at   time.Duration // from the start of the load
	seen bool          // whether /metrics could be read
	scrape
	used usage // nil: unknown
}

const lookMax = 5 * time.Second // then a look is given up

// watch looks at the servers at the end of every piece of a load that begins now, until the function is called that it
// returns.
func (l *loading) watch(ctx context.Context, every time.Duration) func() watched {
	ctx, cancel := context.WithCancel(ctx)
	start := time.Now()
	w := watched{every: every, points: []point{l.look(ctx, start)}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.points = append(w.points, l.look(ctx, start))
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() watched {
		cancel()
		<-done
		last, stop := context.WithTimeout(context.WithoutCancel(ctx), lookMax)
		defer stop()
		w.points = append(w.points, l.look(last, start))
		return w
	}
}

func (l *loading) look(ctx context.Context, start time.Time) point {
	ctx, cancel := context.WithTimeout(ctx, lookMax)
	defer cancel()
	p := point{at: time.Since(start)}
	if used, err := l.meter.read(); err == nil {
		p.used = used
	}
	s, err := l.target.api.scrape(ctx)
	p.scrape, p.seen = s, err == nil
	return p
}

// fill writes into a result what was seen: batches over the whole load, the rest by pieces of time. What a piece lacks was
// not seen in it.
func (w watched) fill(r *result.Result, servers bool) {
	first, last := w.points[0], w.points[len(w.points)-1]
	if first.seen && last.seen {
		r.Batches = last.batches(first.scrape)
	}
	for i := 1; i < len(w.points); i++ {
		before, p := w.points[i-1], w.points[i]
		n := int((p.at - w.every/2) / w.every) // the look at its end comes a little late
		if n < 0 || n >= len(r.Timeline) || p.at-before.at < w.every/2 {
			continue // the last look may follow another one at once: too little time to tell a rate
		}
		into := &r.Timeline[n]
		if p.seen {
			into.Lag = p.lag
		}
		if p.seen && before.seen {
			into.Batch = p.batch(before.scrape)
		}
		if p.used != nil && before.used != nil && p.at > before.at {
			into.Cores = cores(p.used.since(before.used), p.at-before.at)
			if !servers { // of another machine, or among others
				maps.DeleteFunc(into.Cores, func(program string, _ float64) bool { return program != programGenerator })
			}
		}
	}
}

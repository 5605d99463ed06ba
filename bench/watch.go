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
	used usage // nil: not looked at
}

const (
	lookMax  = 5 * time.Second // then a look is given up
	cpuEvery = time.Second     // to read the times of all processes costs the generator some milliseconds
)

// watch looks at the servers at the end of every piece of a load that begins now, until the function is called that it
// returns.
func (l *loading) watch(ctx context.Context, every time.Duration) func() watched {
	ctx, cancel := context.WithCancel(ctx)
	start := time.Now()
	w := watched{every: every, points: []point{l.look(ctx, start, true)}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		metered := start
		for {
			select {
			case now := <-tick.C:
				meter := now.Sub(metered) >= cpuEvery
				if meter {
					metered = now
				}
				w.points = append(w.points, l.look(ctx, start, meter))
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
		w.points = append(w.points, l.look(last, start, true))
		return w
	}
}

func (l *loading) look(ctx context.Context, start time.Time, meter bool) point {
	ctx, cancel := context.WithTimeout(ctx, lookMax)
	defer cancel()
	p := point{at: time.Since(start)}
	if meter {
		p.used, _ = l.meter.read() // where it cannot be read, nothing is told
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
	metered := first
	for i := 1; i < len(w.points); i++ {
		before, p := w.points[i-1], w.points[i]
		if p.used != nil && metered.used != nil && p.at-metered.at >= w.every/2 {
			w.fillCores(r, metered, p, servers)
		}
		if p.used != nil {
			metered = p
		}
		n := int((p.at - w.every/2) / w.every) // the look at its end comes a little late
		if n < 0 || n >= len(r.Timeline) || p.at-before.at < w.every/2 {
			continue // the last look may follow another one at once: too little time to tell a mean
		}
		if p.seen {
			r.Timeline[n].Lag = p.lag
		}
		if p.seen && before.seen {
			r.Timeline[n].Batch = p.batch(before.scrape)
		}
	}
}

// fillCores tells every piece between two looks their mean.
func (w watched) fillCores(r *result.Result, from, to point, servers bool) {
	for n := range r.Timeline {
		if middle := time.Duration(n)*w.every + w.every/2; middle < from.at || middle >= to.at {
			continue
		}
		busy := cores(to.used.since(from.used), to.at-from.at)
		if !servers { // of another machine, or among others
			maps.DeleteFunc(busy, func(program string, _ float64) bool { return program != programGenerator })
		}
		r.Timeline[n].Cores = busy
	}
}

package main

import (
	"context"
	"time"

	"stampede/bench/load"
	"stampede/bench/result"
)

const (
	steadyShare   = 0.5  // of the rate of the bursts: where the search begins
	steadyGrowth  = 0.05 // of the rate: what grows by less is flat, as far as the search can tell
	steadyReached = 0.95 // of the rate: the last answers come after the last order is due
	lagEvery      = 200 * time.Millisecond
	looksMin      = 4
)

// findSteady looks for the highest rate at which the writer keeps up. Of its rounds that one alone is kept.
func (x *comparison) findSteady(ctx context.Context, r *comparisonReport) error {
	kept := len(r.Rounds)
	best, err := searchSteady(steadyShare*over(r.of(burstOfStampede), perSecond).Median, func(i int, rate float64) (round, error) {
		return x.round(ctx, r, steadyStampede, i, rate)
	})
	if r.Rounds = r.Rounds[:kept]; best != nil {
		r.Rounds = append(r.Rounds, *best)
	}
	return err
}

// searchSteady returns the round of the highest rate whose lag was flat; nil where it grew at every rate.
func searchSteady(from float64, try func(i int, rate float64) (round, error)) (best *round, err error) {
	i := 0
	_, _, err = load.Search(from, func(rate float64) (result.Step, error) {
		i++
		measured, err := try(i, rate)
		if err != nil {
			return result.Step{}, err
		}
		step := result.Step{Rate: rate, Reached: measured.PerSecond, Held: measured.steady()}
		if step.Held && (best == nil || rate > best.Due) {
			best = &measured
		}
		return step, nil
	})
	return best, err
}

// steady is whether the writer kept up with what was answered, and that with what was due.
func (r round) steady() bool {
	return r.PerSecond >= steadyReached*r.Due && r.LagGrowth < steadyGrowth*r.Due
}

// look is how far the writer was behind at a time.
type look struct {
	at  time.Duration // from the start of the load
	lag int64         // events
}

// watchLag looks at the lag every now and then during a load; the channel then gives by how many events a second it grew in
// the second half. In the first it finds its level. Where too few looks saw it, nothing is known to have been written.
func (c *contender) watchLag(ctx context.Context, w workload) <-chan float64 {
	growth := make(chan float64, 1)
	if !w.watched {
		growth <- 0
		return growth
	}
	go func() {
		var looks []look
		tick := time.NewTicker(min(lagEvery, w.duration/(4*looksMin)))
		defer tick.Stop()
		for start := time.Now(); ctx.Err() == nil && time.Since(start) < w.duration; <-tick.C {
			lag, err := c.api.lag(ctx)
			if at := time.Since(start); err == nil && at > w.duration/2 {
				looks = append(looks, look{at, lag})
			}
		}
		if len(looks) < looksMin {
			growth <- w.rate
			return
		}
		growth <- slope(looks)
	}()
	return growth
}

// slope is that of the line that fits best: a lag goes up and down by what a transaction holds, so that no two looks can be
// compared.
func slope(looks []look) float64 {
	var at, lag float64 // means
	for _, l := range looks {
		at += l.at.Seconds() / float64(len(looks))
		lag += float64(l.lag) / float64(len(looks))
	}
	var product, square float64
	for _, l := range looks {
		product += (l.at.Seconds() - at) * (float64(l.lag) - lag)
		square += (l.at.Seconds() - at) * (l.at.Seconds() - at)
	}
	return product / square
}

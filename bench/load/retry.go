package load

import (
	"context"
	"sync/atomic"
	"time"
)

const (
	askAgainTries = 5
	askAgainPause = 200 * time.Millisecond // before the first try; doubled for each of the others
)

// Settle asks again for every hit that got no definite answer, with the same request under the same key, until it gets
// one: 6 seconds and 5 tries, and what such a try takes. Then nobody knows, and it is counted as failed. It is called when
// the load is over.
func (g *Generator) Settle(ctx context.Context, s Scenario, r *Recorder) {
	g.settle(ctx, s, r, askAgainPause)
}

func (g *Generator) settle(ctx context.Context, s Scenario, r *Recorder, before time.Duration) {
	for try := range askAgainTries {
		open := r.takeOpen()
		if len(open) == 0 {
			return
		}
		pause(ctx, before<<try)
		var next atomic.Int64
		g.each(ctx, func(c *Conn) {
			source := s.Source()
			for {
				i := next.Add(1) - 1
				if i >= int64(len(open)) {
					return
				}
				if ctx.Err() != nil {
					r.reopen(open[i])
					continue
				}
				answer, err := c.RoundTrip(ctx, open[i].hit.Request)
				r.again(open[i], answer, err, source)
			}
		})
	}
	r.giveUp()
}

// Open is how many hits have no definite answer so far.
func (r *Recorder) Open() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func (r *Recorder) takeOpen() []opened {
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := r.open
	r.open = nil
	return taken
}

func (r *Recorder) reopen(o opened) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.open = append(r.open, o)
}

// again counts what came of asking once more.
func (r *Recorder) again(o opened, answer Reply, err error, from Source) {
	what := unknown
	wellFormed := true
	if err == nil {
		what = outcomeOf(answer.Status)
		wellFormed = what != accepted || from.Accepted(&o.hit, answer.Body)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[o.hit.Kind].asked++
	if err != nil {
		r.failure(err)
	} else {
		r.reply(&o.hit, answer, wellFormed)
	}
	if what == unknown {
		r.open = append(r.open, o)
		return
	}
	r.conclude(o.hit.Kind, o.passage, what)
}

// giveUp counts as failed what is still open.
func (r *Recorder) giveUp() {
	for _, o := range r.takeOpen() {
		r.mu.Lock()
		r.fail(o.hit.Kind, o.passage)
		r.mu.Unlock()
	}
}

package load

import (
	"context"
	"sync"
	"time"
)

// lateMax is how long after it was due a request is still sent. By then its buyer has left.
const lateMax = 10 * time.Second

// ClosedLoop keeps one request in flight on every connection for a while, and returns when every reply is in. The time
// it returns reaches to the last reply, so that the same requests stand in the counts, in the time and in the CPU time
// that is measured around the call.
//
// In a closed loop a slow server gets fewer requests: the latencies are those of saturation and leave out what
// buyers of an open shop would have waited.
func (g *Generator) ClosedLoop(ctx context.Context, d time.Duration, s Scenario, r *Recorder) time.Duration {
	return g.run(ctx, &loop{end: d, late: never, scenario: s, recorder: r})
}

// OpenLoop sends every hit that its plan has due within a while, on whichever connection is free, and returns when every
// reply is in, with the time that took. Latency counts from when a hit was due, not from when it was sent: a server
// that keeps one buyer waiting keeps those waiting who come after, and this must not be hidden because the generator
// had to wait for a connection ("coordinated omission"). What no connection could send within lateMax is not sent,
// and counted so.
func (g *Generator) OpenLoop(ctx context.Context, d time.Duration, p Pacer, s Scenario, r *Recorder) time.Duration {
	return g.run(ctx, &loop{end: d, late: lateMax, pacer: p, scenario: s, recorder: r})
}

// loop is one load under way.
type loop struct {
	end      time.Duration // from the start: what is due later is not part of the load
	late     time.Duration // how long after it was due a hit may be sent
	scenario Scenario
	recorder *Recorder
	start    time.Time

	mu    sync.Mutex // guards what follows
	pacer Pacer      // nil: a hit is due when a connection is free
	next  int64
}

func (g *Generator) run(ctx context.Context, l *loop) time.Duration {
	limit := l.end + stragglerMax
	if l.pacer != nil {
		limit += l.late
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l.start = time.Now()
	g.each(ctx, func(c *Conn) { l.work(ctx, c) })
	took := l.now()
	if l.pacer != nil {
		l.abandon(took)
	}
	return took
}

func (l *loop) now() time.Duration { return time.Since(l.start) }

// take hands out the next hit and when it is due; false when the load is over.
func (l *loop) take() (n int64, due time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pacer == nil {
		due = l.now()
	} else {
		due = l.pacer.Due(l.next)
	}
	if due >= l.end {
		return 0, due, false
	}
	l.next++
	return l.next - 1, due, true
}

// work sends one hit after the other on a connection.
func (l *loop) work(ctx context.Context, c *Conn) {
	source, h := l.scenario.Source(), Hit{}
	alarm := time.NewTimer(0)
	defer alarm.Stop()
	for ctx.Err() == nil {
		n, due, ok := l.take()
		if !ok {
			return
		}
		p := passage{due: due, taken: l.now()}
		if p.taken < due {
			alarm.Reset(due - p.taken)
			select {
			case <-alarm.C:
			case <-ctx.Done():
				return // it has not come due
			}
		}
		source.Next(n, &h)
		p.sent = l.now()
		if p.sent-due > l.late {
			l.recorder.notSent(&h, due)
			continue
		}
		answer, err := c.RoundTrip(ctx, h.Request)
		p.done = l.now()
		if err == nil {
			l.recorder.answered(&h, p, answer, source)
			continue
		}
		l.recorder.unanswered(&h, p, err)
		pause(ctx, redialPause)
	}
}

// abandon counts the hits that had come due and that nobody has taken, as after an interruption.
func (l *loop) abandon(until time.Duration) {
	source, h := l.scenario.Source(), Hit{}
	for {
		n, due, ok := l.take()
		if !ok || due > until {
			return
		}
		source.Next(n, &h)
		l.recorder.notSent(&h, due)
	}
}

// passage is when a hit was where, from the start of the load.
type passage struct {
	due   time.Duration
	taken time.Duration // by a connection that was free
	sent  time.Duration
	done  time.Duration // its reply was in, or there will be none
}

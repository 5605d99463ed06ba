package load

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"stampede/bench/result"
)

const intervalsMax = 1000 // what comes later is counted in the last one

// timeline is a load in equal pieces. Its latencies are those of one piece at a time; so it takes a piece's quantiles when an
// answer of the next one comes.
type timeline struct {
	every     time.Duration // 0: nobody wants to know
	intervals []result.Interval
	current   int // whose latencies are being taken
	latency   *hdrhistogram.Histogram
	nowhere   result.Interval
}

// KeepTimeline has the recorder tell pieces of a load apart, of equal length from its start. It is for one load.
func (r *Recorder) KeepTimeline(every time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timeline = timeline{every: every, latency: newHistogram()}
}

// at is the piece in which a time lies.
func (t *timeline) at(at time.Duration) *result.Interval {
	if t.every == 0 {
		return &t.nowhere
	}
	return &t.intervals[t.upTo(at)]
}

// upTo makes the pieces up to that in which a time lies.
func (t *timeline) upTo(at time.Duration) (index int) {
	index = min(int(at/t.every), intervalsMax-1)
	for n := len(t.intervals); n <= index; n++ {
		t.intervals = append(t.intervals, result.Interval{At: (time.Duration(n) * t.every).Seconds(), Seconds: t.every.Seconds(), Lag: -1})
	}
	return index
}

// answered takes the latency of an accepted request.
func (t *timeline) answered(p passage) {
	if t.every == 0 {
		return
	}
	if i := t.upTo(p.done); i > t.current {
		t.close()
		t.current = i
	}
	record(t.latency, p.done-p.due)
}

// close fills in the latencies of the current piece.
func (t *timeline) close() {
	if t.every == 0 || t.latency.TotalCount() == 0 {
		return
	}
	i := &t.intervals[t.current]
	i.P50, i.P99 = t.latency.ValueAtPercentile(50), t.latency.ValueAtPercentile(99)
	i.P999, i.Max = t.latency.ValueAtPercentile(99.9), t.latency.Max()
	t.latency.Reset()
}

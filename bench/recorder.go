package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	statusEnd     = 600
	latencyMax    = time.Minute // longer ones are recorded as this
	latencyDigits = 3           // percentiles are right to a thousandth
)

// recorder counts what requests ended in. Any number of goroutines may feed it.
type recorder struct {
	accepted int // the status that counts as accepted

	mu         sync.Mutex
	latency    *hdrhistogram.Histogram // µs of accepted requests
	statuses   [statusEnd]int64
	replyBytes int64 // of bodies
	failed     int64 // requests without a reply
	complaint  string
}

func newRecorder() *recorder {
	return &recorder{
		accepted: http.StatusCreated,
		latency:  hdrhistogram.New(1, latencyMax.Microseconds(), latencyDigits),
	}
}

// reply counts an answer that came after latency.
func (r *recorder) reply(answer reply, latency time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statuses[answer.status]++
	r.replyBytes += int64(len(answer.body))
	if answer.status == r.accepted {
		_ = r.latency.RecordValue(min(latency, latencyMax).Microseconds()) // within its range
		return
	}
	if r.complaint == "" {
		r.complaint = fmt.Sprintf("%d %.300s", answer.status, answer.body)
	}
}

// fail counts a request without an answer.
func (r *recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if r.complaint == "" {
		r.complaint = err.Error()
	}
}

// tally is what a recorder has counted.
type tally struct {
	accepted   int64
	refused    map[int]int64 // by status
	failed     int64         // requests without a reply
	complaint  string        // the first that was not accepted
	replyBytes float64       // mean of the bodies
	p50, p99   time.Duration // of accepted requests
}

func (r *recorder) tally() tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := tally{
		accepted:  r.statuses[r.accepted],
		refused:   make(map[int]int64),
		failed:    r.failed,
		complaint: r.complaint,
		p50:       time.Duration(r.latency.ValueAtPercentile(50)) * time.Microsecond,
		p99:       time.Duration(r.latency.ValueAtPercentile(99)) * time.Microsecond,
	}
	replies := int64(0)
	for status, n := range &r.statuses {
		replies += n
		if n > 0 && status != r.accepted {
			t.refused[status] = n
		}
	}
	if replies > 0 {
		t.replyBytes = float64(r.replyBytes) / float64(replies)
	}
	return t
}

// wrong says what was not accepted; nothing is "".
func (t tally) wrong() string {
	if len(t.refused) == 0 && t.failed == 0 {
		return ""
	}
	return fmt.Sprintf("%d accepted, refused by status: %v, without a reply: %d; the first: %s",
		t.accepted, t.refused, t.failed, t.complaint)
}

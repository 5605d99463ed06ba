package load

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

// Recorder counts what requests ended in. Any number of goroutines may feed it.
type Recorder struct {
	accepted int // the status that counts as accepted

	mu         sync.Mutex
	latency    *hdrhistogram.Histogram // µs of accepted requests
	statuses   [statusEnd]int64
	replyBytes int64 // of bodies
	failed     int64 // requests without a reply
	complaint  string
}

// NewRecorder returns one to which 201 is accepted, and every other status a refusal.
func NewRecorder() *Recorder {
	return &Recorder{
		accepted: http.StatusCreated,
		latency:  hdrhistogram.New(1, latencyMax.Microseconds(), latencyDigits),
	}
}

// Reply counts an answer that came after latency.
func (r *Recorder) Reply(answer Reply, latency time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.statuses[answer.Status]++
	r.replyBytes += int64(len(answer.Body))
	if answer.Status == r.accepted {
		_ = r.latency.RecordValue(min(latency, latencyMax).Microseconds()) // within its range
		return
	}
	if r.complaint == "" {
		r.complaint = fmt.Sprintf("%d %.300s", answer.Status, answer.Body)
	}
}

// Fail counts a request without an answer.
func (r *Recorder) Fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed++
	if r.complaint == "" {
		r.complaint = err.Error()
	}
}

// Tally is what a recorder has counted.
type Tally struct {
	Accepted   int64
	Refused    map[int]int64 // by status
	Failed     int64         // requests without a reply
	Complaint  string        // the first that was not accepted
	ReplyBytes float64       // mean of the bodies
	P50, P99   time.Duration // of accepted requests
}

// Tally sums up what was counted so far.
func (r *Recorder) Tally() Tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := Tally{
		Accepted:  r.statuses[r.accepted],
		Refused:   make(map[int]int64),
		Failed:    r.failed,
		Complaint: r.complaint,
		P50:       time.Duration(r.latency.ValueAtPercentile(50)) * time.Microsecond,
		P99:       time.Duration(r.latency.ValueAtPercentile(99)) * time.Microsecond,
	}
	replies := int64(0)
	for status, n := range &r.statuses {
		replies += n
		if n > 0 && status != r.accepted {
			t.Refused[status] = n
		}
	}
	if replies > 0 {
		t.ReplyBytes = float64(r.replyBytes) / float64(replies)
	}
	return t
}

// Wrong says what was not accepted; nothing is "".
func (t Tally) Wrong() string {
	if len(t.Refused) == 0 && t.Failed == 0 {
		return ""
	}
	return fmt.Sprintf("%d accepted, refused by status: %v, without a reply: %d; the first: %s",
		t.Accepted, t.Refused, t.Failed, t.Complaint)
}

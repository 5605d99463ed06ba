package load

import (
	"bytes"
	"errors"
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
	openMax       = 1 << 16     // requests that are kept to be asked again
)

// Recorder counts what became of hits. Any number of goroutines may feed it.
type Recorder struct {
	mu         sync.Mutex
	kinds      []kind
	latency    *hdrhistogram.Histogram // µs of accepted requests of all kinds
	statuses   [statusEnd]int64
	first      [statusEnd]string // the first answer with a status that is not 2xx
	replyBytes int64             // of bodies
	open       []opened          // hits whose outcome nobody knows yet
	complaint  string            // the first that was not accepted
	malformed  counted           // replies that are no HTTP, or accept something and do not say what
	dispatch   dispatch
	timeline   timeline
}

// counted is how often something happened, and what it was the first time.
type counted struct {
	times int64
	first string
}

func (c *counted) add(what string) {
	if c.times++; c.times == 1 {
		c.first = what
	}
}

// kind is what became of the hits of one kind.
type kind struct {
	name                                      string
	accepted, refused, failed, notSent, asked int64
	statuses                                  [statusEnd]int64
	latency                                   *hdrhistogram.Histogram // µs of accepted requests
}

// opened is a hit that got no definite answer, and when.
type opened struct {
	hit     Hit
	passage passage
}

// NewRecorder returns one for the hits of a scenario.
func NewRecorder(s Scenario) *Recorder {
	r := &Recorder{latency: newHistogram(), dispatch: dispatch{late: newHistogram()}}
	for _, name := range s.Kinds() {
		r.kinds = append(r.kinds, kind{name: name, latency: newHistogram()})
	}
	return r
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, latencyMax.Microseconds(), latencyDigits)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	_ = h.RecordValue(min(max(0, d), latencyMax).Microseconds()) // within its range
}

// outcome is what an answer says about its request.
type outcome int

const (
	accepted outcome = iota
	refused          // nothing was done, and will not be
	unknown          // it may have been done: only the same request under the same key tells
)

// outcomeOf reads a status. 503 is a promise that nothing was done; any other 5xx says no such thing.
func outcomeOf(status int) outcome {
	switch {
	case status < 300:
		return accepted
	case status >= 500 && status != http.StatusServiceUnavailable:
		return unknown
	}
	return refused
}

// answered counts the reply to a hit.
func (r *Recorder) answered(h *Hit, p passage, answer Reply, from Source) {
	what := outcomeOf(answer.Status)
	// Outside the lock: a source has one of its own.
	wellFormed := what != accepted || from.Accepted(h, answer.Body)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dispatch.add(p)
	r.reply(h, answer, wellFormed)
	if what == unknown {
		r.keep(h, p)
		return
	}
	r.conclude(h.Kind, p, what)
	if what == accepted {
		r.timeline.answered(p)
	}
}

// unanswered counts a hit without a reply.
func (r *Recorder) unanswered(h *Hit, p passage, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dispatch.add(p)
	r.failure(err)
	r.keep(h, p)
}

// notSent counts a hit that no connection could send.
func (r *Recorder) notSent(h *Hit, due time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kinds[h.Kind].notSent++
	r.timeline.at(due).Due++
	r.timeline.at(due).NotSent++
}

// reply notes what a server said, whatever follows from it.
func (r *Recorder) reply(h *Hit, answer Reply, wellFormed bool) {
	r.statuses[answer.Status]++
	r.kinds[h.Kind].statuses[answer.Status]++
	r.replyBytes += int64(len(answer.Body))
	if !wellFormed {
		r.malformed.add(fmt.Sprintf("%d %.300s", answer.Status, answer.Body))
	}
	if answer.Status < 300 || r.first[answer.Status] != "" {
		return
	}
	r.first[answer.Status] = fmt.Sprintf("%d %.300s", answer.Status, answer.Body)
	if r.complaint == "" {
		r.complaint = r.first[answer.Status]
	}
}

func (r *Recorder) failure(err error) {
	if errors.Is(err, errMalformed) {
		r.malformed.add(err.Error())
	}
	if r.complaint == "" {
		r.complaint = err.Error()
	}
}

// keep remembers a hit whose outcome is open, as long as there is room.
func (r *Recorder) keep(h *Hit, p passage) {
	if len(r.open) == openMax {
		r.fail(h.Kind, p)
		return
	}
	kept := *h
	kept.Request = bytes.Clone(h.Request)
	r.open = append(r.open, opened{hit: kept, passage: p})
}

// conclude counts the definite outcome of a hit, where it stands in time by its first answer: one that had to be asked for
// again comes late because the generator asked late.
func (r *Recorder) conclude(of int, p passage, what outcome) {
	k := &r.kinds[of]
	r.timeline.at(p.due).Due++
	if what == accepted {
		k.accepted++
		record(k.latency, p.done-p.due)
		record(r.latency, p.done-p.due)
		r.timeline.at(p.done).Accepted++
		return
	}
	k.refused++
	r.timeline.at(p.done).Refused++
}

// fail counts a hit of which nobody will know what became.
func (r *Recorder) fail(of int, p passage) {
	r.kinds[of].failed++
	r.timeline.at(p.due).Due++
	r.timeline.at(p.done).Failed++
}

// dispatch is how well the generator kept to the plan.
type dispatch struct {
	late    *hdrhistogram.Histogram // µs from due to sent, of hits for which a connection was free
	crowded int64                   // hits for which none was free when they were due
	wait    time.Duration           // the longest of those waited
}

func (d *dispatch) add(p passage) {
	if p.taken <= p.due {
		record(d.late, p.sent-p.due)
		return
	}
	d.crowded++
	d.wait = max(d.wait, p.taken-p.due)
}

package load

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"stampede/bench/result"
)

// Tally is what a recorder has counted.
type Tally struct {
	Accepted   int64
	Refused    map[int]int64 // by status
	Failed     int64         // hits without a definite answer
	NotSent    int64
	Complaint  string        // the first that was not accepted
	ReplyBytes float64       // mean of the bodies
	P50, P99   time.Duration // of accepted requests
}

// Tally sums up what was counted so far.
func (r *Recorder) Tally() Tally {
	r.mu.Lock()
	defer r.mu.Unlock()
	t := Tally{
		Refused:   make(map[int]int64),
		Failed:    int64(len(r.open)),
		Complaint: r.complaint,
		P50:       time.Duration(r.latency.ValueAtPercentile(50)) * time.Microsecond,
		P99:       time.Duration(r.latency.ValueAtPercentile(99)) * time.Microsecond,
	}
	for i := range r.kinds {
		k := &r.kinds[i]
		t.Accepted, t.Failed, t.NotSent = t.Accepted+k.accepted, t.Failed+k.failed, t.NotSent+k.notSent
	}
	replies := int64(0)
	for status, n := range &r.statuses {
		replies += n
		if n > 0 && outcomeOf(status) == refused {
			t.Refused[status] = n
		}
	}
	if replies > 0 {
		t.ReplyBytes = float64(r.replyBytes) / float64(replies)
	}
	return t
}

// RefusedAll is the sum of the refusals.
func (t Tally) RefusedAll() (sum int64) {
	for _, n := range t.Refused {
		sum += n
	}
	return sum
}

// Wrong says what was not accepted; nothing is "".
func (t Tally) Wrong() string {
	if len(t.Refused) == 0 && t.Failed == 0 && t.NotSent == 0 {
		return ""
	}
	text := fmt.Sprintf("%d accepted, refused by status: %v, without a definite answer: %d", t.Accepted, t.Refused, t.Failed)
	if t.NotSent > 0 {
		text += fmt.Sprintf(", not sent: %d", t.NotSent)
	}
	return fmt.Sprintf("%s; the first: %s", text, t.Complaint)
}

// Fill writes into a result what was counted: in all, by kind and, where it was kept, by time. Hits that are still open
// count as failed.
func (r *Recorder) Fill(to *result.Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.timeline.close()
	open := make([]int64, len(r.kinds))
	to.Timeline = slices.Clone(r.timeline.intervals)
	for _, o := range r.open {
		open[o.hit.Kind]++
	}
	to.Total = result.Counts{Statuses: map[int]int64{}}
	to.Kinds = nil
	for i := range r.kinds {
		k := &r.kinds[i]
		c := result.Counts{
			Accepted: k.accepted, Refused: k.refused, Failed: k.failed + open[i], NotSent: k.notSent, Asked: k.asked,
			Statuses: map[int]int64{},
		}
		c.Due = c.Accepted + c.Refused + c.Failed + c.NotSent
		for status, n := range &k.statuses {
			if n > 0 {
				c.Statuses[status] = n
				to.Total.Statuses[status] += n
			}
		}
		total := &to.Total
		total.Due, total.Accepted, total.Refused = total.Due+c.Due, total.Accepted+c.Accepted, total.Refused+c.Refused
		total.Failed, total.NotSent, total.Asked = total.Failed+c.Failed, total.NotSent+c.NotSent, total.Asked+c.Asked
		to.Kinds = append(to.Kinds, result.Kind{Name: k.name, Counts: c, Latency: quantiles(k.latency)})
	}
	to.Latency = quantiles(r.latency)
}

// percents are the quantiles that are told, closer together where requests are slow.
var percents = []float64{1, 5, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.99, 100}

func quantiles(h *hdrhistogram.Histogram) []result.Quantile {
	if h.TotalCount() == 0 {
		return nil
	}
	told := make([]result.Quantile, len(percents))
	for i, percent := range percents {
		told[i] = result.Quantile{Percent: percent, Us: h.ValueAtPercentile(percent)}
	}
	return told
}

// Dispatch is how well a generator kept to its plan.
type Dispatch struct {
	Late    time.Duration // 99 of 100 hits for which a connection was free were sent no later than this after they were due
	Crowded int64         // hits for which no connection was free
	Wait    time.Duration // the longest that one of those waited for a connection
}

// Dispatch tells how well the generator kept to its plan.
func (r *Recorder) Dispatch() Dispatch {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Dispatch{
		Late:    time.Duration(r.dispatch.late.ValueAtPercentile(99)) * time.Microsecond,
		Crowded: r.dispatch.crowded, Wait: r.dispatch.wait,
	}
}

// expectedRefusals are what a shop may say to a request that is as it should be.
var expectedRefusals = []int{
	http.StatusPaymentRequired, http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable,
}

// Misbehaviour is what the server did wrong: replies that are malformed, and answers that a request which is as it should
// be must not get. An overload that it admits (503, and 504 until the outcome is known) is none.
func (r *Recorder) Misbehaviour() (found []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.malformed.times > 0 {
		found = append(found, fmt.Sprintf("%d malformed replies; the first: %s", r.malformed.times, r.malformed.first))
	}
	for status, n := range &r.statuses {
		if n == 0 || status < 300 || status == http.StatusGatewayTimeout || slices.Contains(expectedRefusals, status) {
			continue
		}
		found = append(found, fmt.Sprintf("%d answers of status %d; the first: %s", n, status, r.first[status]))
	}
	return found
}

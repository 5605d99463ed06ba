package load

import (
	"errors"
	"math"
	"net/http"
	"sync"
	"testing"
	"time"

	"stampede/bench/result"
)

// feed gives a recorder answers as a loop does.
type feed struct {
	*Recorder
	source Source
}

func newFeed() feed { return feed{NewRecorder(someOrders()), someOrders().Source()} }

// answer counts a reply that came at a time, so much later than it was due.
func (f feed) answer(status int, body string, at, latency time.Duration) {
	due := at - latency
	f.answered(&Hit{}, passage{due: due, taken: due, sent: due, done: at}, Reply{Status: status, Body: []byte(body)}, f.source)
}

func TestRecorder_PercentilesAreThoseOfAcceptedRequests(t *testing.T) {
	f := newFeed()
	for ms := 1; ms <= 1000; ms++ {
		f.answer(201, placed, time.Second, time.Duration(ms)*time.Millisecond)
	}
	for range 5000 {
		f.answer(503, "", time.Second, time.Microsecond) // fast refusals must not make orders look fast
	}
	got := f.Tally()
	for _, c := range []struct {
		name      string
		got, want time.Duration
	}{{"p50", got.P50, 500 * time.Millisecond}, {"p99", got.P99, 990 * time.Millisecond}} {
		if off := math.Abs(float64(c.got-c.want)) / float64(c.want); off > 0.001 {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	if want := float64(len(placed)) / 6; got.Accepted != 1000 || got.Refused[503] != 5000 || got.ReplyBytes != want {
		t.Errorf("accepted %d, refused %v, %v bytes a reply; want 1000, 5000 of 503, %v", got.Accepted, got.Refused, got.ReplyBytes, want)
	}
}

func TestRecorder_KeepsLatenciesBeyondItsRange(t *testing.T) {
	f := newFeed()
	f.answer(201, placed, time.Hour, time.Hour)
	if got := f.Tally(); got.P50 < latencyMax {
		t.Errorf("an hour is told as %v, want at least %v", got.P50, latencyMax)
	}
}

func TestRecorder_CountsFromManyGoroutines(t *testing.T) {
	const goroutines, each = 16, 500
	r := NewRecorder(someOrders())
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			f := feed{r, someOrders().Source()}
			for range each {
				f.answer(201, placed, time.Second, time.Millisecond)
				f.answer(409, "sold out", time.Second, time.Millisecond)
				f.unanswered(&Hit{}, passage{}, errors.New("reset"))
			}
		})
	}
	group.Wait()
	got := r.Tally()
	if got.Accepted != goroutines*each || got.Refused[409] != goroutines*each || got.Failed != goroutines*each {
		t.Errorf("counted %+v, want %d of each", got, goroutines*each)
	}
}

func TestTally_SaysWhatWasWrong(t *testing.T) {
	f := newFeed()
	f.answer(201, placed, time.Second, time.Millisecond)
	if wrong := f.Tally().Wrong(); wrong != "" {
		t.Errorf("accepted orders are wrong: %s", wrong)
	}
	f.answer(402, "poor", time.Second, time.Millisecond)
	f.unanswered(&Hit{}, passage{}, errors.New("reset"))
	f.notSent(&Hit{}, time.Second)
	const want = "1 accepted, refused by status: map[402:1], without a definite answer: 1, not sent: 1; the first: 402 poor"
	if wrong := f.Tally().Wrong(); wrong != want {
		t.Errorf("wrong is %q, want %q", wrong, want)
	}
}

func TestRecorder_KnowsWhatAServerMustNotSay(t *testing.T) {
	f := newFeed()
	for _, status := range []int{402, 409, 429, 503, 504} { // what any shop may
		f.answer(status, "", time.Second, time.Millisecond)
	}
	f.answer(201, placed, time.Second, time.Millisecond)
	if found := f.Misbehaviour(); len(found) > 0 {
		t.Errorf("a proper shop is blamed: %q", found)
	}
	f.answer(500, "oops", time.Second, time.Millisecond)
	f.answer(400, "what", time.Second, time.Millisecond)
	f.answer(400, "again", time.Second, time.Millisecond)
	f.answer(201, "no order", time.Second, time.Millisecond)
	want := []string{
		"1 malformed replies; the first: 201 no order",
		"2 answers of status 400; the first: 400 what", "1 answers of status 500; the first: 500 oops",
	}
	if found := f.Misbehaviour(); len(found) != 3 || found[0] != want[0] || found[1] != want[1] || found[2] != want[2] {
		t.Errorf("blamed for %q, want %q", found, want)
	}
}

func TestTimeline_PutsHitsWhereTheyBelong(t *testing.T) {
	f := newFeed()
	f.KeepTimeline(100 * time.Millisecond)
	f.answer(201, placed, 50*time.Millisecond, 10*time.Millisecond)
	f.answer(201, placed, 80*time.Millisecond, 30*time.Millisecond)
	f.answer(409, "sold out", 250*time.Millisecond, 20*time.Millisecond)
	f.answer(201, placed, 320*time.Millisecond, 290*time.Millisecond) // due at the beginning
	f.notSent(&Hit{}, 150*time.Millisecond)
	f.answer(http.StatusGatewayTimeout, "", 350*time.Millisecond, 10*time.Millisecond) // nobody asks again
	f.giveUp()
	var got result.Result
	f.Fill(&got)
	want := []struct{ due, accepted, refused, failed, notSent, maxMs int64 }{
		{3, 2, 0, 0, 0, 30},
		{1, 0, 0, 0, 1, 0},
		{1, 0, 1, 0, 0, 0},
		{1, 1, 0, 1, 0, 290},
	}
	if len(got.Timeline) != len(want) {
		t.Fatalf("%d intervals: %+v", len(got.Timeline), got.Timeline)
	}
	for n, w := range want {
		i := got.Timeline[n]
		if i.Due != w.due || i.Accepted != w.accepted || i.Refused != w.refused || i.Failed != w.failed || i.NotSent != w.notSent {
			t.Errorf("interval %d is %+v, want %+v", n, i, w)
		}
		if ms := float64(i.Max) / 1000; math.Abs(ms-float64(w.maxMs)) > 0.001*float64(w.maxMs)+0.001 {
			t.Errorf("interval %d has a latency of at most %v ms, want %d", n, ms, w.maxMs)
		}
		if math.Abs(i.At-0.1*float64(n)) > 1e-9 || i.Seconds != 0.1 {
			t.Errorf("interval %d is at %v, %v long", n, i.At, i.Seconds)
		}
	}
}

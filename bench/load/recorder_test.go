package load

import (
	"errors"
	"math"
	"sync"
	"testing"
	"time"
)

func TestRecorder_PercentilesAreThoseOfAcceptedRequests(t *testing.T) {
	r := NewRecorder()
	for ms := 1; ms <= 1000; ms++ {
		r.Reply(Reply{Status: 201, Body: make([]byte, 300)}, time.Duration(ms)*time.Millisecond)
	}
	for range 5000 {
		r.Reply(Reply{Status: 503}, time.Microsecond) // fast refusals must not make orders look fast
	}
	got := r.Tally()
	for _, c := range []struct {
		name      string
		got, want time.Duration
	}{{"p50", got.P50, 500 * time.Millisecond}, {"p99", got.P99, 990 * time.Millisecond}} {
		if off := math.Abs(float64(c.got-c.want)) / float64(c.want); off > 0.001 {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	if got.Accepted != 1000 || got.Refused[503] != 5000 || got.ReplyBytes != 50 {
		t.Errorf("accepted %d, refused %v, %v bytes a reply; want 1000, 5000 of 503, 50", got.Accepted, got.Refused, got.ReplyBytes)
	}
}

func TestRecorder_KeepsLatenciesBeyondItsRange(t *testing.T) {
	r := NewRecorder()
	r.Reply(Reply{Status: 201}, time.Hour)
	if got := r.Tally(); got.P50 < latencyMax {
		t.Errorf("an hour is told as %v, want at least %v", got.P50, latencyMax)
	}
}

func TestRecorder_CountsFromManyGoroutines(t *testing.T) {
	const goroutines, each = 16, 500
	r := NewRecorder()
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range each {
				r.Reply(Reply{Status: 201}, time.Millisecond)
				r.Reply(Reply{Status: 409, Body: []byte("sold out")}, time.Millisecond)
				r.Fail(errors.New("reset"))
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
	r := NewRecorder()
	r.Reply(Reply{Status: 201}, time.Millisecond)
	if wrong := r.Tally().Wrong(); wrong != "" {
		t.Errorf("accepted orders are wrong: %s", wrong)
	}
	r.Reply(Reply{Status: 402, Body: []byte("poor")}, time.Millisecond)
	r.Fail(errors.New("reset"))
	const want = "1 accepted, refused by status: map[402:1], without a reply: 1; the first: 402 poor"
	if wrong := r.Tally().Wrong(); wrong != want {
		t.Errorf("wrong is %q, want %q", wrong, want)
	}
}

package main

import (
	"errors"
	"math"
	"sync"
	"testing"
	"time"
)

func TestRecorder_PercentilesAreThoseOfAcceptedRequests(t *testing.T) {
	r := newRecorder()
	for ms := 1; ms <= 1000; ms++ {
		r.reply(reply{status: 201, body: make([]byte, 300)}, time.Duration(ms)*time.Millisecond)
	}
	for range 5000 {
		r.reply(reply{status: 503}, time.Microsecond) // fast refusals must not make orders look fast
	}
	got := r.tally()
	for _, c := range []struct {
		name      string
		got, want time.Duration
	}{{"p50", got.p50, 500 * time.Millisecond}, {"p99", got.p99, 990 * time.Millisecond}} {
		if off := math.Abs(float64(c.got-c.want)) / float64(c.want); off > 0.001 {
			t.Errorf("%s is %v, want %v", c.name, c.got, c.want)
		}
	}
	if got.accepted != 1000 || got.refused[503] != 5000 || got.replyBytes != 50 {
		t.Errorf("accepted %d, refused %v, %v bytes a reply; want 1000, 5000 of 503, 50", got.accepted, got.refused, got.replyBytes)
	}
}

func TestRecorder_KeepsLatenciesBeyondItsRange(t *testing.T) {
	r := newRecorder()
	r.reply(reply{status: 201}, time.Hour)
	if got := r.tally(); got.p50 < latencyMax {
		t.Errorf("an hour is told as %v, want at least %v", got.p50, latencyMax)
	}
}

func TestRecorder_CountsFromManyGoroutines(t *testing.T) {
	const goroutines, each = 16, 500
	r := newRecorder()
	var group sync.WaitGroup
	for range goroutines {
		group.Go(func() {
			for range each {
				r.reply(reply{status: 201}, time.Millisecond)
				r.reply(reply{status: 409, body: []byte("sold out")}, time.Millisecond)
				r.fail(errors.New("reset"))
			}
		})
	}
	group.Wait()
	got := r.tally()
	if got.accepted != goroutines*each || got.refused[409] != goroutines*each || got.failed != goroutines*each {
		t.Errorf("counted %+v, want %d of each", got, goroutines*each)
	}
}

func TestTally_SaysWhatWasWrong(t *testing.T) {
	r := newRecorder()
	r.reply(reply{status: 201}, time.Millisecond)
	if wrong := r.tally().wrong(); wrong != "" {
		t.Errorf("accepted orders are wrong: %s", wrong)
	}
	r.reply(reply{status: 402, body: []byte("poor")}, time.Millisecond)
	r.fail(errors.New("reset"))
	const want = "1 accepted, refused by status: map[402:1], without a reply: 1; the first: 402 poor"
	if wrong := r.tally().wrong(); wrong != want {
		t.Errorf("wrong is %q, want %q", wrong, want)
	}
}

package load

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/bench/result"
)

// open runs an open loop of orders, and asks again for what was left open.
func open(t *testing.T, addr string, connections int, d time.Duration, p Pacer) (*Recorder, result.Result, time.Duration) {
	t.Helper()
	g, err := Dial(t.Context(), addr, connections)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	r := NewRecorder(someOrders())
	r.KeepTimeline(100 * time.Millisecond)
	took := g.OpenLoop(t.Context(), d, p, someOrders(), r)
	g.settle(t.Context(), someOrders(), r, 20*time.Millisecond)
	var filled result.Result
	r.Fill(&filled)
	checkSums(t, filled)
	return r, filled, took
}

// checkSums holds the counts against each other.
func checkSums(t *testing.T, r result.Result) {
	t.Helper()
	check := func(what string, c result.Counts) {
		t.Helper()
		if c.Due != c.Accepted+c.Refused+c.Failed+c.NotSent {
			t.Errorf("%s: what was due is not what became of it: %+v", what, c)
		}
	}
	check("all", r.Total)
	var kinds, pieces result.Counts
	add := func(to *result.Counts, due, accepted, refused, failed, notSent int64) {
		to.Due, to.Accepted, to.Refused = to.Due+due, to.Accepted+accepted, to.Refused+refused
		to.Failed, to.NotSent = to.Failed+failed, to.NotSent+notSent
	}
	for _, k := range r.Kinds {
		check(k.Name, k.Counts)
		add(&kinds, k.Counts.Due, k.Counts.Accepted, k.Counts.Refused, k.Counts.Failed, k.Counts.NotSent)
	}
	for _, i := range r.Timeline {
		add(&pieces, i.Due, i.Accepted, i.Refused, i.Failed, i.NotSent)
	}
	for what, got := range map[string]result.Counts{"kinds": kinds, "pieces of time": pieces} {
		want := r.Total
		if got.Due != want.Due || got.Accepted != want.Accepted || got.Refused != want.Refused || got.Failed != want.Failed || got.NotSent != want.NotSent {
			t.Errorf("the %s come to %+v, not to %+v", what, got, want)
		}
	}
}

func quantile(t *testing.T, of []result.Quantile, percent float64) time.Duration {
	t.Helper()
	for _, q := range of {
		if q.Percent == percent {
			return time.Duration(q.Us) * time.Microsecond
		}
	}
	t.Fatalf("no quantile of %v in %v", percent, of)
	return 0
}

// accept answers every order.
func accept(ctx *fasthttp.RequestCtx) {
	ctx.SetStatusCode(http.StatusCreated)
	ctx.SetBodyString(placed)
}

func TestOpenLoop_AStallIsSeenByAllWhoCameMeanwhile(t *testing.T) {
	const stall = 300 * time.Millisecond
	var stalled sync.Once
	var shut sync.RWMutex
	start := time.Now()
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		if time.Since(start) > 200*time.Millisecond {
			stalled.Do(func() {
				shut.Lock()
				time.Sleep(stall)
				shut.Unlock()
			})
		}
		shut.RLock()
		defer shut.RUnlock()
		accept(ctx)
	})
	// Four connections notice the stall; a closed loop would tell of four slow requests among hundreds.
	start = time.Now()
	r, got, _ := open(t, s.addr, 4, time.Second, Constant(400))
	if got.Total.Due != 400 || got.Total.Accepted != 400 {
		t.Fatalf("%+v", got.Total)
	}
	// A fourth of the hits came due in the stall; they waited for 0 to 300 ms. So 12 % waited for more than half of it.
	if p90, p99 := quantile(t, got.Latency, 90), quantile(t, got.Latency, 99); p90 < 100*time.Millisecond || p99 < 250*time.Millisecond {
		t.Errorf("a stall of %v is a p90 of %v and a p99 of %v", stall, p90, p99)
	}
	if d := r.Dispatch(); d.Crowded < 60 || d.Wait < 200*time.Millisecond {
		t.Errorf("hits that found every connection busy: %+v", d)
	}
}

func TestOpenLoop_KeepsItsRateAndSaysHowWell(t *testing.T) {
	s := serve(t, accept)
	r, got, took := open(t, s.addr, 64, 500*time.Millisecond, NewPoisson(400, 3))
	want := int64(len(plan(NewPoisson(400, 3), 500*time.Millisecond)))
	if got.Total.Accepted != want || took < 400*time.Millisecond {
		t.Errorf("%d of %d hits in %v", got.Total.Accepted, want, took)
	}
	if d := r.Dispatch(); d.Crowded > want/4 || d.Late <= 0 {
		t.Errorf("an idle server crowds the generator: %+v", d)
	}
}

func TestOpenLoop_WhatNoConnectionCouldSendIsCounted(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		<-release
		accept(ctx)
	})
	g, err := Dial(t.Context(), s.addr, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	r := NewRecorder(someOrders())
	r.KeepTimeline(100 * time.Millisecond)
	g.run(t.Context(), &loop{
		end: 200 * time.Millisecond, late: 150 * time.Millisecond, pacer: Constant(100), scenario: someOrders(), recorder: r,
	})
	var got result.Result
	r.Fill(&got)
	checkSums(t, got)
	// Two are under way until 300 ms; those due before 150 ms are too late by then, and the last five are not.
	if c := got.Total; c.Due != 20 || c.NotSent < 10 || c.NotSent > 18 || c.Accepted+c.NotSent != 20 {
		t.Errorf("%+v", c)
	}
}

func TestOpenLoop_AnInterruptionEndsItAtOnce(t *testing.T) {
	s := serve(t, accept)
	g, err := Dial(t.Context(), s.addr, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := NewRecorder(someOrders())
	took := g.OpenLoop(ctx, time.Hour, Constant(0.5), someOrders(), r)
	var got result.Result
	r.Fill(&got)
	if took > 5*time.Second || got.Total.Due != 1 || got.Total.Accepted != 1 {
		t.Errorf("after %v: %+v", took, got.Total)
	}
}

// keyed is a server that remembers keys.
type keyed struct {
	mu   sync.Mutex
	seen map[string]int
	body map[string]string
}

func (k *keyed) ask(ctx *fasthttp.RequestCtx) (times int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key := string(ctx.Request.Header.Peek("Idempotency-Key"))
	if k.seen == nil {
		k.seen, k.body = map[string]int{}, map[string]string{}
	}
	if text := string(ctx.Request.Body()); k.seen[key] > 0 && k.body[key] != text {
		k.seen[key] = -1000 // another request under the same key
	} else {
		k.body[key] = text
	}
	k.seen[key]++
	return k.seen[key]
}

func TestSettle_AsksWithTheSameKeyUntilItKnows(t *testing.T) {
	var k keyed
	var n atomic.Int64
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		times := k.ask(ctx)
		switch n.Add(1) % 4 {
		case 0:
			if times <= 2 {
				ctx.SetStatusCode(http.StatusGatewayTimeout)
				return
			}
		case 1:
			if times == 1 {
				ctx.HijackSetNoResponse(true)
				ctx.Hijack(hangUp)
				return
			}
		case 2:
			if times > 1 { // it was sold out when it was asked again: as definite as any answer
				ctx.SetStatusCode(http.StatusConflict)
				return
			}
		}
		accept(ctx)
	})
	_, got, _ := open(t, s.addr, 4, 400*time.Millisecond, Constant(100))
	if c := got.Total; c.Due != 40 || c.Failed != 0 || c.NotSent != 0 || c.Asked < 10 || c.Accepted < 20 {
		t.Errorf("%+v", c)
	}
	asked := 0
	for key, times := range k.seen {
		if times < 1 {
			t.Errorf("another request was sent under the key %s", key)
		}
		asked += times - 1
	}
	if len(k.seen) != 40 || int64(asked) != got.Total.Asked {
		t.Errorf("%d keys, %d asked again; counted %d", len(k.seen), asked, got.Total.Asked)
	}
}

func TestSettle_GivesUp(t *testing.T) {
	var k keyed
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		k.ask(ctx)
		ctx.SetStatusCode(http.StatusGatewayTimeout)
	})
	_, got, took := open(t, s.addr, 2, 100*time.Millisecond, Constant(20))
	if c := got.Total; c.Due != 2 || c.Failed != 2 || c.Asked != 2*askAgainTries || c.Statuses[504] != 2*(1+askAgainTries) {
		t.Errorf("%+v after %v", c, took)
	}
}

func TestDispatch_TellsLateFromCrowded(t *testing.T) {
	f := newFeed()
	for i := range 100 {
		late := time.Duration(i/98) * 20 * time.Millisecond // the last two
		f.answered(&Hit{}, passage{due: time.Second, taken: 0, sent: time.Second + late, done: 2 * time.Second}, Reply{Status: 409}, f.source)
	}
	f.answered(&Hit{}, passage{due: time.Second, taken: 3 * time.Second, sent: 3 * time.Second, done: 4 * time.Second}, Reply{Status: 409}, f.source)
	d := f.Dispatch()
	if d.Late < 20*time.Millisecond || d.Late > 21*time.Millisecond || d.Crowded != 1 || d.Wait != 2*time.Second {
		t.Errorf("%+v", d)
	}
	if strings.Contains(f.Tally().Wrong(), "not sent") {
		t.Error("nothing was left unsent")
	}
}

package limit_test

import (
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/engine/rest/limit"
)

// start is when tests begin. It has no reading of a clock that only runs: tests set the clock.
var start = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// plenty of keys.
const plenty = 1 << 20

func want(t *testing.T, what string, got, want limit.Decision) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

func TestBuckets_BurstThenRate(t *testing.T) {
	b := limit.NewBuckets[string](10, 4, plenty)
	const perToken, window = 100 * time.Millisecond, 400 * time.Millisecond
	for i := range 4 {
		want(t, "of the burst", b.Take("a", start), limit.Decision{
			OK: true, Limit: 4, Remaining: 3 - i,
			Next: perToken, Reset: time.Duration(i+1) * perToken, Window: window,
		})
	}
	for range 3 { // a refusal costs nothing
		want(t, "one too many", b.Take("a", start), limit.Decision{
			Limit: 4, RetryAfter: perToken, Next: perToken, Reset: window, Window: window,
		})
	}
	want(t, "another key", b.Take("b", start), limit.Decision{
		OK: true, Limit: 4, Remaining: 3, Next: perToken, Reset: perToken, Window: window,
	})
	at := start.Add(perToken - 1)
	want(t, "a nanosecond early", b.Take("a", at), limit.Decision{
		Limit: 4, RetryAfter: 1, Next: 1, Reset: window - perToken + 1, Window: window,
	})
	at = start.Add(perToken)
	want(t, "on time", b.Take("a", at), limit.Decision{
		OK: true, Limit: 4, Next: perToken, Reset: window, Window: window,
	})
	at = at.Add(window - 1)
	want(t, "not quite full", b.Take("a", at), limit.Decision{
		OK: true, Limit: 4, Remaining: 2, Next: 1, Reset: perToken + 1, Window: window,
	})
	at = at.Add(time.Hour)
	want(t, "full, and no fuller", b.Take("a", at), limit.Decision{
		OK: true, Limit: 4, Remaining: 3, Next: perToken, Reset: perToken, Window: window,
	})
}

// A third of a second is no number of nanoseconds, and still nothing is lost or won while the bucket is not full.
func TestBuckets_RateThatDividesNoSecond(t *testing.T) {
	b := limit.NewBuckets[int](3, 2, plenty)
	b.Take(7, start)
	b.Take(7, start)
	at := start
	for second := range 1000 {
		for i, step := range []time.Duration{333_333_334, 333_333_333, 333_333_333} {
			if d := b.Take(7, at.Add(step-1)); d.OK || d.RetryAfter != 1 {
				t.Fatalf("a nanosecond before request %d of second %d: %+v", i, second, d)
			}
			at = at.Add(step)
			if d := b.Take(7, at); !d.OK || d.Remaining != 0 {
				t.Fatalf("request %d of second %d: %+v", i, second, d)
			}
		}
	}
	if took := at.Sub(start); took != 1000*time.Second {
		t.Errorf("3000 requests at 3 a second took %v", took)
	}
}

func TestBuckets_BurstIsASecondsWorthUnlessSaid(t *testing.T) {
	b := limit.NewBuckets[int](250, 0, plenty)
	if d := b.Take(1, start); d.Limit != 250 || d.Window != time.Second {
		t.Errorf("%+v", d)
	}
	huge := limit.NewBuckets[int](limit.RateMax, limit.RateMax, plenty)
	want(t, "as fast as it goes", huge.Take(1, start), limit.Decision{
		OK: true, Limit: limit.RateMax, Remaining: limit.RateMax - 1, Next: 1, Reset: 1, Window: time.Second,
	})
	slow := limit.NewBuckets[int](1, limit.RateMax, plenty)
	want(t, "as slow as it goes", slow.Take(1, start), limit.Decision{
		OK: true, Limit: limit.RateMax, Remaining: limit.RateMax - 1,
		Next: time.Second, Reset: time.Second, Window: limit.RateMax * time.Second,
	})
	if d := slow.Take(1, start.Add(500*time.Millisecond)); !d.OK || d.Reset != 1500*time.Millisecond {
		t.Errorf("as slow as it goes, later: %+v", d)
	}
}

func TestBuckets_NonsenseIsRefused(t *testing.T) {
	for _, c := range [][3]int{
		{0, 1, 10}, {-1, 1, 10}, {limit.RateMax + 1, 1, 10}, {1, -1, 10}, {1, limit.RateMax + 1, 10}, {1, 1, 1}, {1, 1, -5},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%v is taken", c)
				}
			}()
			limit.NewBuckets[int](c[0], c[1], c[2])
		}()
	}
}

// The clock of two callers may be out of order by a little: that must not pay for the time between them again.
func TestBuckets_ReadingsOutOfOrderWinNothing(t *testing.T) {
	b := limit.NewBuckets[int](10, 10, plenty)
	admitted := 0
	for i := range 10_000 {
		at := start.Add(time.Duration(i) * time.Microsecond)
		if i%2 == 1 {
			at = at.Add(-limit.SkewMax)
		}
		if b.Take(1, at).OK {
			admitted++
		}
	}
	if admitted != 10 {
		t.Errorf("%d requests admitted in 10 ms at 10 a second, burst 10", admitted)
	}
}

func TestBuckets_ClockSetBackLocksNobodyOut(t *testing.T) {
	for name, back := range map[string]time.Duration{
		"an hour": time.Hour, "two hundred years": 200 * 365 * 24 * time.Hour, "just more than skew": limit.SkewMax + 1,
	} {
		b := limit.NewBuckets[int](10, 5, plenty)
		for range 5 {
			b.Take(1, start)
		}
		at := start.Add(-back)
		if d := b.Take(1, at); d.OK || d.RetryAfter != 100*time.Millisecond || d.Reset != 500*time.Millisecond {
			t.Errorf("%s: an empty bucket: %+v", name, d)
		}
		if d := b.Take(1, at.Add(100*time.Millisecond)); !d.OK {
			t.Errorf("%s: it does not fill: %+v", name, d)
		}
		if d := b.Take(2, at); !d.OK || d.Remaining != 4 {
			t.Errorf("%s: another key: %+v", name, d)
		}
	}
	// Back by less, time stands still until it has caught up.
	b := limit.NewBuckets[int](10, 1, plenty)
	b.Take(1, start)
	const wait = limit.SkewMax + 100*time.Millisecond
	if d := b.Take(1, start.Add(-limit.SkewMax)); d.OK || d.RetryAfter != wait || d.Reset != wait {
		t.Errorf("back by the skew: %+v", d)
	}
}

func TestBuckets_ExactlyTheBurstPassesAtOneInstant(t *testing.T) {
	const keys, burst, callers, each = 5, 1000, 16, 500
	b := limit.NewBuckets[int](7, burst, plenty)
	var passed [keys]atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := range keys * each {
				if b.Take(i%keys, start).OK {
					passed[i%keys].Add(1)
				}
			}
		})
	}
	all.Wait()
	for key := range passed {
		if n := passed[key].Load(); n != burst {
			t.Errorf("key %d: %d of %d requests passed, the burst is %d", key, n, callers*each, burst)
		}
	}
}

func TestBuckets_KeysAreBounded(t *testing.T) {
	for _, keysMax := range []int{2, 3, 10, 1000, 20_000} {
		b := limit.NewBuckets[int](1, 1, keysMax)
		for key := range 5 * keysMax {
			b.Take(key, start)
			if n := b.Len(); n > keysMax {
				t.Fatalf("%d of %d keys are held", n, keysMax)
			}
		}
	}
}

// Forgetting goes by use: those used last are remembered, and one that keeps knocking is whatever else comes.
func TestBuckets_WhatIsInUseIsRemembered(t *testing.T) {
	const keysMax, knocking = 1000, -1
	b := limit.NewBuckets[int](1, 1, keysMax)
	b.Take(knocking, start)
	for key := range 5*keysMax + 123 {
		b.Take(key, start)
		if key%(keysMax/10) == 0 && b.Take(knocking, start).OK {
			t.Fatalf("one that keeps knocking was forgotten after %d others", key+1)
		}
	}
	last := 5*keysMax + 122
	for key := last; key > last-keysMax/2+1; key-- {
		if b.Take(key, start).OK {
			t.Fatalf("key %d from the end was forgotten", last-key)
		}
	}
	if !b.Take(0, start).OK {
		t.Error("the first key is remembered beyond the bound")
	}
}

// Wherever in a generation a bucket was emptied, and however the generations turn: up to the last nanosecond it is known.
func TestBuckets_NoneIsDroppedBeforeItIsFull(t *testing.T) {
	const keys, step, window = 200, 10 * time.Millisecond, time.Second
	b := limit.NewBuckets[int](10, 10, plenty)
	for i := range keys + int(window/step) {
		at := start.Add(time.Duration(i) * step)
		if full := i - int(window/step); full >= 0 {
			want(t, "a nanosecond before it is full", b.Take(full, at.Add(-1)), limit.Decision{
				OK: true, Limit: 10, Remaining: 8, Next: 1, Reset: window/10 + 1, Window: window,
			})
		}
		for range 10 {
			b.Take(i, at)
		}
	}
}

func TestBuckets_FullOnesAreDropped(t *testing.T) {
	b := limit.NewBuckets[int](10, 20, 1000)
	for key := range 400 {
		b.Take(key, start)
	}
	at := start
	for range 3 {
		at = at.Add(2 * time.Second)
		b.Take(0, at)
	}
	if n := b.Len(); n > 2 {
		t.Errorf("%d buckets are held after all but one are full", n)
	}
	// A clock that was set back does not keep them either.
	for key := range 400 {
		b.Take(key, at)
	}
	at = at.Add(-time.Hour)
	for range 3 {
		b.Take(0, at)
		at = at.Add(2 * time.Second)
	}
	if n := b.Len(); n > 2 {
		t.Errorf("%d buckets are held after the clock was set back", n)
	}
}

func TestBuckets_ManyKeysAreSmall(t *testing.T) {
	const keysMax = 250_000
	before := heap()
	b := limit.NewBuckets[netip.Addr](1, 100, keysMax)
	most, mostKeys := int64(0), 0
	for i := range uint32(3 * keysMax / 2) {
		b.Take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), start)
		if i%(keysMax/16) == 0 { // the tables of all shards grow at about the same time
			most, mostKeys = max(most, heap()-before), max(mostKeys, b.Len())
		}
	}
	if mostKeys < keysMax*8/10 || mostKeys > keysMax {
		t.Errorf("%d keys were held", mostKeys)
	}
	if most > 70*keysMax {
		t.Errorf("%d keys took %d bytes", mostKeys, most)
	}
	t.Logf("%d keys took %d bytes at most", mostKeys, most)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

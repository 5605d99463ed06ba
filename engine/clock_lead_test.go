package engine_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// wantHalfSpeed wants the clock to have moved by half of what TIME did between two looks.
func wantHalfSpeed(t *testing.T, what string, from, to engine.DoorView) {
	t.Helper()
	passed := to.Now.Add(-to.Lead).Sub(from.Now.Add(-from.Lead))
	const rounding = 2 * time.Millisecond
	if moved := to.Now.Sub(from.Now); moved < passed/2-rounding || moved > passed/2+rounding {
		t.Errorf("%s: the clock moved by %v in %v", what, moved, passed)
	}
}

func TestClock_LeadShrinksByHalfASecondASecond(t *testing.T) {
	registry := prometheus.NewRegistry()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Partitions: 1, Metrics: registry})
	e, user := s.Engine, s.User(0)
	lead := func() float64 {
		look(t, e, 0)
		return figures(t, registry)["stampede_partition_clock_lead_seconds partition=0"]
	}
	mustCharge(t, e, user, 1, "before")
	if v := look(t, e, 0); v.Lead != 0 || lead() != 0 {
		t.Errorf("without a step of TIME the clock leads by %v", v.Lead)
	}
	e.SetClockOffset(time.Hour)
	mustCharge(t, e, user, 1, "ahead")
	if v := look(t, e, 0); v.Lead != 0 {
		t.Errorf("a TIME that is set ahead takes the clock along; it leads by %v", v.Lead)
	}
	e.SetClockOffset(0)
	mustCharge(t, e, user, 1, "back") // until this, or a look of the sweeper, it waits
	first, seconds := look(t, e, 0), lead()
	if first.Lead < 59*time.Minute || seconds < 59*60 || e.ClockLead(0) < 59*time.Minute {
		t.Errorf("set back by an hour, the clock leads by %v, the metric says %v", first.Lead, seconds)
	}
	time.Sleep(1500 * time.Millisecond) // so long that the sweeper renews the note
	second := look(t, e, 0)
	wantHalfSpeed(t, "nothing is written", first, second)
	if now := lead(); now >= seconds-0.5 {
		t.Errorf("the metric says %v after %v", now, seconds)
	}

	// Writes in each millisecond must not stop it.
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 100 {
				mustCharge(t, e, user, 1, fmt.Sprintf("writer %d: %d", w, i))
			}
		})
	}
	writers.Wait()
	wantHalfSpeed(t, "many writes", second, look(t, e, 0))

	// TIME that is set ahead again is no time that has passed.
	e.SetClockOffset(50 * time.Minute)
	if v := look(t, e, 0); v.Lead > 10*time.Minute+5*time.Second {
		t.Errorf("after 50 of the 60 minutes came back the clock leads by %v", v.Lead)
	}
	e.SetClockOffset(2 * time.Hour)
	if v := look(t, e, 0); v.Lead != 0 {
		t.Errorf("once TIME has caught up the clock leads by %v", v.Lead)
	}
}

// The age of what Postgres lacks is by the clock that stamped it: by TIME it would be 0 for as long as the clock leads.
func TestWaiting_GrowsWhileTheClockLeads(t *testing.T) {
	s := shoptest.Start(t, stack.Options{}, shop.Config{NoWriter: true, Partitions: 1})
	e, ctx := s.Engine, context.Background()
	user := s.User(0)
	at := position(t, e, 0)
	e.SetClockOffset(time.Hour)
	mustCharge(t, e, user, 1, "ahead")
	e.SetClockOffset(0)
	await(t, "the event grows old", func() bool {
		age, waits, err := e.Waiting(ctx, 0, at)
		if err != nil || !waits || age > time.Minute {
			t.Fatalf("age %v, %t, %v", age, waits, err)
		}
		return age > 50*time.Millisecond
	})
}

// A partition that moved away leaves no meta: a sweeper that comes late must not write one, nor into one that is fenced.
func TestDue_WritesOnlyToAnOpenPartition(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{})
	ctx, meta := context.Background(), r.e.Keys().Meta(0)
	r.fund(t, 1)
	r.e.SetClockOffset(-time.Hour)
	due := func() map[string]string {
		t.Helper()
		if err := r.e.Due(ctx, 0); err != nil {
			t.Fatal(err)
		}
		return r.redis.HGetAll(ctx, meta).Val()
	}
	was := r.redis.HGetAll(ctx, meta).Val()
	if is := due(); is["clock"] < was["clock"] || is["clock_at"] >= was["clock_at"] {
		t.Errorf("after a step back meta was %v, is %v", was, is)
	}
	if err := r.redis.HSet(ctx, meta, "open", 0, "clock_at", was["clock_at"]).Err(); err != nil {
		t.Fatal(err)
	}
	if is := due(); is["clock_at"] != was["clock_at"] {
		t.Errorf("meta of a fenced partition was %v, is %v", was, is)
	}
	if err := r.redis.Del(ctx, meta).Err(); err != nil {
		t.Fatal(err)
	}
	if is := due(); len(is) > 0 {
		t.Errorf("meta of a partition that moved away is back: %v", is)
	}
}

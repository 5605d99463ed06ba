package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

func mustReserve(t rapid.TB, e *engine.Engine, user int64, key string, l []engine.Line) engine.Order {
	t.Helper()
	order, _, err := e.Place(context.Background(), engine.PlaceRequest{UserID: user, Lines: l, Later: true, Key: key})
	if err != nil {
		t.Fatalf("reserve %q: %v", key, err)
	}
	return order
}

// journey is how far a test has followed the events of a partition.
type journey struct {
	after engine.Position
	last  time.Time
}

// follow wants the times of a partition's events, and the steps of each order, not to run back.
func (j *journey) follow(t rapid.TB, s *shoptest.Shop, partition int) {
	t.Helper()
	entries := entriesAfter(t, s, partition, j.after)
	if len(entries) > 0 {
		j.after = entries[len(entries)-1].Last
	}
	for _, ev := range eventsOf(t, entries) {
		if ev.At.Before(j.last) {
			t.Errorf("partition %d: an event of kind %d at %v follows one at %v", partition, ev.Kind, ev.At, j.last)
		}
		j.last = ev.At
		for i := 1; i < len(ev.Order.History); i++ {
			if ev.Order.History[i].At.Before(ev.Order.History[i-1].At) {
				t.Errorf("partition %d: order %d runs back: %+v", partition, ev.RefID, ev.Order.History)
			}
		}
	}
}

// Whatever TIME does, times in the journal never run back by a millisecond, through all scripts that write events or read
// the time.
func TestClock_NeverRunsBack(t *testing.T) {
	const partitions = 2
	s := shoptest.Start(t, stack.Options{Durability: stack.DurabilityEverySec}, shop.Config{NoWriter: true, Partitions: partitions})
	steps := []time.Duration{-time.Hour, -5 * time.Minute, -59 * time.Second, -5 * time.Second, -time.Millisecond, 0, 5 * time.Second, 7 * time.Minute, time.Hour}
	runs := 0
	rapid.Check(t, func(t *rapid.T) {
		runs++
		e, ctx, n := s.Engine, context.Background(), 0
		user, product := s.User(1_000_000), s.Product(1, 1_000_000)
		key := func() string { n++; return fmt.Sprintf("run %d: %d", runs, n) }
		journeys := make([]journey, partitions)
		for p, at := range positions(t, e) {
			journeys[p].after = at
		}
		var open, paid []engine.Order
		// A step of TIME ahead may have ended a hold, or the time in which an order may be given back.
		try := func(what string, err error) {
			t.Helper()
			if err != nil && !errors.Is(err, engine.ErrNotPayable) && !errors.Is(err, engine.ErrNotCancelable) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		cancel := func(o engine.Order) {
			_, _, err := e.Cancel(ctx, engine.CancelRequest{UserID: user, OrderID: o.ID, Key: key()})
			try("cancel", err)
		}
		take := func(from *[]engine.Order) (engine.Order, bool) {
			if len(*from) == 0 {
				return engine.Order{}, false
			}
			last := len(*from) - 1
			o := (*from)[last]
			*from = (*from)[:last]
			return o, true
		}
		t.Repeat(map[string]func(*rapid.T){
			"step of TIME": func(t *rapid.T) { e.SetClockOffset(rapid.SampledFrom(steps).Draw(t, "offset")) },
			"place":        func(t *rapid.T) { paid = append(paid, mustPlace(t, e, user, key(), lines(product, 1))) },
			"reserve":      func(t *rapid.T) { open = append(open, mustReserve(t, e, user, key(), lines(product, 1))) },
			"pay": func(*rapid.T) {
				if o, found := take(&open); found {
					_, _, err := e.Pay(ctx, engine.PayRequest{UserID: user, OrderID: o.ID, Key: key()})
					try("pay", err)
				}
			},
			"cancel": func(*rapid.T) {
				if o, found := take(&open); found {
					cancel(o)
				}
			},
			"refund": func(*rapid.T) {
				if o, found := take(&paid); found {
					cancel(o)
				}
			},
			"charge": func(t *rapid.T) { mustCharge(t, e, user, 1, key()) },
			"cart": func(*rapid.T) {
				_, _, err := e.AddToCart(ctx, engine.CartAddRequest{UserID: user, ProductID: product, Quantity: 1, Key: key()})
				try("cart", err)
			},
			"restock": func(*rapid.T) {
				_, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: 1, Key: key()})
				try("restock", err)
			},
			"roll": func(*rapid.T) {
				for p := range partitions {
					try("roll", e.Roll(ctx, p))
				}
			},
			"list": func(*rapid.T) { s.Product(1, 10) },
			"top": func(t *rapid.T) {
				for p := range journeys {
					journeys[p].follow(t, s, p)
				}
				asOf, _, err := e.Top(ctx, 5)
				for _, j := range journeys {
					if err != nil || asOf.Before(j.last) {
						t.Errorf("the top five are as of %v, before the last event at %v: %v", asOf, j.last, err)
					}
				}
			},
		})
		for p := range journeys {
			journeys[p].follow(t, s, p)
		}
	})
}

// wantExpired waits until orders are EXPIRED, and wants none of them to have ended before its deadline.
func wantExpired(t *testing.T, e *engine.Engine, what string, orders ...engine.Order) {
	t.Helper()
	begun := time.Now()
	for _, o := range orders {
		var now engine.Order
		await(t, what+": its hold ends", func() bool {
			var err error
			now, err = e.Order(context.Background(), o.ID, o.UserID)
			return err == nil && now.Status == engine.Expired
		})
		if now.UpdatedAt().Before(o.ExpiresAt) {
			t.Errorf("%s: a hold until %v ended at %v", what, o.ExpiresAt, now.UpdatedAt())
		}
	}
	t.Logf("%s: ended after %v", what, time.Since(begun))
}

// Holds end within twice their length and a second, also if nothing else is written.
func TestClock_SetBackHoldsStillEnd(t *testing.T) {
	const hold = time.Second
	s := shoptest.Start(t, stack.Options{}, shop.Config{NoWriter: true, Partitions: 1, Hold: hold})
	e, ctx, meta := s.Engine, context.Background(), s.Engine.Keys().Meta(0)
	user, product := s.User(0), s.Product(1, 1000)

	e.SetClockOffset(time.Hour)
	ahead := mustReserve(t, e, user, "an hour ahead", lines(product, 1))
	e.SetClockOffset(0)
	back := mustReserve(t, e, user, "set back", lines(product, 1))
	time.Sleep(20 * time.Millisecond)
	later := mustReserve(t, e, user, "later", lines(product, 1))
	if !later.CreatedAt.After(back.CreatedAt) || back.CreatedAt.Before(ahead.CreatedAt) {
		t.Errorf("created at %v, %v, %v: the clock is to go on", ahead.CreatedAt, back.CreatedAt, later.CreatedAt)
	}
	wantExpired(t, e, "an hour ahead and back", ahead, back, later)

	idle := mustReserve(t, e, user, "nothing follows", lines(product, 1))
	e.SetClockOffset(-time.Hour)
	wantExpired(t, e, "nothing is written after a step back", idle)

	// The release before notes a minute and no more: the clock goes on from its beginning.
	if err := s.Redis.HSet(ctx, meta, "minute", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.Redis.HDel(ctx, meta, "clock", "clock_at").Err(); err != nil {
		t.Fatal(err)
	}
	begins := time.Until(time.Now().Truncate(time.Minute).Add(time.Minute + 10*time.Millisecond))
	e.SetClockOffset(begins)
	before := mustReserve(t, e, user, "by the release before", lines(product, 1))
	if err := s.Redis.HDel(ctx, meta, "clock", "clock_at").Err(); err != nil {
		t.Fatal(err)
	}
	e.SetClockOffset(begins - time.Hour)
	wantExpired(t, e, "a minute is all that is known", before)
}

// What the release before wrote with a clock that was ahead is paid no earlier than it was placed, and counts in the minute
// of its payment.
func TestClock_StepsFollowThoseOfTheReleaseBefore(t *testing.T) {
	s := clocked.open(t)
	e, ctx, meta := s.Engine, context.Background(), s.Engine.Keys().Meta(0)
	user, product := s.User(1000), s.Product(1, 1000)
	e.SetClockOffset(0)
	mustPlace(t, e, user, "a first one", lines(product, 1))
	from := positions(t, e)
	v := seenMinute(t, s)
	e.SetClockOffset(3 * time.Hour)
	open := mustReserve(t, e, user, "to be paid", lines(product, 1))
	unwanted := mustReserve(t, e, user, "to be canceled", lines(product, 1))
	pipe := s.Redis.TxPipeline()
	pipe.HDel(ctx, meta, "clock", "clock_at")
	pipe.HSet(ctx, meta, "minute", v)
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	e.SetClockOffset(0)
	canceled, _, err := e.Cancel(ctx, engine.CancelRequest{UserID: user, OrderID: unwanted.ID, Key: "cancel"})
	if err != nil || canceled.UpdatedAt().Before(unwanted.CreatedAt) {
		t.Errorf("placed at %v, canceled at %v: %v", unwanted.CreatedAt, canceled.UpdatedAt(), err)
	}
	paid, _, err := e.Pay(ctx, engine.PayRequest{UserID: user, OrderID: open.ID, Key: "pay"})
	if err != nil || paid.UpdatedAt().Before(open.CreatedAt) {
		t.Errorf("placed at %v, paid at %v: %v", open.CreatedAt, paid.UpdatedAt(), err)
	}
	if sold := soldByMinute(t, s, product); sold[paid.PaidAt().Unix()/60] != 1 {
		t.Errorf("paid at %v, the minutes count %v", paid.PaidAt(), sold)
	}
	wantFold(t, s, from)
	s.Written()
}

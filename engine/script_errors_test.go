package engine_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"stampede/engine"
)

// everyKind is an operation of each kind that would be done. The room has users 1 and 2, products 1 and 2, a cart, a held
// order, a paid one, and one whose deadline has passed at the room's time.
func everyKind(t *testing.T, r *room) map[string]func() *engine.Op {
	t.Helper()
	at := sequenceStart
	r.empty(t)
	r.at = at
	r.fund(t, 1000, 1000)
	r.stock(t, listing(1, 3, 100), listing(2, 4, 100))
	e := r.e
	do := func(at time.Time, op *engine.Op) engine.Order {
		t.Helper()
		got := e.SendAt(1, at, op)[0]
		if got.Err != nil {
			t.Fatal(got.Err)
		}
		return got.Order
	}
	place := func(key string, later bool) *engine.Op {
		return e.PlaceOp(engine.PlaceRequest{UserID: 1, Lines: lines(1, 1, 2, 2), Key: key, Later: later})
	}
	r.at = at.Add(sequenceHold)
	due := do(at, place("due", true))
	held, paid := do(r.at, place("held", true)), do(r.at, place("paid", false))
	do(r.at, e.CartOp(engine.CartAddRequest{UserID: 1, ProductID: 2, Quantity: 3}, nil, nil))
	cancel := func(o engine.Order, key string) func() *engine.Op {
		return func() *engine.Op {
			return e.CancelOp(engine.CancelRequest{UserID: 1, OrderID: o.ID, Key: key, Admin: true}, o, nil)
		}
	}
	return map[string]func() *engine.Op{
		"place":      func() *engine.Op { return place("new", false) },
		"reserve":    func() *engine.Op { return place("new", true) },
		"order cart": func() *engine.Op { return e.CartOrderOp(engine.CartOrderRequest{UserID: 1, Key: "c"}, lines(2, 3)) },
		"order cart later": func() *engine.Op {
			return e.CartOrderOp(engine.CartOrderRequest{UserID: 1, Key: "c", Later: true}, lines(2, 3))
		},
		"pay": func() *engine.Op {
			return e.PayOp(engine.PayRequest{UserID: 1, OrderID: held.ID, Key: "p"}, held.Items)
		},
		"cancel": cancel(held, "cancel"),
		"refund": cancel(paid, "refund"),
		"expire": func() *engine.Op { return e.ExpireOp(due) },
		"cart": func() *engine.Op {
			return e.CartOp(engine.CartAddRequest{UserID: 1, ProductID: 1, Quantity: 1}, nil, nil)
		},
		"take out": func() *engine.Op { return e.CartOp(engine.CartAddRequest{UserID: 1, ProductID: 2}, nil, nil) },
		"keyed cart": func() *engine.Op {
			return e.CartOp(engine.CartAddRequest{UserID: 1, ProductID: 1, Quantity: 1, Key: "k"}, []int64{1, 2}, []int64{0, 0})
		},
		"charge":  func() *engine.Op { return e.ChargeOp(engine.ChargeRequest{UserID: 1, Amount: 1, Key: "charge"}) },
		"restock": func() *engine.Op { return e.RestockOp(engine.RestockRequest{ProductID: 1, Delta: 1, Key: "restock"}) },
		"list":    func() *engine.Op { return e.ListOp(listing(3, 1, 1), 0) },
	}
}

// Redis undoes nothing when a script fails midway: whatever a key holds, a call either is done or changes nothing.
func TestCall_WhateverAKeyHoldsIsDoneOrChangesNothing(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{Hold: sequenceHold})
	ctx := context.Background()
	met := map[string]int{}
	spoilers := map[string]func(key string) error{
		"a list":  func(key string) error { return r.redis.RPush(ctx, key, "x").Err() },
		"a hash":  func(key string) error { return r.redis.HSet(ctx, key, "1", "x", "2", "x", "epoch", 1).Err() },
		"a set":   func(key string) error { return r.redis.ZAdd(ctx, key).Err() },
		"a text":  func(key string) error { return r.redis.Set(ctx, key, "x", 0).Err() },
		"nothing": func(string) error { return nil },
	}
	for _, name := range slices.Sorted(maps.Keys(everyKind(t, r))) {
		keys := r.e.KeysOf(everyKind(t, r)[name]())
		for at := range keys {
			for _, what := range []string{"a list", "a hash", "a text", "nothing"} {
				op := everyKind(t, r)[name]()
				// The keys of orders and minutes differ with each room.
				key := r.e.KeysOf(op)[at]
				if key == r.e.Keys().Sold(0, r.e.KnownMinute(0)) {
					key = r.e.Keys().Sold(0, r.minute())
				}
				r.redis.Del(ctx, key)
				if err := spoilers[what](key); err != nil {
					t.Fatal(err)
				}
				before := dump(t, r.redis)
				got := r.e.SendAt(1, r.at, op)[0]
				if got.Err == nil {
					met[name+": done"]++
					continue
				}
				met[name+": refused"]++
				if d := differences(before, dump(t, r.redis)); d != "" {
					t.Errorf("%s, where %s holds %s: %v, and yet changed:\n%s", name, key, what, got.Err, d)
				}
			}
		}
	}
	t.Logf("met: %v", met)
}

// The door stands before every script that sells.
func TestDoor_ShutTurnsEveryKindAway(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{Hold: sequenceHold})
	ctx := context.Background()
	for _, name := range slices.Sorted(maps.Keys(everyKind(t, r))) {
		op := everyKind(t, r)[name]()
		for fence, value := range map[string]string{"epoch": "2", "node": "another", "open": "0"} {
			was := r.redis.HGet(ctx, r.e.Keys().Meta(0), fence).Val()
			r.redis.HSet(ctx, r.e.Keys().Meta(0), fence, value)
			before := dump(t, r.redis)
			got := r.e.SendAt(1, r.at, op)[0]
			wantErr(t, fmt.Sprintf("%s with another %s", name, fence), got.Err, engine.ErrUnavailable)
			if d := differences(before, dump(t, r.redis)); d != "" {
				t.Errorf("%s with another %s changed:\n%s", name, fence, d)
			}
			r.redis.HSet(ctx, r.e.Keys().Meta(0), fence, was)
		}
		if got := r.e.SendAt(1, r.at, op)[0]; got.Err != nil {
			t.Errorf("%s before an open door: %v", name, got.Err)
		}
	}
}

// At the cap of the backlog nothing that writes an event goes on, but what was done under a key is still answered.
func TestBacklog_AtItsCapRefusesEveryKindAndReplays(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{Hold: sequenceHold})
	ctx := context.Background()
	for _, name := range slices.Sorted(maps.Keys(everyKind(t, r))) {
		for _, done := range []bool{false, true} {
			operation := everyKind(t, r)[name]
			op := operation()
			if done {
				if got := r.e.SendAt(1, r.at, operation())[0]; got.Err != nil {
					t.Fatalf("%s: %v", name, got.Err)
				}
			}
			r.redis.HIncrBy(ctx, r.e.Keys().Meta(0), "bytes", 1<<30)
			before := dump(t, r.redis)
			got := r.e.SendAt(1, r.at, op)[0]
			keyless := name == "cart" || name == "take out" || name == "expire" || name == "list"
			switch {
			case done && !keyless:
				if got.Err != nil || !got.Replayed {
					t.Errorf("%s again, over the cap: %+v", name, got)
				}
			case !done:
				wantErr(t, name+" over the cap", got.Err, engine.ErrOverloaded)
			}
			if d := differences(before, dump(t, r.redis)); d != "" && (name != "list" || !done) {
				t.Errorf("%s over the cap (done %t) changed:\n%s", name, done, d)
			}
			if errors.Is(got.Err, engine.ErrCorrupt) {
				t.Errorf("%s: %v", name, got.Err)
			}
		}
	}
}

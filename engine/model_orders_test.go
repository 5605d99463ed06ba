package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"pgregory.net/rapid"

	"stampede/engine"
)

// modelOutcomes are what operations on orders and carts can end in.
var modelOutcomes = slices.Concat(
	sold("place", "done", engine.ErrInsufficientBalance.Error()),
	sold("place later", "done"),
	ended("pay", "done", "replay", engine.ErrInsufficientBalance.Error(), engine.ErrKeyReused.Error(), engine.ErrOrderNotFound.Error(), engine.ErrNotPayable.Error()),
	ended("cancel", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrOrderNotFound.Error(), engine.ErrNotCancelable.Error()),
	ended("cancel by an admin", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrOrderNotFound.Error(), engine.ErrNotCancelable.Error()),
	ended("add to cart", "done", engine.ErrUserNotFound.Error(), engine.ErrProductNotFound.Error(), engine.ErrCartFull.Error()),
	ended("add to cart once", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrProductNotFound.Error(), engine.ErrCartFull.Error()),
	ended("order cart", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrCartEmpty.Error(), engine.ErrOutOfStock.Error()),
	ended("expire", "done"), ended("top", "done", "several", "a tie"),
)

func idBytes(id int64) string { return string(binary.BigEndian.AppendUint64(nil, uint64(id))) }

func describe(o engine.Order) string { return fmt.Sprintf("%+v", o) }

func (g *game) place(t *rapid.T) {
	r := engine.PlaceRequest{UserID: oneOf(t, g.users, "user"), Key: drawKey(t), Later: rapid.Bool().Draw(t, "later")}
	for range rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "lines") {
		r.Lines = append(r.Lines, engine.Line{
			ProductID: oneOf(t, g.products, "product"), Quantity: rapid.Int64Range(1, 4).Draw(t, "quantity"),
		})
	}
	g.do(t, func(t *rapid.T) { g.doPlace(t, r) })
}

func (g *game) doPlace(t *rapid.T, r engine.PlaceRequest) {
	name := "place"
	if r.Later {
		name = "place later"
	}
	at, request := scopedKey{r.UserID, r.Key}, fmt.Sprintf("%s %v", name, r.Lines)
	want, replayed, wantErr := g.m.known(at, request)
	merged, total := merge(r.Lines), int64(0)
	if wantErr == nil && !replayed {
		total, wantErr = g.m.judgeOrder(r.UserID, merged, r.Later)
	}
	begin := g.now()
	got, gotReplayed, err := g.e.Place(context.Background(), r)
	same(t, name, err, wantErr)
	g.meet(name, replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		g.wantTime(t, name, got.CreatedAt, begin)
		want = g.apply(r.UserID, merged, total, r.Later, got)
		g.m.records[at] = record{request, want}
	}
	if gotReplayed != replayed || describe(got) != describe(want.(engine.Order)) {
		t.Fatalf("%s: %s, replayed %t; the model says %s, %t", name, describe(got), gotReplayed, describe(want.(engine.Order)), replayed)
	}
}

// wantTime checks a time that the shop chose: between a moment and now, in ms, by a clock that a sale behind a seen
// minute may be ahead of.
func (g *game) wantTime(t *rapid.T, what string, at, begin time.Time) {
	t.Helper()
	if at.Before(begin.Add(-3*time.Millisecond)) || at.After(g.now().Add(2*time.Millisecond)) {
		t.Fatalf("%s: at %v, it was %v to %v", what, at, begin, g.now())
	}
}

// apply makes the order in the model; its id and time are the shop's to choose.
func (g *game) apply(user int64, merged []engine.Line, total int64, later bool, got engine.Order) engine.Order {
	order := engine.Order{
		ID: got.ID, UserID: user, Status: engine.Pending, Total: total, CreatedAt: got.CreatedAt,
		History: []engine.Step{{Status: engine.Pending, At: got.CreatedAt}},
	}
	for _, l := range merged {
		order.Items = append(order.Items, engine.Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: g.m.prices[l.ProductID]})
	}
	g.moveStock(&order, -1)
	if later {
		order.ExpiresAt = order.CreatedAt.Add(turnedHold)
	} else {
		order.Status = engine.Success
		order.History = append(order.History, engine.Step{Status: engine.Success, At: got.CreatedAt})
		g.m.balances[user] -= total
	}
	g.m.orders[order.ID] = order
	return order
}

func (g *game) moveStock(o *engine.Order, sign int64) {
	for _, i := range o.Items {
		g.m.stocks[i.ProductID] += sign * i.Quantity
	}
}

// step brings an order of the model into a state, at the time that the shop says.
func (g *game) step(id int64, status engine.Status, reason string, at time.Time) engine.Order {
	o := g.m.orders[id]
	o.Status = status
	o.History = append(slices.Clone(o.History), engine.Step{Status: status, Reason: reason, At: at})
	g.m.orders[id] = o
	return o
}

// settle waits for the sweeper, where holds are due, and leaves a distance to the next deadline.
func (g *game) settle(t *rapid.T) {
	const distance = 300 * time.Millisecond
	for id, o := range g.m.orders {
		if o.Status != engine.Pending {
			continue
		}
		if left := o.ExpiresAt.Sub(g.now()); left > distance {
			continue
		} else if left > 0 {
			time.Sleep(left)
		}
		var got engine.Order
		await(t, "the end of a hold", func() bool {
			var err error
			if got, err = g.e.Order(context.Background(), id, o.UserID); err != nil {
				t.Fatal(err)
			}
			return got.Status != engine.Pending
		})
		g.wantTime(t, "expiry", got.UpdatedAt(), o.ExpiresAt)
		o = g.step(id, engine.Expired, "not paid by its deadline", got.UpdatedAt())
		g.moveStock(&o, 1)
		if describe(got) != describe(o) {
			t.Fatalf("expired: %s, the model says %s", describe(got), describe(o))
		}
		g.meet("expire", false, nil)
	}
}

// drawOrder draws an order, mostly one that may take a step, and mostly its buyer.
func (g *game) drawOrder(t *rapid.T, may ...engine.Status) (id, user int64) {
	ids := slices.Sorted(maps.Keys(g.m.orders))
	able := slices.DeleteFunc(slices.Clone(ids), func(id int64) bool { return !slices.Contains(may, g.m.orders[id].Status) })
	if len(able) > 0 && rapid.IntRange(0, 2).Draw(t, "able") > 0 {
		ids = able
	}
	if len(ids) == 0 || rapid.IntRange(0, 11).Draw(t, "unknown order") == 11 {
		return rapid.SampledFrom([]int64{1, math.MaxInt64}).Draw(t, "order"), oneOf(t, g.users, "user")
	}
	id = rapid.SampledFrom(ids).Draw(t, "order")
	if rapid.IntRange(0, 9).Draw(t, "stranger") == 9 {
		return id, oneOf(t, g.users, "user")
	}
	return id, g.m.orders[id].UserID
}

func (g *game) pay(t *rapid.T) {
	r := engine.PayRequest{Key: drawKey(t)}
	r.OrderID, r.UserID = g.drawOrder(t, engine.Pending)
	g.do(t, func(t *rapid.T) { g.doPay(t, r) })
}

func (g *game) doPay(t *rapid.T, r engine.PayRequest) {
	at, request := scopedKey{r.UserID, r.Key}, fmt.Sprint("pay ", r.OrderID)
	answer, replayed, wantErr := g.m.known(at, request)
	o, found := g.m.orders[r.OrderID]
	if wantErr == nil && !replayed {
		switch {
		case !found || o.UserID != r.UserID:
			wantErr = engine.ErrOrderNotFound
		case o.Status != engine.Pending:
			wantErr = &engine.Refusal{Reason: engine.ErrNotPayable, Status: o.Status}
		}
	}
	begin := g.now()
	got, gotReplayed, err := g.e.Pay(context.Background(), r)
	var refusal *engine.Refusal
	if wantErr == nil && !replayed {
		if errors.As(err, &refusal) && refusal.Order != nil {
			got = *refusal.Order
		}
		g.wantTime(t, "pay", got.UpdatedAt(), begin)
		answer = g.applyPayment(r.OrderID, got.UpdatedAt())
		g.m.records[at] = record{request, answer}
	}
	if wantErr == nil {
		o = answer.(payment).order
		if wantErr = answer.(payment).err(); errors.As(err, &refusal) && refusal.Order != nil {
			got = *refusal.Order
		}
		if describe(got) != describe(o) || gotReplayed != replayed {
			t.Fatalf("pay: %s, replayed %t; the model says %s, %t", describe(got), gotReplayed, describe(o), replayed)
		}
	}
	same(t, "pay", err, wantErr)
	g.meet("pay", replayed, err)
}

// payment is the answer to one.
type payment struct {
	order   engine.Order
	balance int64
}

func (p payment) err() error {
	if p.order.Status == engine.Failed {
		return &engine.Refusal{Reason: engine.ErrInsufficientBalance, Balance: p.balance, Order: &p.order}
	}
	return nil
}

func (g *game) applyPayment(id int64, at time.Time) payment {
	o := g.m.orders[id]
	balance := g.m.balances[o.UserID]
	if balance < o.Total {
		o = g.step(id, engine.Failed, "insufficient_balance", at)
		g.moveStock(&o, 1)
		return payment{o, balance}
	}
	g.m.balances[o.UserID] -= o.Total
	return payment{g.step(id, engine.Success, "", at), balance - o.Total}
}

func (g *game) cancel(t *rapid.T) {
	r := engine.CancelRequest{
		Admin: rapid.Bool().Draw(t, "admin"), Reason: rapid.SampledFrom([]string{"", "changed my mind", "ж"}).Draw(t, "reason"), Key: drawKey(t),
	}
	if r.OrderID, r.UserID = g.drawOrder(t, engine.Pending, engine.Success); r.Admin {
		r.Key = g.admin + rapid.SampledFrom([]string{"a", "b", "k", "l", "m", "n", "o"}).Draw(t, "key of the admins")
		if rapid.IntRange(0, 3).Draw(t, "of whom") < 3 {
			r.UserID = 0 // whoever it is
		}
	}
	g.do(t, func(t *rapid.T) { g.doCancel(t, r) })
}

func (g *game) doCancel(t *rapid.T, r engine.CancelRequest) {
	name, scope, reason := "cancel", r.UserID, "canceled by the buyer"
	if r.Admin {
		name, scope, reason = "cancel by an admin", 0, "canceled by an admin"
	}
	if r.Reason != "" {
		reason = r.Reason
	}
	at, request := scopedKey{scope, r.Key}, fmt.Sprintf("cancel %d of %d: %s", r.OrderID, r.UserID, r.Reason)
	answer, replayed, wantErr := g.m.known(at, request)
	o, found := g.m.orders[r.OrderID]
	var status engine.Status
	if wantErr == nil && !replayed {
		status, wantErr = g.judgeCancel(o, found, r)
	}
	begin := g.now()
	got, gotReplayed, err := g.e.Cancel(context.Background(), r)
	same(t, name, err, wantErr)
	g.meet(name, replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		g.wantTime(t, name, got.UpdatedAt(), begin)
		o = g.step(r.OrderID, status, reason, got.UpdatedAt())
		g.moveStock(&o, 1)
		if status == engine.Refunded {
			g.m.balances[o.UserID] += o.Total
		}
		answer = o
		g.m.records[at] = record{request, answer}
	}
	if describe(got) != describe(answer.(engine.Order)) || gotReplayed != replayed {
		t.Fatalf("%s: %s, replayed %t; the model says %s, %t", name, describe(got), gotReplayed, describe(answer.(engine.Order)), replayed)
	}
}

func (g *game) judgeCancel(o engine.Order, found bool, r engine.CancelRequest) (engine.Status, error) {
	switch {
	case !found || (o.UserID != r.UserID && r.UserID != 0):
		return 0, engine.ErrOrderNotFound
	case o.Status == engine.Pending:
		return engine.Canceled, nil
	case o.Status == engine.Success && (r.Admin || g.now().Sub(soldAt(&o)) <= turnedRefund):
		if balance := g.m.balances[o.UserID]; balance+o.Total > engine.BalanceMax {
			return 0, &engine.Refusal{Reason: engine.ErrBalanceLimit, Balance: balance}
		}
		return engine.Refunded, nil
	}
	return 0, &engine.Refusal{Reason: engine.ErrNotCancelable, Status: o.Status}
}

func soldAt(o *engine.Order) time.Time {
	for _, s := range o.History {
		if s.Status == engine.Success {
			return s.At
		}
	}
	return time.Time{}
}

func (g *game) read(t *rapid.T) {
	if len(g.m.orders) == 0 {
		t.Skip("no orders")
	}
	g.readOrder(t, g.m.orders[rapid.SampledFrom(slices.Sorted(maps.Keys(g.m.orders))).Draw(t, "order")])
}

func (g *game) readOrder(t *rapid.T, want engine.Order) {
	ctx := context.Background()
	for _, user := range []int64{want.UserID, 0} {
		got, err := g.e.Order(ctx, want.ID, user)
		if err != nil || describe(got) != describe(want) {
			t.Fatalf("order read: %s (%v), the model says %s", describe(got), err, describe(want))
		}
	}
	for _, stranger := range g.users {
		if stranger == want.UserID {
			continue
		}
		_, err := g.e.Order(ctx, want.ID, stranger)
		same(t, "order of another", err, engine.ErrOrderNotFound)
	}
}

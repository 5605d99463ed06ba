package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/engine"
)

// Order states follow the machine (invariant 10), exactly by the clock, and what is refused changes nothing (invariant 6).

// legal is the machine: nothing else may follow.
var legal = map[engine.Status][]engine.Status{
	engine.Pending: {engine.Success, engine.Failed, engine.Canceled, engine.Expired},
	engine.Success: {engine.Refunded},
}

// machine is a room in which orders take steps at times that stand still.
type machine struct {
	*room
	orders []int64
	calls  int
	met    map[string]int
}

const (
	machineBuyer    = 1 // rich
	machineBeggar   = 2
	machineStranger = 3
)

func (m *machine) begin(t *rapid.T) {
	m.empty(t)
	m.at, m.orders = sequenceStart, nil
	m.fund(t, 100_000, 7, 0)
	m.stock(t, listing(1, 5, 10_000), listing(2, 1, 10_000))
}

func (m *machine) order(t *rapid.T, id int64) engine.Order {
	t.Helper()
	record, err := m.redis.Get(context.Background(), m.e.Keys().Order(0, id)).Result()
	if err != nil {
		t.Fatal(err)
	}
	o, err := engine.DecodeOrder(id, record)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func (m *machine) number(t *rapid.T, key string) int64 {
	t.Helper()
	n, err := m.redis.Get(context.Background(), key).Int64()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (m *machine) place(t *rapid.T) {
	m.calls++
	r := engine.PlaceRequest{
		UserID: rapid.SampledFrom([]int64{machineBuyer, machineBuyer, machineBeggar}).Draw(t, "user"), Later: rapid.IntRange(0, 3).Draw(t, "later") > 0,
		Lines: lines(1, 1, 2, rapid.Int64Range(1, 3).Draw(t, "units")), Key: fmt.Sprint("place ", m.calls),
	}
	got := m.e.SendAt(1, m.at, m.e.PlaceOp(r))[0]
	if got.Err == nil {
		m.orders = append(m.orders, got.RefID)
	}
}

func (m *machine) turn(t *rapid.T) {
	m.at = m.at.Add(rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Minute, time.Hour}).Draw(t, "by"))
	if len(m.orders) == 0 || rapid.Bool().Draw(t, "somewhere") {
		return
	}
	o := m.order(t, rapid.SampledFrom(m.orders).Draw(t, "order"))
	to := o.ExpiresAt
	if o.Status == engine.Success {
		to = o.UpdatedAt().Add(sequenceRefund)
	}
	if to = to.Add(rapid.SampledFrom([]time.Duration{-time.Millisecond, 0, time.Millisecond}).Draw(t, "side")); to.After(m.at) {
		m.at = to
	}
}

// step is a wish for one.
func (m *machine) step(t *rapid.T) {
	if len(m.orders) == 0 {
		t.Skip("no orders")
	}
	m.calls++
	before := m.order(t, rapid.SampledFrom(m.orders).Draw(t, "order"))
	user, key := before.UserID, fmt.Sprint("step ", m.calls)
	if rapid.IntRange(0, 7).Draw(t, "stranger") == 7 {
		user = machineStranger
	}
	wish := rapid.SampledFrom([]string{"pay", "cancel", "admin", "expire"}).Draw(t, "wish")
	var op *engine.Op
	switch wish {
	case "pay":
		op = m.e.PayOp(engine.PayRequest{UserID: user, OrderID: before.ID, Key: key}, before.Items)
	case "cancel", "admin":
		r := engine.CancelRequest{UserID: user, OrderID: before.ID, Key: key, Reason: "a reason", Admin: wish == "admin"}
		op = m.e.CancelOp(r, before, nil)
	case "expire":
		read := before
		read.UserID = user
		op = m.e.ExpireOp(read)
	}
	m.judge(t, wish, user, before, op)
}

func (m *machine) judge(t *rapid.T, wish string, user int64, before engine.Order, op *engine.Op) {
	k := m.e.Keys()
	was, balance := dump(t, m.redis), m.number(t, k.Balance(0, before.UserID))
	stock := m.number(t, k.Stock(0, 1))
	status, reason, refusal := m.want(wish, user, before, balance)
	got := m.e.SendAt(1, m.at, op)[0]
	if refusal != nil {
		var r *engine.Refusal
		if !errors.Is(got.Err, refusal) || (errors.As(got.Err, &r) && r.Status != 0 && r.Status != before.Status) {
			t.Fatalf("%s of %+v at %v: %+v, want %v", wish, before, m.at, got, refusal)
		}
		if d := differences(was, dump(t, m.redis)); d != "" {
			t.Fatalf("%s of %+v at %v was refused, and changed:\n%s", wish, before, m.at, d)
		}
		m.met[wish+": "+refusal.Error()]++
		return
	}
	want := before
	want.Status = status
	want.History = append(slices.Clone(before.History), engine.Step{Status: status, Reason: reason, At: m.at})
	if got.Err != nil || !got.Order.Equal(&want) {
		t.Fatalf("%s of %+v at %v: %+v, want %+v", wish, before, m.at, got, want)
	}
	if after := m.order(t, before.ID); !after.Equal(&want) || !slices.Contains(legal[before.Status], status) {
		t.Fatalf("%s: %+v stands after %+v", wish, after, before)
	}
	m.met[wish+": "+status.String()]++
	switch status {
	case engine.Success:
		balance -= before.Total
	case engine.Refunded:
		balance += before.Total
		stock++
	default:
		stock++
	}
	if now := m.number(t, k.Balance(0, before.UserID)); now != balance {
		t.Fatalf("%s: balance %d, want %d", wish, now, balance)
	}
	if now := m.number(t, k.Stock(0, 1)); now != stock {
		t.Fatalf("%s: stock %d, want %d", wish, now, stock)
	}
}

// want says what must come of a wish, in the plainest way.
func (m *machine) want(wish string, user int64, o engine.Order, balance int64) (status engine.Status, reason string, refusal error) {
	held := o.Status == engine.Pending && m.at.Before(o.ExpiresAt)
	switch {
	case user != o.UserID:
		return 0, "", engine.ErrOrderNotFound
	case wish == "pay" && held && balance >= o.Total:
		return engine.Success, "", nil
	case wish == "pay" && held:
		return engine.Failed, "insufficient_balance", nil
	case wish == "pay":
		return 0, "", engine.ErrNotPayable
	case wish == "expire" && o.Status == engine.Pending && !held:
		return engine.Expired, "not paid by its deadline", nil
	case wish == "expire":
		return 0, "", engine.ErrHoldNotDue
	case held:
		return engine.Canceled, "a reason", nil
	case o.Status == engine.Success && (wish == "admin" || !m.at.After(o.UpdatedAt().Add(sequenceRefund))):
		return engine.Refunded, "a reason", nil
	}
	return 0, "", engine.ErrNotCancelable
}

func TestOrder_TakesOnlyLegalStepsAndRefusalsChangeNothing(t *testing.T) {
	m := &machine{
		room: lab.open(t).room(t, 0, engine.Config{Hold: sequenceHold, RefundWindow: sequenceRefund, IdempotencyTTL: 10_000 * time.Hour}),
		met:  map[string]int{},
	}
	rapid.Check(t, func(t *rapid.T) {
		m.begin(t)
		m.place(t)
		t.Repeat(map[string]func(*rapid.T){
			"place": m.place, "turn": m.turn, "step": m.step, "step again": m.step, "step once more": m.step,
		})
		m.conserved(t)
	})
	t.Logf("met: %v", m.met)
	for wish, all := range map[string][]string{
		"pay":    {"SUCCESS", "FAILED", engine.ErrNotPayable.Error(), engine.ErrOrderNotFound.Error()},
		"cancel": {"CANCELED", "REFUNDED", engine.ErrNotCancelable.Error(), engine.ErrOrderNotFound.Error()},
		"admin":  {"CANCELED", "REFUNDED", engine.ErrNotCancelable.Error(), engine.ErrOrderNotFound.Error()},
		"expire": {"EXPIRED", engine.ErrHoldNotDue.Error(), engine.ErrOrderNotFound.Error()},
	} {
		wantMet(t, m.met, ended(wish, all...))
	}
}

// conserved checks money, stock and holds against the orders.
func (m *machine) conserved(t *rapid.T) {
	k := m.e.Keys()
	funds, stock, pending := int64(100_000+7), int64(10_000), int64(0)
	for _, id := range m.orders {
		o := m.order(t, id)
		switch o.Status {
		case engine.Success:
			funds -= o.Total
			stock--
		case engine.Pending:
			stock--
			pending++
		}
		for i, s := range o.History[1:] {
			if !slices.Contains(legal[o.History[i].Status], s.Status) || s.At.Before(o.History[i].At) {
				t.Fatalf("history of %+v", o)
			}
		}
	}
	if got := m.number(t, k.Balance(0, machineBuyer)) + m.number(t, k.Balance(0, machineBeggar)); got != funds {
		t.Fatalf("balances of %d, want %d", got, funds)
	}
	if got := m.number(t, k.Stock(0, 1)); got != stock {
		t.Fatalf("stock %d, want %d", got, stock)
	}
	if got := m.redis.ZCard(context.Background(), k.Holds(0)).Val(); got != pending {
		t.Fatalf("%d holds, want %d", got, pending)
	}
}

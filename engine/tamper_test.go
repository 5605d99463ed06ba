package engine_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// soldKeys are the hashes of the minutes that a call now may find.
func soldKeys(s *shoptest.Shop) []string {
	minute := time.Now().Unix() / 60
	return []string{s.Engine.Keys().Sold(0, minute), s.Engine.Keys().Sold(0, minute+1)}
}

func TestCall_ScriptThatFailsForOneOrderSparesItsNeighbours(t *testing.T) {
	s := single.open(t)
	e, ctx := s.Engine, context.Background()
	user, good, bad := s.User(1000), s.Product(1, 100), s.Product(1, 100)
	taken := mustPlace(t, e, user, "before", lines(good, 1))
	for _, key := range soldKeys(s) {
		if err := s.Redis.HSet(ctx, key, bad, "not a number").Err(); err != nil {
			t.Fatal(err)
		}
		defer s.Redis.HDel(ctx, key, strconv.FormatInt(bad, 10))
	}
	from := position(t, e, 0)

	place := func(key string, l []engine.Line) *engine.Op {
		return e.PlaceOp(engine.PlaceRequest{UserID: user, Key: key, Lines: l})
	}
	again := place("an id that is taken", lines(good, 1))
	again.SetID(taken.ID)
	got := e.Send(from.Epoch,
		place("one", lines(good, 1)),
		place("corrupt", lines(good, 1, bad, 1)),
		place("second", lines(good, 2)),
		again,
		place("one", lines(good, 1)),
		place("third", lines(good, 1000)),
	)
	for i, want := range []error{nil, engine.ErrCorrupt, nil, engine.ErrCorrupt, nil, engine.ErrOutOfStock} {
		wantErr(t, fmt.Sprintf("operation %d", i), got[i].Err, want)
	}
	if !got[4].Replayed || got[4].RefID != got[0].RefID {
		t.Errorf("the retry within the batch is no replay: %+v", got[4])
	}
	wantStock(t, e, good, 100-1-3)
	wantStock(t, e, bad, 100)
	wantBalance(t, e, user, 1000-1-3)
	if stored, err := e.Order(ctx, taken.ID, user); err != nil || describe(stored) != describe(taken) {
		t.Errorf("the order whose id was used again: %s, %v", describe(stored), err)
	}
	if events := eventsOf(t, entriesAfter(t, s, 0, from)); len(events) != 2 {
		t.Errorf("%d events, want 2", len(events))
	}
}

func TestCall_ScriptThatFailsForOneChargeOrRestockSparesItsNeighbours(t *testing.T) {
	s := single.open(t)
	e, ctx := s.Engine, context.Background()
	epoch := e.KnownEpoch(0)
	// A record with the right fingerprint, and then bytes that msgpack does not know, or none.
	for what, rest := range map[string]string{"unreadable": "\xc1", "cut short": ""} {
		user, other, product := s.User(0), s.User(0), s.Product(1, 100)
		charge := func(user, amount int64, key string) *engine.Op {
			return e.ChargeOp(engine.ChargeRequest{UserID: user, Amount: amount, Key: key})
		}
		restock := func(delta int64, key string) *engine.Op {
			return e.RestockOp(engine.RestockRequest{ProductID: product, Delta: delta, Key: fmt.Sprintf("%s of %d", key, product)})
		}
		e.Send(epoch, charge(user, 5, "corrupt"))
		e.Send(epoch, restock(1, "corrupt"))
		for key, answer := range map[string]int{
			e.Keys().Idempotency(0, user, "corrupt"):                          16 + 8,
			e.Keys().Idempotency(0, 0, fmt.Sprintf("corrupt of %d", product)): 16,
		} {
			record := s.Redis.Get(ctx, key).Val()
			if err := s.Redis.Set(ctx, key, record[:answer]+rest, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
		}
		for name, got := range map[string][]engine.Outcome{
			"charge":  e.Send(epoch, charge(other, 1, "a"), charge(user, 5, "corrupt"), charge(other, 2, "b"), charge(other, 3, "c"), charge(other, 1, "a")),
			"restock": e.Send(epoch, restock(1, "a"), restock(1, "corrupt"), restock(-100, "b"), restock(1, "c"), restock(1, "a")),
		} {
			for i, want := range []error{nil, engine.ErrCorrupt, nil, nil, nil} {
				wantErr(t, fmt.Sprintf("record %s: %s %d", what, name, i), got[i].Err, want)
			}
			if !got[4].Replayed || got[4].After != got[0].After {
				t.Errorf("record %s: %s: the retry within the batch is no replay: %+v", what, name, got[4])
			}
		}
		wantBalance(t, e, user, 5)
		wantBalance(t, e, other, 6)
		wantStock(t, e, product, 100+1+1-100+1)
	}
}

func TestCall_KeyOfAnotherTypeFailsBeforeAnythingChanges(t *testing.T) {
	s := single.open(t)
	e, ctx := s.Engine, context.Background()
	user, product := s.User(1000), s.Product(1, 100)
	from := position(t, e, 0)
	for i, key := range soldKeys(s) {
		aside := fmt.Sprintf("%s aside %d", key, i)
		moved := s.Redis.Rename(ctx, key, aside).Err() == nil
		if err := s.Redis.Set(ctx, key, "no hash", 0).Err(); err != nil {
			t.Fatal(err)
		}
		defer func() {
			s.Redis.Del(ctx, key)
			if moved {
				s.Redis.Rename(ctx, aside, key)
			}
		}()
	}
	_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "key", Lines: lines(product, 1)})
	wantErr(t, "order in a minute that is no hash", err, engine.ErrCorrupt)
	wantStock(t, e, product, 100)
	wantBalance(t, e, user, 1000)
	if now := position(t, e, 0); now != from {
		t.Errorf("events moved from %v to %v", from, now)
	}
	mustCharge(t, e, user, 1, "charges go on")
}

// An order that an idempotency record names and that is gone is no order that was never there: the buyer must not
// read "not found", or "not done", about an order that was placed. Where the books have it, it is answered from there.
func TestPlace_ReplayOfAnOrderThatIsGone(t *testing.T) {
	replay := func(s *shoptest.Shop) (was, is engine.Order, err error) {
		e, ctx := s.Engine, context.Background()
		user, product := s.User(100), s.Product(1, 100)
		was = mustPlace(t, e, user, "key", lines(product, 1))
		if s.Writer != nil {
			s.Written()
		}
		key := e.Keys().Order(0, was.ID)
		record := s.Redis.Get(ctx, key).Val()
		if err := s.Redis.Del(ctx, key).Err(); err != nil {
			t.Fatal(err)
		}
		is, _, err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "key", Lines: lines(product, 1)})
		if err := s.Redis.Set(ctx, key, record, 0).Err(); err != nil {
			t.Fatal(err)
		}
		return was, is, err
	}
	_, _, err := replay(bare.open(t))
	wantErr(t, "replay of an order that is in no books", err, engine.ErrCorrupt)
	was, is, err := replay(single.open(t))
	if err != nil || describe(is) != describe(was) {
		t.Errorf("replay of an order that the books hold: %s, %v, want %s", describe(is), err, describe(was))
	}
}

func TestCall_CatalogueRecordOfAnotherTypeSparesTheOtherOrders(t *testing.T) {
	s := single.open(t)
	e, ctx := s.Engine, context.Background()
	user, good, bad := s.User(1000), s.Product(1, 100), s.Product(1, 100)
	key := e.Keys().Catalogue(0, bad)
	record := s.Redis.Get(ctx, key).Val()
	s.Redis.Del(ctx, key)
	if err := s.Redis.LPush(ctx, key, "no record").Err(); err != nil {
		t.Fatal(err)
	}
	var ops []*engine.Op
	for i := range 3 {
		l := lines(good, 1)
		if i == 1 {
			l = lines(good, 1, bad, 1)
		}
		ops = append(ops, e.PlaceOp(engine.PlaceRequest{UserID: user, Key: strconv.Itoa(i), Lines: l}))
	}
	got := e.Send(e.KnownEpoch(0), ops...)
	if err := s.Redis.Set(ctx, key, record, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got[0].Err != nil || got[1].Err == nil || got[2].Err != nil {
		t.Errorf("%+v", got)
	}
	wantStock(t, e, good, 98)
	wantStock(t, e, bad, 100)
	wantBalance(t, e, user, 998)
}

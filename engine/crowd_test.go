package engine_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/engine"
)

// inCrowd does something anew until units have come from other partitions, which a crowd may keep waiting.
func inCrowd(do func() error) error {
	for end := time.Now().Add(patience); ; {
		if err := do(); !errors.Is(err, engine.ErrElsewhere) || time.Now().After(end) {
			return err
		}
	}
}

// placeInCrowd places a new order.
func placeInCrowd(e *engine.Engine, r engine.PlaceRequest) (order engine.Order, err error) {
	err = inCrowd(func() (err error) {
		var replayed bool
		if order, replayed, err = e.Place(context.Background(), r); replayed {
			err = errors.New("a replay")
		}
		return err
	})
	return order, err
}

func TestPlace_CrowdBuysExactlyWhatThereIs(t *testing.T) {
	s := common.open(t)
	e, from := s.Engine, positions(t, s.Engine)
	const buyers, attempts, units, price = 200, 10_000, 500, 3
	product := s.Product(price, units)
	users := make([]int64, buyers)
	for i := range users {
		users[i] = s.User(attempts * price)
	}

	var sold, refused atomic.Int64
	bought := make([]int64, buyers)
	var ids sync.Map
	var group sync.WaitGroup
	for b, user := range users {
		group.Go(func() {
			for i := range attempts / buyers {
				order, err := placeInCrowd(e, engine.PlaceRequest{
					UserID: user, Key: fmt.Sprint("attempt ", i), Lines: lines(product, 1),
				})
				var refusal *engine.Refusal
				switch {
				case err == nil:
					sold.Add(1)
					bought[b]++
					if _, twice := ids.LoadOrStore(order.ID, true); twice {
						t.Errorf("order %d was given twice", order.ID)
					}
				case errors.As(err, &refusal) && *refusal == engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: product}:
					refused.Add(1)
				default:
					t.Errorf("attempt %d of buyer %d: %+v", i, b, err)
				}
			}
		})
	}
	group.Wait()

	if sold.Load() != units || refused.Load() != attempts-units {
		t.Errorf("%d sold and %d refused, want %d and %d", sold.Load(), refused.Load(), units, attempts-units)
	}
	wantStock(t, e, product, 0)
	if units := soldOf(t, s, product); units != sold.Load() {
		t.Errorf("the minutes count %d units sold, %d were", units, sold.Load())
	}
	for b, user := range users {
		wantBalance(t, e, user, price*(attempts-bought[b]))
	}
	wantFold(t, s, from)
}

func TestPlace_KeyUsedAtOnceByAHundredHasOneEffect(t *testing.T) {
	s := common.open(t)
	e, ctx := s.Engine, context.Background()
	user, product := s.User(1000), s.Product(7, 50)
	from := positions(t, e)

	const callers = 100
	orders, replays := make([]engine.Order, callers), make([]bool, callers)
	var group sync.WaitGroup
	for i := range callers {
		group.Go(func() {
			var err error
			orders[i], replays[i], err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "one key", Lines: lines(product, 2)})
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	group.Wait()

	firsts := 0
	for i := range orders {
		if describe(orders[i]) != describe(orders[0]) {
			t.Fatalf("two answers:\n%s\n%s", describe(orders[0]), describe(orders[i]))
		}
		if !replays[i] {
			firsts++
		}
	}
	if firsts != 1 {
		t.Errorf("%d answers are no replays, want 1", firsts)
	}
	wantBalance(t, e, user, 1000-14)
	wantStock(t, e, product, 48)
	if events := changesAfter(t, s, from); len(events) != 1 {
		t.Errorf("%d events, want 1", len(events))
	}
}

func TestCharge_KeyUsedAtOnceByAHundredHasOneEffect(t *testing.T) {
	s := common.open(t)
	user := s.User(0)
	answers := make([]engine.Charged, 100)
	var group sync.WaitGroup
	for i := range answers {
		group.Go(func() {
			var err error
			answers[i], _, err = s.Engine.Charge(context.Background(), engine.ChargeRequest{UserID: user, Amount: 9, Key: "one key"})
			if err != nil {
				t.Errorf("caller %d: %v", i, err)
			}
		})
	}
	group.Wait()
	for _, a := range answers {
		if a != answers[0] {
			t.Fatalf("two answers: %+v, %+v", answers[0], a)
		}
	}
	wantBalance(t, s.Engine, user, 9)
}

func TestPlace_KeyWithAnotherRequestIsRefused(t *testing.T) {
	s := common.open(t)
	e, ctx := s.Engine, context.Background()
	user, product, other := s.User(1000), s.Product(7, 50), s.Product(7, 50)
	first := mustPlace(t, e, user, "key", lines(product, 2, other, 1))
	from := positions(t, e)
	for name, l := range map[string][]engine.Line{
		"another quantity":    lines(product, 3, other, 1),
		"another product":     lines(other, 2, product, 1),
		"a line less":         lines(product, 2),
		"a line more":         lines(product, 2, other, 1, other, 1),
		"what cannot be had":  lines(product, 51),
		"an unknown product":  lines(1<<40, 1),
		"the same, once more": lines(product, 2, other, 1),
	} {
		order, replayed, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "key", Lines: l})
		if name == "the same, once more" {
			if err != nil || !replayed || describe(order) != describe(first) {
				t.Errorf("%s: %s, %t, %v", name, describe(order), replayed, err)
			}
			continue
		}
		wantErr(t, name, err, engine.ErrKeyReused)
	}
	_, _, err := e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 5, Key: "key"})
	wantErr(t, "a charge under the key of an order", err, engine.ErrKeyReused)
	mustCharge(t, e, user, 5, "charge")
	_, _, err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "charge", Lines: lines(product, 1)})
	wantErr(t, "an order under the key of a charge", err, engine.ErrKeyReused)

	wantBalance(t, e, user, 1000-21+5)
	wantStock(t, e, product, 48)
	if events := changesAfter(t, s, from); len(events) != 1 {
		t.Errorf("%d events, want only that of the charge", len(events))
	}
}

func TestKey_OfAnotherUserIsAnotherKey(t *testing.T) {
	s := common.open(t)
	product := s.Product(7, 50)
	key := fmt.Sprint("key of ", product)
	seen := map[int64]bool{}
	for range 3 {
		user := s.User(100)
		order := mustPlace(t, s.Engine, user, key, lines(product, 1))
		if seen[order.ID] || order.UserID != user {
			t.Errorf("user %d got %s", user, describe(order))
		}
		seen[order.ID] = true
		wantBalance(t, s.Engine, user, 93)
	}
	// The admins' scope is one of its own too.
	_, replayed, err := s.Engine.Restock(context.Background(), engine.RestockRequest{ProductID: product, Delta: 1, Key: key})
	if err != nil || replayed {
		t.Errorf("restock under a buyer's key: replayed %t, %v", replayed, err)
	}
	wantStock(t, s.Engine, product, 48)
}

func TestPlace_RefusedStoresNothingAndIsJudgedAnew(t *testing.T) {
	s := common.open(t)
	e, ctx := s.Engine, context.Background()
	user, product := s.User(10), s.Product(7, 1)
	request := engine.PlaceRequest{UserID: user, Key: "key", Lines: lines(product, 2)}
	from := positions(t, e)

	_, _, err := e.Place(ctx, request)
	wantRefusal(t, "less left than asked", err, engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: product, Left: 1})
	if events := changesAfter(t, s, from); len(events) != 0 {
		t.Errorf("a refusal has events: %+v", events)
	}
	if n := s.Redis.Exists(ctx, e.Keys().Idempotency(e.Keys().OfUser(user), user, "key")).Val(); n != 0 {
		t.Error("a refusal was stored")
	}
	if _, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: 1, Key: fmt.Sprint("more of ", product)}); err != nil {
		t.Fatal(err)
	}
	_, _, err = e.Place(ctx, request)
	wantRefusal(t, "less balance than it costs", err, engine.Refusal{Reason: engine.ErrInsufficientBalance, Balance: 10})
	wantStock(t, e, product, 2)
	wantBalance(t, e, user, 10)
	mustCharge(t, e, user, 4, "charge")
	order, replayed, err := e.Place(ctx, request)
	if err != nil || replayed || order.Total != 14 {
		t.Fatalf("after charge and restock: %s, %t, %v", describe(order), replayed, err)
	}
	wantStock(t, e, product, 0)
	wantBalance(t, e, user, 0)
	// The key is looked up before anything is judged: what went through is never told "sold out".
	again, replayed, err := e.Place(ctx, request)
	if err != nil || !replayed || describe(again) != describe(order) {
		t.Errorf("again: %s, %t, %v", describe(again), replayed, err)
	}
}

func TestPlace_OfOneLineThatCannotBeHadTakesNothingOfTheOthers(t *testing.T) {
	s := common.open(t)
	user, there, scarce := s.User(1000), s.Product(1, 100), s.Product(1, 3)
	from := positions(t, s.Engine)
	_, _, err := s.Engine.Place(context.Background(), engine.PlaceRequest{UserID: user, Key: "key", Lines: lines(there, 5, scarce, 2, there, 5, scarce, 2)})
	wantRefusal(t, "four of three", err, engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: scarce, Left: 3})
	wantStock(t, s.Engine, there, 100)
	wantStock(t, s.Engine, scarce, 3)
	wantBalance(t, s.Engine, user, 1000)
	if events := changesAfter(t, s, from); len(events) != 0 {
		t.Errorf("a refusal has events: %+v", events)
	}
}

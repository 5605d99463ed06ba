package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/engine"
)

// Several orders placed together end as if each had been placed after the one before: with enough of everything none depends
// on another but by its key. Calls of one operation, four at a time and some much larger than others, would let equal keys
// overtake each other.
func TestPlaceEach_EqualsPlaceOneByOne(t *testing.T) {
	const buyers = 3
	r := lab.open(t).room(t, 0, engine.Config{BatchMax: 1, Workers: 4})
	r.fund(t, 1_000_000_000, 1_000_000_000, 10, 1_000_000_000, 1_000_000_000, 10) // the second three do the same as the first
	r.stock(t, listing(1, 20, engine.StockMax), listing(2, 30, engine.StockMax), listing(3, 1, 0))
	var large []engine.Line
	for p := int64(100); p < 100+engine.LinesMax; p++ {
		r.stock(t, listing(p, 1, engine.StockMax))
		large = append(large, engine.Line{ProductID: p, Quantity: 1})
	}
	e, ctx, round := r.run(t), context.Background(), 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		requests := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) engine.PlaceRequest {
			q := engine.PlaceRequest{
				UserID: rapid.SampledFrom([]int64{1, 1, 2, 2, 3, engine.IDMax + 1}).Draw(t, "user"),
				Key:    fmt.Sprint("round ", round, " key ", rapid.IntRange(1, 6).Draw(t, "key")),
				Lines: []engine.Line{{
					ProductID: rapid.SampledFrom([]int64{1, 1, 1, 2, 3, 99}).Draw(t, "product"),
					Quantity:  rapid.SampledFrom([]int64{1, 1, 1, 2, 0}).Draw(t, "quantity"),
				}},
			}
			if rapid.IntRange(0, 3).Draw(t, "size") == 0 {
				q.Lines = large
			}
			return q
		}), 0, 40).Draw(t, "requests")
		ends := e.PlaceEach(ctx, requests)
		if len(ends) != len(requests) {
			t.Fatalf("%d ends of %d requests", len(ends), len(requests))
		}
		for i, q := range requests {
			if q.UserID <= buyers {
				q.UserID += buyers
			}
			order, replayed, err := e.Place(ctx, q)
			end := ends[i]
			if end.Replayed != replayed || fmt.Sprint(end.Err) != fmt.Sprint(err) || (err == nil) != (end.Order.UserID == requests[i].UserID) ||
				fmt.Sprint(end.Order.Items, end.Order.Status, end.Order.Total) != fmt.Sprint(order.Items, order.Status, order.Total) {
				t.Fatalf("request %d, %+v: %+v together, %+v %t %v alone", i, requests[i], end, order, replayed, err)
			}
			for j := range i {
				if same := requests[j].UserID == requests[i].UserID && requests[j].Key == requests[i].Key; err == nil && ends[j].Err == nil && same != ends[j].Order.Equal(&end.Order) {
					t.Fatalf("requests %d and %d, %+v: %+v and %+v", j, i, requests[i], ends[j].Order, end.Order)
				}
			}
		}
		for user := int64(1); user <= buyers; user++ {
			together, err := e.Balance(ctx, user)
			if err != nil {
				t.Fatal(err)
			}
			if alone, err := e.Balance(ctx, user+buyers); err != nil || together != alone {
				t.Fatalf("balance %d together, %d (%v) alone", together, alone, err)
			}
		}
	})
}

func TestPlaceEach_BecomesFewCalls(t *testing.T) {
	const orders = 1000
	r := lab.open(t).room(t, 0, engine.Config{})
	r.fund(t, orders)
	r.stock(t, listing(1, 1, orders))
	e, before := r.run(t), r.calls(t, "evalsha")
	requests := make([]engine.PlaceRequest, orders)
	for i := range requests {
		requests[i] = engine.PlaceRequest{UserID: 1, Key: fmt.Sprint(i), Lines: lines(1, 1)}
	}
	for i, end := range e.PlaceEach(context.Background(), requests) {
		if end.Err != nil || end.Replayed {
			t.Errorf("order %d: %+v", i, end)
		}
	}
	if n := r.calls(t, "evalsha") - before; n > 50 {
		t.Errorf("%d calls for %d orders", n, orders)
	}
	if got := e.PlaceEach(context.Background(), []engine.PlaceRequest{{UserID: 1, Key: "later", Lines: lines(1, 1), Later: true}}); !errors.Is(got[0].Err, engine.ErrInvalid) {
		t.Errorf("an order to be paid later: %+v", got)
	}
	wantBalance(t, e, 1, 0)
	wantStock(t, e, 1, 0)
}

// A Redis that hangs is not waited for once an order, not even where each holds back the next; and what finds the queue full
// is refused at once. Asked again, every order has one outcome.
func TestPlaceEach_IsBounded(t *testing.T) {
	const timeout, orders, queue = 300 * time.Millisecond, 200, 100
	r := lab.open(t).room(t, 0, engine.Config{OperationTimeout: timeout, QueueMax: queue})
	r.fund(t, 2*orders)
	r.stock(t, listing(1, 1, 2*orders))
	e := r.run(t)
	var requests []engine.PlaceRequest
	for i := range orders {
		requests = append(requests,
			engine.PlaceRequest{UserID: 1, Key: "one", Lines: lines(1, 1)},
			engine.PlaceRequest{UserID: 1, Key: fmt.Sprint(i), Lines: lines(1, 1)})
	}
	thaw := freezeLab(t)
	begun, full := time.Now(), 0
	for i, end := range e.PlaceEach(context.Background(), requests) {
		if !errors.Is(end.Err, engine.ErrUnknown) && !errors.Is(end.Err, engine.ErrOverloaded) && !errors.Is(end.Err, engine.ErrUnavailable) {
			t.Errorf("request %d: %+v", i, end)
		}
		if errors.Is(end.Err, engine.ErrOverloaded) {
			full++
		}
	}
	if took := time.Since(begun); took > 6*timeout+time.Second || full == 0 {
		t.Errorf("%v until all were answered, %d found no room", took, full)
	}
	over, cancel := context.WithTimeout(context.Background(), timeout/10)
	begun = time.Now()
	for i, end := range e.PlaceEach(over, requests[:10]) {
		if end.Err == nil {
			t.Errorf("request %d: %+v", i, end)
		}
	}
	cancel()
	if took := time.Since(begun); took > timeout {
		t.Errorf("%v with a bound of %v", took, timeout/10)
	}
	thaw()
	awaitReady(t, e)
	placed := 0
	for range 100 {
		placed = 0
		for _, end := range e.PlaceEach(context.Background(), requests[:queue]) {
			if end.Err == nil {
				placed++
			}
		}
		if placed == queue {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	balance, err := e.Balance(context.Background(), 1)
	if stock, stockErr := e.Product(context.Background(), 1); err != nil || stockErr != nil || placed != queue || balance != stock.Stock || balance > 2*orders-queue/2-1 {
		t.Errorf("%d of %d placed in the end; balance %d, %v, product %+v, %v", placed, queue, balance, err, stock, stockErr)
	}
}

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// attempt is an order that a buyer of a load asked for, and what came of it.
type attempt struct {
	request engine.PlaceRequest
	order   engine.Order
	err     error
	ended   time.Time
	took    time.Duration
}

func (a *attempt) notDone() bool {
	return errors.Is(a.err, engine.ErrUnavailable) || errors.Is(a.err, engine.ErrOverloaded) || errors.Is(a.err, engine.ErrElsewhere)
}

// load is a number of buyers who order without a pause, each order under a key of its own.
type load struct {
	s        *shoptest.Shop
	e        *engine.Engine
	users    map[int64]int64 // with the balance they begin with
	products map[int64]int64 // with their stock at the beginning
	stop     chan struct{}
	buyers   sync.WaitGroup
	done     atomic.Int64 // orders placed so far

	mu       sync.Mutex
	attempts []attempt
}

const (
	loadFunds = 1_000_000
	loadStock = 100_000
)

func startLoad(s *shoptest.Shop, buyers int) *load {
	l := &load{s: s, e: s.Engine, users: map[int64]int64{}, products: map[int64]int64{}, stop: make(chan struct{})}
	var products []int64
	for i := range int64(4) {
		id := s.Product(1+i, loadStock)
		products, l.products[id] = append(products, id), loadStock
	}
	users := make([]int64, 8)
	for i := range users {
		users[i] = s.User(loadFunds)
		l.users[users[i]] = loadFunds
	}
	for b := range buyers {
		l.buyers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.try(engine.PlaceRequest{
					UserID: users[b%len(users)], Key: fmt.Sprintf("%d of buyer %d", i, b),
					Lines: lines(products[i%4], 1, products[b%4], 2),
				})
			}
		})
	}
	return l
}

func (l *load) try(r engine.PlaceRequest) {
	begin := time.Now()
	a := attempt{request: r}
	a.order, _, a.err = l.e.Place(context.Background(), r)
	a.ended = time.Now()
	a.took = a.ended.Sub(begin)
	if a.err == nil {
		l.done.Add(1)
	} else {
		time.Sleep(100 * time.Millisecond) // a buyer who is turned away takes a breath
	}
	l.mu.Lock()
	l.attempts = append(l.attempts, a)
	l.mu.Unlock()
}

// awaitOrders waits for n further orders.
func (l *load) awaitOrders(t *testing.T, n int64) {
	t.Helper()
	target := l.done.Load() + n
	await(t, "further orders", func() bool { return l.done.Load() >= target })
}

func (l *load) end() []attempt {
	close(l.stop)
	l.buyers.Wait()
	return l.attempts
}

// settle asks again, with the same key, for everything that the buyers asked for, and then proves the books: what was
// acknowledged stands, what was "not done" was not done, what was unknown has one outcome, and nothing else happened.
func (l *load) settle(t *testing.T) {
	t.Helper()
	var mu sync.Mutex
	orders := map[int64]engine.Order{}
	var group sync.WaitGroup
	for part := range slices.Chunk(l.attempts, (len(l.attempts)+63)/64) {
		group.Go(func() {
			for i := range part {
				order, ok := l.resolve(t, &part[i])
				mu.Lock()
				if _, twice := orders[order.ID]; ok && twice {
					t.Errorf("order %d answers two keys", order.ID)
				}
				orders[order.ID] = order
				mu.Unlock()
			}
		})
	}
	group.Wait()
	for _, o := range orders {
		l.users[o.UserID] -= o.Total
		for _, i := range o.Items {
			l.products[i.ProductID] -= i.Quantity
		}
	}
	for id, want := range l.users {
		wantBalance(t, l.e, id, want)
	}
	for id, want := range l.products {
		wantStock(t, l.e, id, want)
		if sold := soldOf(t, l.s, id); sold != loadStock-want {
			t.Errorf("the minutes count %d units of product %d sold, %d were", sold, id, loadStock-want)
		}
	}
}

// ask asks until the outcome is known. unknown tells that it was not, once: a busy machine may be slow.
func (l *load) ask(r engine.PlaceRequest) (order engine.Order, replayed, unknown bool, err error) {
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		order, replayed, err = l.e.Place(context.Background(), r)
		if !errors.Is(err, engine.ErrUnknown) || time.Now().After(end) {
			return order, replayed, unknown, err
		}
		unknown = true
	}
}

func (l *load) resolve(t *testing.T, a *attempt) (engine.Order, bool) {
	ctx := context.Background()
	order, replayed, unknown, err := l.ask(a.request)
	switch {
	case err != nil:
		t.Errorf("%q of user %d, first %v, asked again: %v", a.request.Key, a.request.UserID, a.err, err)
		return order, false
	case a.err == nil && (!replayed || describe(order) != describe(a.order)):
		t.Errorf("an acknowledged order was lost or changed:\n%s\n%s, replay %t", describe(a.order), describe(order), replayed)
	case a.notDone() && replayed && !unknown:
		t.Errorf("%q of user %d was done, though its answer was: %v", a.request.Key, a.request.UserID, a.err)
	}
	again, replayed, _, err := l.ask(a.request)
	if err != nil || !replayed || describe(again) != describe(order) {
		t.Errorf("two outcomes under one key: %s and then %s, %t, %v", describe(order), describe(again), replayed, err)
	}
	stored, err := l.e.Order(ctx, order.ID, order.UserID)
	if err != nil || describe(stored) != describe(order) {
		t.Errorf("order %d is stored as %s, %v", order.ID, describe(stored), err)
	}
	return order, true
}

// count sorts attempts by what came of them.
func count(attempts []attempt) (placed, notDone, unknown int, others []error) {
	for i := range attempts {
		switch a := &attempts[i]; {
		case a.err == nil:
			placed++
		case a.notDone():
			notDone++
		case errors.Is(a.err, engine.ErrUnknown):
			unknown++
		default:
			others = append(others, a.err)
		}
	}
	return placed, notDone, unknown, others
}

package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
)

const (
	archiveUsers   = 50
	archiveWave    = 11_500 // orders: the first 1,000 or so are let go behind them
	archiveSecond  = 3_000  // orders of the second wave; the long test has two whole ones
	archivePrice   = 3
	archiveStock   = 200_000
	archiveBalance = 1_000_000
	archiveRaced   = 50 // orders that Redis has let go, refunded from both shops at once
)

// archive is a shop whose early orders stand in Postgres alone.
type archive struct {
	*world
	users   []int64
	product int64
	orders  []engine.Order // of both waves
	placed  int            // of them

	mu       sync.Mutex
	refunded map[int64]engine.Order // as answered
}

// An order that Redis has let go is taken back for its refund. However many ask, from however many processes, it is
// given back once.
func TestRefund_OfAnOrderThatRedisHasLetGoHappensOnce(t *testing.T) {
	a := &archive{
		// Each partition keeps 10,000 events: several would take so many times the orders.
		world: startTwo(t, shop.Config{Partitions: 1}), orders: make([]engine.Order, 2*archiveWave), refunded: map[int64]engine.Order{},
	}
	a.product, a.users = a.Product(archivePrice, archiveStock), a.Users(archiveUsers, archiveBalance)
	a.place(archiveWave)
	a.Written()
	gone := a.awaitLetGo(4 * archiveRaced)
	read := gone[:counted(4*archiveRaced, len(gone))]
	a.checkReadable(read)

	a.raceRefunds(gone[:archiveRaced])
	a.checkBooks()
	a.refuseMore(gone[:archiveRaced])
	a.restart(20_000) // some of these refunds now come from the journal
	a.refuseMore(gone[:archiveRaced])
	a.checkBooks()

	// Another wave: refunds race what is let go.
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for n := range 4 {
		random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(n)))
		all.Go(func() { a.refundAtRandom(ctx, random, gone) })
	}
	a.place(counted(archiveSecond, archiveWave))
	a.awaitLetGo(len(gone) + archiveSecond/2)
	stop()
	all.Wait()
	if long { // what was refunded is let go once more
		a.awaitGone(gone[:archiveRaced])
		a.refuseMore(gone[:archiveRaced])
	}
	a.checkBooks()
	t.Logf("%d orders, %d refunded", a.placed, len(a.refunded))
	if len(a.refunded) < archiveRaced+20 {
		t.Errorf("%d refunds: that was no race", len(a.refunded))
	}
	a.audited()
	a.restore() // now all of them stand in Postgres alone
	a.refuseMore(gone[:archiveRaced])
	a.checkReadable(read)
	a.checkBooks()
	a.audited()
}

// place places a wave of orders of one unit, quickly.
func (a *archive) place(n int) {
	a.t.Helper()
	const together = 64
	engines, first := a.engines(), a.placed
	each((n+together-1)/together, 4, func(part int) {
		from := part * together
		requests := make([]engine.PlaceRequest, min(together, n-from))
		for i := range requests {
			requests[i] = a.request(first + from + i)
		}
		for i, placed := range engines[part%2].PlaceEach(context.Background(), requests) {
			order, err := placed.Order, placed.Err
			if ambiguous(err) {
				order, _, err = definite(func() (engine.Order, bool, error) {
					return engines[part%2].Place(context.Background(), requests[i])
				})
			}
			if err != nil {
				a.t.Errorf("order %d: %v", first+from+i, err)
			}
			a.orders[first+from+i] = order
		}
	})
	a.placed += n
	if a.t.Failed() {
		a.t.FailNow()
	}
}

func (a *archive) request(i int) engine.PlaceRequest {
	return engine.PlaceRequest{
		UserID: a.users[i%archiveUsers], Key: fmt.Sprint("order ", i), Lines: []engine.Line{line(a.product, 1)},
	}
}

// held tells which orders stand in Redis.
func (a *archive) held(orders []int) []bool {
	a.t.Helper()
	keys := make([]string, len(orders))
	for i, n := range orders {
		keys[i] = a.keys.Order(0, a.orders[n].ID)
	}
	values, err := a.Redis.MGet(a.t.Context(), keys...).Result()
	if err != nil {
		a.t.Fatal(err)
	}
	held := make([]bool, len(orders))
	for i := range values {
		held[i] = values[i] != nil
	}
	return held
}

// awaitLetGo waits until Redis has let go as many of the orders, and returns them.
func (a *archive) awaitLetGo(want int) (gone []int) {
	a.t.Helper()
	all := make([]int, a.placed)
	for i := range all {
		all[i] = i
	}
	for deadline := time.Now().Add(patience); len(gone) < want; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			a.t.Fatalf("Redis has let go %d of %d orders, want %d", len(gone), len(all), want)
		}
		gone = gone[:0]
		for i, held := range a.held(all) {
			if !held {
				gone = append(gone, i)
			}
		}
	}
	return gone
}

// awaitGone waits until Redis has let go certain orders.
func (a *archive) awaitGone(orders []int) {
	a.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := 0
		for _, held := range a.held(orders) {
			if held {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatalf("Redis keeps %d of %d orders", left, len(orders))
		}
	}
}

// checkReadable reads orders that were let go from both shops, and asks again under the keys that placed them: those give
// the answer of then, whatever came after.
func (a *archive) checkReadable(gone []int) {
	a.t.Helper()
	ctx := context.Background()
	each(len(gone), 16, func(i int) {
		placed := &a.orders[gone[i]]
		now := *placed
		if back, refunded := a.refunded[placed.ID]; refunded {
			now = back
		}
		for _, e := range a.engines() {
			for _, user := range []int64{placed.UserID, 0} {
				if got, err := e.Order(ctx, placed.ID, user); err != nil || !got.Equal(&now) {
					a.t.Errorf("it reads %s, %v; it is %s", describe(&got), err, describe(&now))
				}
			}
			if _, err := e.Order(ctx, placed.ID, a.users[0]+1e6); !errors.Is(err, engine.ErrOrderNotFound) {
				a.t.Errorf("a stranger reads %d: %v", placed.ID, err)
			}
			again, replayed, err := e.Place(ctx, a.request(gone[i]))
			if err != nil || !replayed || !again.Equal(placed) {
				a.t.Errorf("its key again: %s, %t, %v; it was %s", describe(&again), replayed, err, describe(placed))
			}
			var refusal *engine.Refusal
			_, _, err = e.Pay(ctx, engine.PayRequest{UserID: now.UserID, OrderID: now.ID, Key: fmt.Sprint("late ", now.ID)})
			if !errors.As(err, &refusal) || !errors.Is(err, engine.ErrNotPayable) || refusal.Status != now.Status {
				a.t.Errorf("paying it once more: %v", err)
			}
		}
	})
}

// raceRefunds asks both shops at once for the refund of each order: under different keys, or under the same.
func (a *archive) raceRefunds(orders []int) {
	a.t.Helper()
	type answer struct {
		key      string
		order    engine.Order
		replayed bool
		err      error
	}
	const asked = 4
	answers := make([][asked]answer, len(orders))
	begin := make(chan struct{})
	var all sync.WaitGroup
	for i, n := range orders {
		for k := range asked {
			at := &answers[i][k]
			at.key = "refund"
			if i%2 == 0 {
				at.key = fmt.Sprint("refund ", k)
			}
			all.Go(func() {
				<-begin
				at.order, at.replayed, at.err = a.refund(k%2, &a.orders[n], at.key)
			})
		}
	}
	close(begin)
	all.Wait()
	for i, n := range orders {
		firsts := 0
		for _, at := range answers[i] {
			var refusal *engine.Refusal
			switch {
			case at.err == nil && at.order.Status == engine.Refunded:
				if !at.replayed {
					firsts++
				}
				a.noteRefund(&at.order)
			case i%2 == 0 && errors.Is(at.err, engine.ErrNotCancelable) && errors.As(at.err, &refusal) && refusal.Status == engine.Refunded:
			default:
				a.t.Errorf("a refund of order %d under key %q: %v, %v", a.orders[n].ID, at.key, at.order.Status, at.err)
			}
		}
		if firsts != 1 {
			a.t.Errorf("order %d was refunded %d times: %+v", a.orders[n].ID, firsts, answers[i])
		}
	}
}

func (a *archive) refund(shop int, o *engine.Order, key string) (engine.Order, bool, error) {
	return definite(func() (engine.Order, bool, error) {
		return a.engines()[shop].Cancel(context.Background(), engine.CancelRequest{
			OrderID: o.ID, UserID: o.UserID, Reason: "too many", Key: fmt.Sprint(key, " of ", o.ID),
		})
	})
}

// noteRefund keeps a refund's answer: all answers for an order are the same.
func (a *archive) noteRefund(o *engine.Order) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if before, known := a.refunded[o.ID]; known && !before.Equal(o) {
		a.t.Errorf("two answers: %s, and %s", describe(&before), describe(o))
	}
	a.refunded[o.ID] = *o
}

// refuseMore asks for refunds of what was refunded already: a used key gets its answer again, any other is refused.
func (a *archive) refuseMore(orders []int) {
	a.t.Helper()
	each(len(orders), 16, func(i int) {
		o := &a.orders[orders[i]]
		want := a.refunded[o.ID]
		for shop, e := range a.engines() {
			var refusal *engine.Refusal
			_, _, err := a.refund(shop, o, fmt.Sprint("one more from ", shop))
			if !errors.As(err, &refusal) || !errors.Is(err, engine.ErrNotCancelable) || refusal.Status != engine.Refunded {
				a.t.Errorf("one more refund of order %d: %v", o.ID, err)
			}
			if i%2 == 1 {
				again, replayed, err := a.refund(shop, o, "refund")
				if err != nil || !replayed || !again.Equal(&want) {
					a.t.Errorf("the refund again: %s, %t, %v; it was %s", describe(&again), replayed, err, describe(&want))
				}
			}
			if got, err := e.Order(context.Background(), o.ID, o.UserID); err != nil || !got.Equal(&want) {
				a.t.Errorf("shop %d reads %s, %v; it is %s", shop, describe(&got), err, describe(&want))
			}
		}
	})
}

// refundAtRandom refunds orders from both shops at once, while others are placed and let go: mostly such as stand
// where Redis lets go next.
func (a *archive) refundAtRandom(ctx context.Context, random *rand.Rand, gone []int) {
	edge := len(gone)
	for ctx.Err() == nil {
		o := &a.orders[(edge+random.IntN(2000))%archiveWave]
		var firsts [2]bool
		crowd(2, func(shop int) {
			order, replayed, err := a.refund(shop, o, fmt.Sprint("random ", shop))
			switch {
			case err == nil:
				firsts[shop] = !replayed
				a.noteRefund(&order)
			case !errors.Is(err, engine.ErrNotCancelable):
				a.t.Errorf("a refund of order %d: %v", o.ID, err)
			}
		})
		if firsts[0] && firsts[1] {
			a.t.Errorf("order %d was refunded twice", o.ID)
		}
		time.Sleep(2 * time.Millisecond) // or two processors do nothing else
	}
}

// checkBooks holds money and stock against the refunds that were answered.
func (a *archive) checkBooks() {
	a.t.Helper()
	a.Written()
	want := map[int64]int64{}
	for i := range a.placed {
		if _, back := a.refunded[a.orders[i].ID]; !back {
			want[a.orders[i].UserID] += archivePrice
		}
	}
	for _, user := range a.users {
		a.wantBalance(user, archiveBalance-want[user])
	}
	a.wantStock(a.product, archiveStock-int64(a.placed-len(a.refunded)))
	if n := a.number("SELECT count(*) FROM orders WHERE status = 'REFUNDED'"); n != int64(len(a.refunded)) {
		a.t.Errorf("%d orders are REFUNDED in Postgres, %d were answered so", n, len(a.refunded))
	}
	if n := a.number("SELECT count(*) - count(DISTINCT ref_id) FROM balance_ledger WHERE kind = 'refund'"); n != 0 {
		a.t.Errorf("%d postings refund an order twice", n)
	}
}

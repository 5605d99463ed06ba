package persist_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// recorded reports whether Redis holds an order's record.
func recorded(t *testing.T, s *shoptest.Shop, o engine.Order) bool {
	t.Helper()
	keys := s.Engine.Keys()
	n, err := s.Redis.Exists(t.Context(), keys.Order(keys.OfUser(o.UserID), o.ID)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// push writes events until orders from before have left Redis.
func push(t *testing.T, s *shoptest.Shop, orders ...engine.Order) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for n := 0; ; n++ {
		stay := 0
		for _, o := range orders {
			if recorded(t, s, o) {
				stay++
			}
		}
		if stay == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d orders stay in Redis", stay, len(orders))
		}
		_, _, err := s.Engine.Charge(t.Context(), engine.ChargeRequest{UserID: orders[0].UserID, Amount: 1, Key: fmt.Sprint("push", time.Now().UnixNano())})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestLetGo_EndedOrdersLeaveRedisAndAreFoundAllTheSame(t *testing.T) {
	persist.KeepEvents(t, 10)
	s, _ := start(t, shop.Config{Hold: shortHold})
	orders := kinds(t, s, func() {})
	pending := orders["pending"]
	delete(orders, "pending")
	ended := make([]engine.Order, 0, len(orders))
	for o := range maps.Values(orders) {
		ended = append(ended, o)
	}
	push(t, s, ended...)
	for kind, want := range orders {
		got, err := s.Engine.Order(t.Context(), want.ID, want.UserID)
		if err != nil || !got.Equal(&want) {
			t.Errorf("%s: it is %+v (%v), it was %+v", kind, got, err, want)
		}
	}
	if expired := expire(t, s, pending); !recorded(t, s, expired) {
		t.Error("an order has left Redis that was unpaid a moment ago")
	}
	s.Written()
	auditClean(t, s)

	// What has gone can be given back, and comes and goes once more.
	again := cancel(t, s, orders["paid"], "late")
	if again.Status != engine.Refunded || !recorded(t, s, again) {
		t.Errorf("given back: %+v", again)
	}
	s.Written()
	auditClean(t, s)
	push(t, s, again)
	got, err := s.Engine.Order(t.Context(), again.ID, again.UserID)
	if err != nil || !got.Equal(&again) {
		t.Errorf("it is %+v (%v), it was %+v", got, err, again)
	}
	s.Written()
	auditClean(t, s)
}

// A writer that takes the lead finds in the journal what is due since the mark, whoever wrote it.
func TestLetGo_GoesOnWhereTheLastWriterStopped(t *testing.T) {
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(1, 1000)
	var orders []engine.Order
	for n := range 150 {
		orders = append(orders, place(t, s, user, fmt.Sprint(n), line(product, 1)))
		if n == 50 {
			restart(t, s, func() {}) // another epoch
		}
	}
	s.Stop() // its rule keeps them all
	persist.KeepEvents(t, 20)
	s.Reopen()
	for deadline := time.Now().Add(10 * time.Second); recorded(t, s, orders[129]); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("orders that are due stay in Redis")
		}
	}
	v, err := s.Engine.Look(t.Context(), 0)
	if err != nil || v.LetGo.Events != v.Events()-20 {
		t.Errorf("the mark stands at %+v of %d events, %v", v.LetGo, v.Events(), err)
	}
	for n, o := range orders {
		if recorded(t, s, o) != (n >= 130) {
			t.Errorf("order %d of 150 stands in Redis: %v", n, recorded(t, s, o))
		}
	}
	auditClean(t, s)
	s.Stop()
	s.Reopen()
	push(t, s, orders[130:]...)
	s.Written()
	auditClean(t, s)
}

// A mark may lie in the middle of a stream entry: the next writer counts on from there, not from the entry's first event.
func TestLetGo_MarkInsideOfAnEntry(t *testing.T) {
	s, conn := start(t, shop.Config{})
	product := s.Product(1, 1_000_000)
	var users []int64
	for range 48 {
		users = append(users, s.User(1_000_000))
	}
	stop := load(t, s.Engine.Place, users, product)
	awaitEvents(t, s.Shop, 1000)
	stop()
	s.Written()
	inside := false
	for _, keep := range []int64{531, 307, 211, 83, 37, 11, 7, 3} {
		s.Stop()
		persist.KeepEvents(t, keep)
		s.Reopen()
		var v engine.DoorView
		for deadline := time.Now().Add(10 * time.Second); v.Seq == 0 || v.LetGo.Seq != v.Seq-keep; time.Sleep(10 * time.Millisecond) {
			var err error
			if v, err = s.Engine.Look(t.Context(), 0); err != nil || time.Now().After(deadline) {
				t.Fatalf("the mark stands at %+v of %d events, %d are to stay: %v", v.LetGo, v.Seq, keep, err)
			}
		}
		if v.LetGo.Events != v.LetGo.Seq {
			t.Errorf("the mark stands at event %d and counts %d", v.LetGo.Seq, v.LetGo.Events)
		}
		inside = inside || number(t, conn, "SELECT count(*) FROM events WHERE last_seq = $1", v.LetGo.Seq) == 0
		auditClean(t, s)
	}
	if !inside {
		t.Error("no mark came to lie inside of an entry")
	}
}

// Two shops refund orders that Redis has let go, at once and by different keys, while orders come and go: each is given
// back once.
func TestLetGo_RacingRefundsGiveBackOnce(t *testing.T) {
	persist.KeepEvents(t, 10)
	s, conn := start(t, shop.Config{})
	other := second(t, s)
	user, product := s.User(1_000_000), s.Product(100, 1_000_000)
	var orders []engine.Order
	for n := range 40 {
		orders = append(orders, place(t, s, user, fmt.Sprint(n), line(product, 1)))
	}
	stop := load(t, s.Engine.Place, []int64{s.User(1_000_000), s.User(1_000_000)}, product)
	push(t, s, orders...)
	var all sync.WaitGroup
	for _, o := range orders {
		var mu sync.Mutex
		given := 0
		for racer := range 6 {
			e := s.Engine
			if racer%2 == 1 {
				e = other.Engine
			}
			all.Go(func() {
				time.Sleep(time.Duration(racer/2) * 3 * time.Millisecond) // some come when it has gone again
				r := engine.CancelRequest{OrderID: o.ID, UserID: user, Key: fmt.Sprint("c", racer, o.ID)}
				_, _, err := e.Cancel(context.Background(), r)
				for tries := 0; errors.Is(err, engine.ErrUnavailable) && tries < 50; tries++ {
					_, _, err = e.Cancel(context.Background(), r)
				}
				if err != nil && !errors.Is(err, engine.ErrNotCancelable) {
					t.Errorf("a refund ends in %v", err)
				}
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					if given++; given > 1 {
						t.Errorf("order %d is given back %d times", o.ID, given)
					}
				}
			})
		}
	}
	all.Wait()
	stop()
	s.Written()
	if n := number(t, conn, "SELECT count(*) FROM balance_ledger WHERE kind = 'refund'"); n != int64(len(orders)) {
		t.Errorf("%d refunds of %d orders", n, len(orders))
	}
	push(t, s, orders...)
	s.Written()
	auditClean(t, s)
}

// What the books said before an order was given back, and Redis let it go once more, must not give it back again.
func TestLetGo_ReadBeforeARefundDoesNotRefundAgain(t *testing.T) {
	persist.KeepEvents(t, 10)
	s, conn := start(t, shop.Config{})
	order := place(t, s, s.User(1_000_000), "k", line(s.Product(100, 10), 1))
	push(t, s, order)
	client, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 8, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	reads := 0
	slow, err := engine.New(engine.Config{
		Redis: client, Partitions: 1, Node: engine.NodesMax - 1,
		Archive: func(ctx context.Context, id int64) (engine.Archived, error) {
			archived, err := s.Books.Order(ctx, id)
			if reads++; reads == 1 {
				push(t, s, cancel(t, s, order, "first"))
			}
			return archived, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	slow.Start()
	defer slow.Close() //nolint:errcheck // a client of its own
	if err := slow.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, _, err = slow.Cancel(t.Context(), engine.CancelRequest{OrderID: order.ID, UserID: order.UserID, Key: "second"})
	if !errors.Is(err, engine.ErrNotCancelable) || reads < 2 {
		t.Errorf("given back twice, by %d reads of the books: %v", reads, err)
	}
	s.Written()
	if n := number(t, conn, "SELECT count(*) FROM balance_ledger WHERE kind = 'refund'"); n != 1 {
		t.Errorf("%d refunds", n)
	}
	auditClean(t, s)
}

// withoutGone leaves out what may differ between two states that are equal: an ended order's record may have gone from
// one of them, and units that were given back as a whole count as none.
func withoutGone(t *testing.T, all, other map[string]string) map[string]string {
	t.Helper()
	kept := map[string]string{}
	for key, value := range all {
		_, id, isOrder := strings.Cut(key, "}o:")
		if _, both := other[key]; isOrder && !both {
			var n int64
			if _, err := fmt.Sscan(id, &n); err != nil {
				t.Fatal(err)
			}
			if o, err := engine.DecodeOrder(n, value); err == nil && o.Status != engine.Pending {
				continue
			}
		}
		if strings.Contains(key, "}m:") && value == "0" {
			continue
		}
		kept[key] = value
	}
	return kept
}

func TestRestore_EqualsWhatStoodInRedis(t *testing.T) {
	for _, c := range []struct {
		partitions int
		keep       int64
	}{{1, 10_000}, {4, 50}} {
		t.Run(fmt.Sprintf("P=%d keep=%d", c.partitions, c.keep), func(t *testing.T) {
			persist.KeepEvents(t, c.keep)
			s, conn := start(t, shop.Config{Partitions: c.partitions, Hold: 10 * time.Minute})
			var users, products []int64
			for n := range 8 {
				users = append(users, s.User(int64(1000+100_000*(n%3))))
			}
			for n := range 8 {
				products = append(products, s.Product(int64(n), 10_000))
			}
			stop := busy(t, s.Shop, users, products, 3)
			enough := func() bool { return number(t, conn, "SELECT count(*) FROM orders WHERE status <> 'PENDING'") >= 100 }
			for deadline := time.Now().Add(20 * time.Second); !enough() && time.Now().Before(deadline); {
				time.Sleep(50 * time.Millisecond)
			}
			stop()
			settled(t, s, conn)
			auditClean(t, s)
			before := dump(t, s)
			s.Stop()
			s.Redis.FlushAll(t.Context())

			restore(t, s)
			after := dump(t, s)
			want, got := withoutGone(t, before, after), withoutGone(t, after, before)
			for key, value := range want {
				if got[key] != value {
					t.Errorf("%s is %q, it was %q", key, got[key], value)
				}
				delete(got, key)
			}
			for key := range got {
				t.Errorf("%s was not there before", key)
			}
			records, orders := 0, number(t, conn, "SELECT count(*) FROM orders WHERE status <> 'PENDING'")
			for key, value := range after {
				if strings.Contains(key, "}o:") && value[1] != byte(engine.Pending) {
					records++
				}
			}
			if c.keep == 50 && (orders < 50 || records > int(orders)*2/3) {
				t.Errorf("of %d ended orders %d were restored", orders, records)
			}
			s.Reopen()
			auditClean(t, s)
			stop = busy(t, s.Shop, users, products, 4)
			awaitEvents(t, s.Shop, 100)
			stop()
			s.Written()
			auditClean(t, s)
		})
	}
}

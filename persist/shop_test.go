package persist_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// reserve places an order to be paid later.
func reserve(t *testing.T, s *shoptest.Shop, user int64, key string, lines ...engine.Line) engine.Order {
	t.Helper()
	order, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: key, Lines: lines, Later: true})
	if err != nil {
		t.Fatalf("reserve: %v", err)
	}
	return order
}

// pay pays an order; FAILED is no error here.
func pay(t *testing.T, s *shoptest.Shop, order engine.Order) engine.Order {
	t.Helper()
	paid, _, err := s.Engine.Pay(t.Context(), engine.PayRequest{UserID: order.UserID, OrderID: order.ID, Key: fmt.Sprintf("pay %d", order.ID)})
	var refusal *engine.Refusal
	if errors.As(err, &refusal) && refusal.Order != nil {
		return *refusal.Order
	}
	if err != nil {
		t.Fatalf("pay order %d: %v", order.ID, err)
	}
	return paid
}

func cancel(t *testing.T, s *shoptest.Shop, order engine.Order, reason string) engine.Order {
	t.Helper()
	canceled, _, err := s.Engine.Cancel(t.Context(), engine.CancelRequest{
		UserID: order.UserID, OrderID: order.ID, Reason: reason, Key: fmt.Sprintf("cancel %d", order.ID),
	})
	if err != nil {
		t.Fatalf("cancel order %d: %v", order.ID, err)
	}
	return canceled
}

func addToCart(t *testing.T, s *shoptest.Shop, user, product, quantity int64) {
	t.Helper()
	_, _, err := s.Engine.AddToCart(t.Context(), engine.CartAddRequest{UserID: user, ProductID: product, Quantity: quantity})
	if err != nil {
		t.Fatalf("add to a cart: %v", err)
	}
}

// kinds makes an order of each kind, by the state in which it ends. between runs before each step.
func kinds(t *testing.T, s *shoptest.Shop, between func()) map[string]engine.Order {
	t.Helper()
	a, b, c := s.Product(100, 1000), s.Product(7, 1000), s.Product(0, 1000)
	rich, poor := s.User(1_000_000), s.User(50)
	all := map[string]engine.Order{}
	all["at once"] = place(t, s, rich, "at once", line(c, 1), line(a, 2), line(b, 3))
	all["for nothing"] = place(t, s, poor, "for nothing", line(c, 2))
	refunded := place(t, s, rich, "refunded", line(b, 1), line(a, 1))
	paid, later := reserve(t, s, rich, "paid", line(b, 2), line(a, 1)), reserve(t, s, rich, "refunded later", line(a, 1))
	failed, canceled := reserve(t, s, poor, "failed", line(b, 100), line(a, 5)), reserve(t, s, poor, "canceled", line(a, 4))
	expired := reserve(t, s, poor, "expired", line(c, 4))
	addToCart(t, s, rich, b, 3)
	addToCart(t, s, rich, a, 2)
	addToCart(t, s, poor, a, 1)
	between()
	all["refunded"] = cancel(t, s, refunded, "too small")
	all["paid"], all["failed"] = pay(t, s, paid), pay(t, s, failed)
	all["canceled"] = cancel(t, s, canceled, "")
	later = pay(t, s, later)
	fromCart, _, err := s.Engine.OrderCart(t.Context(), engine.CartOrderRequest{UserID: rich, Key: "cart", Later: true})
	if err != nil {
		t.Fatalf("order a cart: %v", err)
	}
	between()
	all["refunded later"] = cancel(t, s, later, "»ünïcode«")
	all["from a cart"] = pay(t, s, fromCart)
	if _, err := s.Engine.RemoveFromCart(t.Context(), poor, a); err != nil {
		t.Fatal(err)
	}
	addToCart(t, s, poor, b, 9)
	all["expired"] = expire(t, s, expired)
	all["pending"] = reserve(t, s, rich, "pending", line(a, 3), line(b, 1)) // it holds on for the rest of a short test
	return all
}

// lasting is kinds with nothing that changes by itself any more: the order that is pending holds on for an hour.
func lasting(t *testing.T, s *shoptest.Shop) map[string]engine.Order {
	t.Helper()
	all := kinds(t, s, func() {})
	expire(t, s, all["pending"])
	write(t, s)
	paid := all["paid"]
	all["pending"] = reserve(t, s, paid.UserID, "holds on", line(paid.Items[1].ProductID, 3), line(paid.Items[0].ProductID, 1))
	return all
}

// expire waits until an order has expired.
func expire(t *testing.T, s *shoptest.Shop, order engine.Order) engine.Order {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		now, err := s.Engine.Order(t.Context(), order.ID, order.UserID)
		if err != nil {
			t.Fatal(err)
		}
		if now.Status == engine.Expired {
			return now
		}
		if time.Now().After(deadline) {
			t.Fatalf("an order that is overdue is %+v", now)
		}
	}
}

// shortHold is long enough for the steps of kinds, and short enough to wait for.
const shortHold = 3 * time.Second

// write runs a writer until the books hold everything.
func write(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	s.Stop()
	c := shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), Hold: time.Hour}
	opened, err := shop.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Shop = opened
	if err := s.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Written()
}

// busy has users do everything at random until stop is called. Whatever a call ends in is fine.
func busy(t *testing.T, s *shop.Shop, users, products []int64, seed uint64) (stop func()) {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	var all sync.WaitGroup
	for n, user := range users {
		all.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			var open []int64
			for i := 0; ctx.Err() == nil; i++ {
				open = anything(s.Engine, random, user, products, open, fmt.Sprintf("%d-%d-%d", seed, n, i))
				time.Sleep(breath)
			}
		})
	}
	return func() {
		end()
		all.Wait()
	}
}

// anything does one thing; open are orders of the user.
func anything(e *engine.Engine, random *rand.Rand, user int64, products, open []int64, key string) []int64 {
	ctx := context.Background()
	product := func() int64 { return products[random.IntN(len(products))] }
	some := func() int64 {
		if len(open) == 0 {
			return 1
		}
		return open[random.IntN(len(open))]
	}
	switch random.IntN(14) {
	case 0:
		_, _, _ = e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 50, Key: key})
	case 1:
		_, _, _ = e.Restock(ctx, engine.RestockRequest{ProductID: product(), Delta: int64(random.IntN(5) + 1), Reason: "delivery", Key: key})
	case 2, 3:
		_, _, _ = e.AddToCart(ctx, engine.CartAddRequest{UserID: user, ProductID: product(), Quantity: int64(random.IntN(3) + 1)})
	case 4:
		_, _ = e.RemoveFromCart(ctx, user, product())
	case 5:
		if order, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: user, Later: random.IntN(2) == 0, Key: key}); err == nil {
			open = append(open, order.ID)
		}
	case 6, 7, 8:
		_, _, _ = e.Pay(ctx, engine.PayRequest{UserID: user, OrderID: some(), Key: key})
	case 9:
		_, _, _ = e.Cancel(ctx, engine.CancelRequest{UserID: user, OrderID: some(), Key: key})
	default:
		order, _, err := e.Place(ctx, engine.PlaceRequest{
			UserID: user, Key: key, Later: random.IntN(2) == 0, Lines: []engine.Line{line(product(), 1), line(product(), 2)},
		})
		if err == nil {
			open = append(open, order.ID)
		}
	}
	if len(open) > 50 {
		open = open[25:]
	}
	return open
}

func TestWriter_DerivesEveryKindOfOrder(t *testing.T) {
	t.Parallel()
	for _, together := range []bool{true, false} {
		t.Run(fmt.Sprintf("in one transaction=%v", together), func(t *testing.T) {
			s, conn := start(t, shop.Config{NoWriter: together, Hold: shortHold})
			between := func() {
				if !together {
					s.Written()
				}
			}
			orders := kinds(t, s, between)
			if together {
				write(t, s)
			}
			s.Written()
			for kind, want := range orders {
				got, err := s.Books.Order(t.Context(), want.ID)
				if err != nil || !got.Equal(&want) {
					t.Errorf("%s: the books have %+v (%v), it is %+v", kind, got, err, want)
				}
				if events := number(t, conn, "SELECT events FROM checkpoints"); got.Events > events || got.Events == 0 {
					t.Errorf("%s: read at %d events of %d", kind, got.Events, events)
				}
			}
			for sql, want := range map[string]int64{
				"SELECT count(*) FROM orders WHERE status = 'SUCCESS'":                                     4,
				"SELECT count(*) FROM orders WHERE status = 'REFUNDED'":                                    2,
				"SELECT count(*) FROM orders WHERE status IN ('FAILED', 'CANCELED', 'EXPIRED', 'PENDING')": 4,
				"SELECT count(*) FROM orders WHERE expires_at IS NULL":                                     3,
				"SELECT count(*) FROM balance_ledger WHERE kind = 'refund'":                                2,
				"SELECT count(DISTINCT order_id) FROM stock_ledger WHERE kind = 'release'":                 3,
				"SELECT count(DISTINCT order_id) FROM stock_ledger WHERE kind = 'refund'":                  2,
				"SELECT count(*) FROM carts":                                                               1,
				"SELECT quantity FROM cart_items":                                                          9,
			} {
				if got := number(t, conn, sql); got != want {
					t.Errorf("%s: %d, want %d", sql, got, want)
				}
			}
			auditClean(t, s)
		})
	}
}

func TestOrder_OfTheBooksThatIsNoneIsNotFound(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	if _, err := s.Books.Order(t.Context(), 77); !errors.Is(err, engine.ErrOrderNotFound) {
		t.Errorf("an order that was never placed: %v", err)
	}
}

// Writers of several partitions meet on the same products, lose their connections in the middle of it, and go on.
func TestWriter_KilledBetweenSteps(t *testing.T) {
	persist.KeepEvents(t, 100)
	s, conn := start(t, shop.Config{Partitions: 3, Hold: 300 * time.Millisecond})
	products := []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000)}
	var users []int64
	for n := range 12 {
		users = append(users, s.User(int64(100+5000*(n%4))))
	}
	other := second(t, s)
	stop, stopOther := busy(t, s.Shop, users, products, 1), busy(t, other, users[:4], products, 2)
	for range 12 {
		time.Sleep(150 * time.Millisecond)
		exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()")
	}
	stop()
	stopOther()
	s.Written()
	auditClean(t, s)
	if err := errors.Join(s.Writer.Alarm(), other.Writer.Alarm()); err != nil {
		t.Error(err)
	}
	if n := number(t, conn, "SELECT count(DISTINCT status) FROM orders"); n < 3 {
		t.Errorf("orders of %d kinds only", n)
	}
}

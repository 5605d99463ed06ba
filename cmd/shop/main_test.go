package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/persist"
)

// long asks for the full counts of the long tests (make test-long).
var long = os.Getenv("STAMPEDE_TEST_LONG") != ""

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// counted is a count of the short tests, or that of the long ones.
func counted(short, full int) int {
	if long {
		return full
	}
	return short
}

// patience bounds every wait of these tests.
const patience = 30 * time.Second

// world is a shop, a second one on the same servers, and a look into Postgres.
type world struct {
	*shoptest.Shop
	second *shop.Shop
	conn   *pgx.Conn
	keys   *engine.Keys
	t      *testing.T
}

func start(t *testing.T, c shop.Config) *world {
	t.Helper()
	w := &world{Shop: shoptest.Start(t, stack.Options{}, c), t: t}
	w.keys = w.Engine.Keys()
	w.connect()
	return w
}

// connect opens the look into Postgres, anew after Postgres was killed.
func (w *world) connect() {
	w.t.Helper()
	conn, err := pgx.Connect(w.t.Context(), w.Stack.PostgresURL())
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	w.conn = conn
}

// startTwo runs two shops on the same servers.
func startTwo(t *testing.T, c shop.Config) *world {
	t.Helper()
	w := start(t, c)
	w.second = w.Open()
	t.Cleanup(w.closeSecond)
	return w
}

func (w *world) closeSecond() {
	w.t.Helper()
	if w.second == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.second.Close(ctx); err != nil {
		w.t.Errorf("close the second shop: %v", err)
	}
	w.second = nil
}

// engines are those of both shops.
func (w *world) engines() [2]*engine.Engine { return [2]*engine.Engine{w.Engine, w.second.Engine} }

// audited waits for the writer and wants clean books.
func (w *world) audited() {
	w.t.Helper()
	w.Written()
	const shown = 10
	found := 0
	sum, err := w.Books.Audit(w.t.Context(), w.Redis, func(v persist.Violation) {
		if found++; found <= shown {
			w.t.Errorf("audit: %s: %s %s", v.Check, v.Subject, v.Detail)
		}
	})
	if err != nil || sum.Violations != 0 {
		w.t.Fatalf("audit: %+v, %v", sum, err)
	}
}

// number is what a statement finds in Postgres.
func (w *world) number(sql string, args ...any) (n int64) {
	w.t.Helper()
	if err := w.conn.QueryRow(w.t.Context(), sql, args...).Scan(&n); err != nil {
		w.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func (w *world) wantBalance(user, want int64) {
	w.t.Helper()
	for i, e := range w.live() {
		if got, err := e.Balance(w.t.Context(), user); err != nil || got != want {
			w.t.Errorf("shop %d: the balance of user %d is %d (%v), want %d", i, user, got, err, want)
		}
	}
	if got := w.number("SELECT balance FROM users WHERE id = $1", user); got != want {
		w.t.Errorf("the balance of user %d in Postgres is %d, want %d", user, got, want)
	}
}

func (w *world) wantStock(product, want int64) {
	w.t.Helper()
	w.Settle(func() bool {
		p, err := w.Engine.Product(w.t.Context(), product)
		return err == nil && p.Stock == want && w.number("SELECT stock FROM products WHERE id = $1", product) == want
	})
	for i, e := range w.live() {
		if got, err := e.Product(w.t.Context(), product); err != nil || got.Stock != want {
			w.t.Errorf("shop %d: the stock of product %d is %d (%v), want %d", i, product, got.Stock, err, want)
		}
	}
	if got := w.number("SELECT stock FROM products WHERE id = $1", product); got != want {
		w.t.Errorf("the stock of product %d in Postgres is %d, want %d", product, got, want)
	}
}

func (w *world) live() []*engine.Engine {
	if w.second == nil {
		return []*engine.Engine{w.Engine}
	}
	both := w.engines()
	return both[:]
}

// holds is how many unpaid orders hold stock, due or not; the shop may be down.
func (w *world) holds() int64 {
	w.t.Helper()
	all := int64(0)
	for p := range w.keys.Partitions() {
		n, err := w.Redis.ZCard(w.t.Context(), w.keys.Holds(p)).Result()
		if err != nil {
			w.t.Fatalf("count the holds: %v", err)
		}
		all += n
	}
	return all
}

// awaitNoHolds waits until no order holds stock unpaid, and returns when that was.
func (w *world) awaitNoHolds() time.Time {
	w.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		left := w.holds()
		if left == 0 {
			return time.Now()
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%d holds never end", left)
		}
	}
}

// definite asks again, with the same key, until the outcome is known and final. In a crowd, units of other partitions may take
// their time.
func definite[T any](ask func() (T, bool, error)) (answer T, replayed bool, err error) {
	for deadline := time.Now().Add(3 * patience); ; time.Sleep(2 * time.Millisecond) {
		answer, replayed, err = ask()
		if !ambiguous(err) || time.Now().After(deadline) {
			return answer, replayed, err
		}
	}
}

// ambiguous tells whether a buyer should ask again: the outcome is not known, or nothing was done for now.
func ambiguous(err error) bool {
	return errors.Is(err, engine.ErrUnknown) || errors.Is(err, engine.ErrUnavailable) || errors.Is(err, engine.ErrOverloaded) ||
		errors.Is(err, engine.ErrElsewhere)
}

func line(product, quantity int64) engine.Line {
	return engine.Line{ProductID: product, Quantity: quantity}
}

// seeded is a random source whose seed stands in the test's log.
func seeded(t *testing.T, n int) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano()) + uint64(n)
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// crowd runs n workers side by side.
func crowd(n int, work func(worker int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { work(i) })
	}
	all.Wait()
}

// each hands out the numbers below n to some workers, in order.
func each(n, workers int, do func(i int)) {
	next := make(chan int)
	go func() {
		defer close(next)
		for i := range n {
			next <- i
		}
	}()
	crowd(workers, func(int) {
		for i := range next {
			do(i)
		}
	})
}

// describe is an order as text, every step of it.
func describe(o *engine.Order) string {
	text := fmt.Sprintf("order %d of %d: %v, total %d, %v, created %v, expires %v",
		o.ID, o.UserID, o.Status, o.Total, o.Items, o.CreatedAt, o.ExpiresAt)
	for _, s := range o.History {
		text += fmt.Sprintf("; %v %q at %v", s.Status, s.Reason, s.At)
	}
	return text
}

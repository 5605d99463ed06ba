package persist_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

func TestProduct_ChangesWhatIsGiven(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Partitions: 2})
	product := s.Product(100, 50)
	name, price := "Better thing: 2", int64(0)
	got, err := s.Books.UpdateProduct(t.Context(), product, &name, nil)
	if err != nil || got.Name != name || got.Price != 100 || got.Stock != 50 || got.Version != 2 {
		t.Errorf("a new name gives %+v, %v", got, err)
	}
	if _, _, err := s.Engine.Restock(t.Context(), engine.RestockRequest{ProductID: product, Delta: -3, Key: "r"}); err != nil {
		t.Fatal(err)
	}
	got, err = s.Books.UpdateProduct(t.Context(), product, nil, &price)
	if err != nil || got.Name != name || got.Price != 0 || got.Stock != 47 || got.Version != 3 {
		t.Errorf("a new price gives %+v, %v", got, err)
	}
	live, err := s.Engine.Product(t.Context(), product)
	if got.CreatedAt = live.CreatedAt; err != nil || live != got { // Redis has it in milliseconds
		t.Errorf("Redis lists %+v (%v), answered was %+v", live, err, got)
	}
	if order := place(t, s, userAtHome(t, s.Engine, s.User, product), "k", line(product, 1)); order.Total != 0 {
		t.Errorf("an order after the change costs %d", order.Total)
	}
	var refusal *engine.Refusal
	if _, err := s.Books.UpdateProduct(t.Context(), 9999, &name, nil); !errors.Is(err, engine.ErrProductNotFound) || !errors.As(err, &refusal) || refusal.ProductID != 9999 {
		t.Errorf("a product that is none: %v", err)
	}
	if _, err := s.Books.UpdateProduct(t.Context(), product, nil, nil); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("nothing to change: %v", err)
	}
	s.Written()
	auditClean(t, s)
}

// userAtHome creates a user in the partition that holds a product's stock.
func userAtHome(t *testing.T, e *engine.Engine, create func(int64) int64, product int64) int64 {
	t.Helper()
	for range 100 {
		if user := create(1_000_000); e.Keys().OfUser(user) == e.Keys().Home(product) {
			return user
		}
	}
	t.Fatal("no user lives where the product does")
	return 0
}

// Two shops change one price at once, buyers watch: no order is cheaper than the last change that was answered before
// it, and in the end Redis has what Postgres has.
func TestProduct_NoOrderTakesAPriceOlderThanTheAnswer(t *testing.T) {
	t.Parallel()
	const rounds, changers = 40, 6
	s, conn := start(t, shop.Config{})
	other := second(t, s)
	product := s.Product(1, 1_000_000)
	// Prices follow versions: whoever changes reads nothing, so the version tells which change was the last.
	exec(t, conn, `CREATE FUNCTION price_is_version() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF NEW.version <> OLD.version THEN NEW.price := NEW.version; END IF; RETURN NEW; END'`)
	exec(t, conn, "CREATE TRIGGER price_is_version BEFORE UPDATE ON products FOR EACH ROW EXECUTE FUNCTION price_is_version()")
	var answered atomic.Int64
	var all, buyers sync.WaitGroup
	done := make(chan struct{})
	for range 4 {
		user := s.User(100_000_000)
		buyers.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-done:
					return
				default:
				}
				least := answered.Load()
				order, _, err := s.Engine.Place(context.Background(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(n), Lines: []engine.Line{line(product, 1)}})
				if err != nil || order.Total < least {
					t.Errorf("an order costs %d (%v) after %d was answered", order.Total, err, least)
					return
				}
			}
		})
	}
	for n := range changers {
		books := s.Books
		if n%2 == 1 {
			books = other.Books
		}
		all.Go(func() {
			for range rounds {
				price := int64(1)
				got, err := books.UpdateProduct(context.Background(), product, nil, &price)
				if err != nil {
					t.Errorf("change: %v", err)
					return
				}
				for {
					last := answered.Load()
					if got.Version <= last || answered.CompareAndSwap(last, got.Version) {
						break
					}
				}
			}
		})
	}
	all.Wait()
	close(done)
	buyers.Wait()
	live, err := s.Engine.Product(t.Context(), product)
	if want := int64(rounds*changers + 1); err != nil || live.Version != want || live.Price != want || number(t, conn, "SELECT version FROM products") != want {
		t.Errorf("in the end Redis has %+v (%v), %d changes were made", live, err, want-1)
	}
	s.Written()
	auditClean(t, s)
}

// Sync marks what it listed: a change that came in between is still to be listed.
func TestSync_FinishesAChangeThatRedisMissed(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	product := s.Product(100, 50)
	exec(t, conn, "UPDATE products SET price = 77, version = version + 1, in_redis = false")
	if err := s.Books.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	live, err := s.Engine.Product(t.Context(), product)
	if err != nil || live.Price != 77 {
		t.Errorf("after a sync Redis has %+v, %v", live, err)
	}
	// Many syncs beside many changes: none is marked that Redis has not.
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			for i := range 25 {
				exec := "UPDATE products SET price = price + 1, version = version + 1, in_redis = false"
				if err := s.Books.Exec(t.Context(), exec); err != nil {
					t.Error(n, i, err)
				}
				_ = s.Books.Sync(t.Context())
			}
		})
	}
	all.Wait()
	live, err = s.Engine.Product(t.Context(), product)
	if err != nil || live.Price != number(t, conn, "SELECT price FROM products") || number(t, conn, "SELECT count(*) FROM products WHERE in_redis") != 1 {
		t.Errorf("after many syncs Redis has %+v, %v", live, err)
	}
}

// A share that Redis lost stays missing when its product is listed once more: its initial units would be units that
// were never there.
func TestSync_InventsNoUnitsOfALostShare(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 2})
	product := s.Product(100, 50)
	s.Written()
	share := s.Engine.Keys().Stock(1, product)
	s.Redis.Del(t.Context(), share)
	isMissing := func(after string) {
		t.Helper()
		if units, err := s.Redis.Get(t.Context(), share).Result(); !errors.Is(err, redis.Nil) {
			t.Errorf("%s made a share of %s units, %v", after, units, err)
		}
	}
	exec(t, conn, "UPDATE products SET version = version + 1, in_redis = false")
	if err := s.Books.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	isMissing("a sync")
	restart(t, s, func() {})
	isMissing("a repair")
	s.Written()
	if n := number(t, conn, "SELECT sum(delta) FROM stock_ledger WHERE kind = 'restock'"); n != 50 {
		t.Errorf("the ledger has %d units of a product that was created with 50", n)
	}
}

func TestSync_TakesManyInFewCalls(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	const users = 500
	s.Users(users, 1)
	exec(t, conn, "UPDATE users SET in_redis = false")
	before := scriptCalls(t, s)
	if err := s.Books.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := number(t, conn, "SELECT count(*) FROM users WHERE NOT in_redis"); n != 0 {
		t.Errorf("%d users are still to be brought into Redis", n)
	}
	// What else runs meanwhile calls scripts too, some a second.
	if calls := scriptCalls(t, s) - before; calls == 0 || calls > users/2 {
		t.Errorf("%d users took %d calls", users, calls)
	}
}

// scriptCalls is how many scripts Redis has run.
func scriptCalls(t *testing.T, s *shoptest.Shop) (n int) {
	t.Helper()
	stats := s.Redis.Info(t.Context(), "commandstats").Val()
	_, stats, _ = strings.Cut(stats, "cmdstat_evalsha:calls=")
	if _, err := fmt.Sscanf(stats, "%d,", &n); err != nil {
		t.Fatalf("calls of scripts: %v in %q", err, stats)
	}
	return n
}

package persist_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/persist"
)

// long asks for the full counts of the long tests (make test-long).
var long = os.Getenv("STAMPEDE_TEST_LONG") != ""

// start runs a shop with a connection of the test's own to Postgres.
func start(t *testing.T, c shop.Config) (*shoptest.Shop, *pgx.Conn) {
	t.Helper()
	s := shoptest.Start(t, stack.Options{}, c)
	return s, connect(t, s)
}

func connect(t *testing.T, s *shoptest.Shop) *pgx.Conn {
	t.Helper()
	return dial(t, s.Stack.PostgresURL())
}

// dial connects to a Postgres until the test ends.
func dial(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

// second opens another shop on the same servers until the test ends.
func second(t *testing.T, s *shoptest.Shop) *shop.Shop {
	t.Helper()
	other := s.Open()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := other.Close(ctx); err != nil {
			t.Errorf("close the other shop: %v", err)
		}
	})
	return other
}

func exec(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func number(t *testing.T, conn *pgx.Conn, sql string, args ...any) (n int64) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// audit returns what an audit finds.
func audit(t *testing.T, s *shoptest.Shop) []persist.Violation {
	t.Helper()
	var found []persist.Violation
	sum, err := s.Books.Audit(t.Context(), s.Redis, func(v persist.Violation) { found = append(found, v) })
	if err != nil {
		t.Fatalf("audit: %v", err)
	}
	if sum.Violations != int64(len(found)) {
		t.Fatalf("the summary counts %d violations, %d were reported", sum.Violations, len(found))
	}
	return found
}

func auditClean(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	for _, v := range audit(t, s) {
		t.Errorf("audit: %s: %s %s", v.Check, v.Subject, v.Detail)
	}
}

func place(t *testing.T, s *shoptest.Shop, user int64, key string, lines ...engine.Line) engine.Order {
	t.Helper()
	order, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: key, Lines: lines})
	if err != nil {
		t.Fatalf("place an order: %v", err)
	}
	return order
}

func line(product, quantity int64) engine.Line {
	return engine.Line{ProductID: product, Quantity: quantity}
}

// breath is what callers in a loop leave between two calls. Without it two of them keep a small machine busy, and what a
// test waits for comes no sooner.
const breath = 8 * time.Millisecond

// awaitEvents waits until partition 0 has so many events more.
func awaitEvents(t *testing.T, s *shop.Shop, more int64) {
	t.Helper()
	var enough int64
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		v, err := s.Engine.Look(t.Context(), 0)
		if err == nil && enough == 0 {
			enough = v.Events() + more
		}
		if err == nil && v.Events() >= enough {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events, %d are to come: %v", v.Events(), enough, err)
		}
	}
}

// load places one-unit orders from several buyers until stop is called, which returns the acknowledged orders and the
// requests whose outcome is open.
func load(t *testing.T, place func(ctx context.Context, r engine.PlaceRequest) (engine.Order, bool, error), users []int64, product int64) (stop func() (acknowledged map[int64]engine.PlaceRequest, open []engine.PlaceRequest)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var mu sync.Mutex
	acknowledged := map[int64]engine.PlaceRequest{}
	var open []engine.PlaceRequest
	var all sync.WaitGroup
	for _, user := range users {
		all.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				r := engine.PlaceRequest{
					UserID: user, Lines: []engine.Line{line(product, 1)},
					Key: fmt.Sprintf("load-%d-%d", time.Now().UnixNano(), n),
				}
				order, _, err := place(context.Background(), r)
				mu.Lock()
				switch {
				case err == nil:
					acknowledged[order.ID] = r
				case strings.Contains(err.Error(), engine.ErrUnknown.Error()):
					open = append(open, r)
				}
				mu.Unlock()
				time.Sleep(breath)
			}
		})
	}
	return func() (map[int64]engine.PlaceRequest, []engine.PlaceRequest) {
		cancel()
		all.Wait()
		return acknowledged, open
	}
}

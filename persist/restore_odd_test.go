package persist_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// Each flushes the Redis of the same shop and leaves it selling again.
func TestRestore_OfOddRemains(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Hold: time.Hour})
	user, product := s.User(1000), s.Product(3, 100)
	place(t, s, user, "a", line(product, 2))
	reserve(t, s, user, "b", line(product, 5))
	addToCart(t, s, user, product, 4)
	for _, odd := range []struct {
		name string
		test func(*testing.T, *shoptest.Shop, *pgx.Conn)
	}{
		{"other books", restoreOtherBooks},
		{"a restarted Redis", restoreRestarted},
		{"events in quarantine", restoreQuarantined},
		{"products never listed", restoreNeverListed},
		{"a journal without a row", restoreBroken},
	} {
		passed := t.Run(odd.name, func(t *testing.T) {
			s.Written()
			odd.test(t, s, conn)
			s.Reopen()
			s.Written()
			auditClean(t, s)
			place(t, s, user, odd.name, line(product, 1))
		})
		if !passed {
			return // the next would find no shop
		}
	}
	s.Written()
	auditClean(t, s)
}

// What another restore has left would mix with these books.
func restoreOtherBooks(t *testing.T, s *shoptest.Shop, _ *pgx.Conn) {
	flush(t, s)
	half(t, s)
	keys, err := engine.NewKeys(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Redis.HSet(t.Context(), keys.Meta(0), "let_go", 1, "let_go_seq", 1).Err(); err != nil {
		t.Fatal(err)
	}
	err = shop.Restore(t.Context(), servers(s), &persist.RestoreProgress{})
	if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "FLUSHALL") {
		t.Errorf("restore: %v", err)
	}
	flush(t, s)
	restore(t, s)
}

// Redis may lose what it was given when it restarts before the doors open: nothing may be opened.
func restoreRestarted(t *testing.T, s *shoptest.Shop, _ *pgx.Conn) {
	before := holdings(t, s)
	flush(t, s)
	err := restoreUntil(t.Context(), s, func() {
		if err := s.Servers().Restart(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		t.Error("a restore of a Redis that restarted under it opened the doors")
	}
	restore(t, s)
	wantSame(t, withoutRuns(before), withoutRuns(holdings(t, s)))
}

// Events in quarantine are in the journal and in no table. What they did to Redis comes back all the same.
func restoreQuarantined(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) {
	before := dump(t, s)
	balance := number(t, conn, "SELECT balance FROM users")
	// As if nothing had been derived from the charge.
	exec(t, conn, `INSERT INTO quarantine (partition, epoch, seq, reason)
		SELECT partition, epoch, seq, 'test' FROM balance_ledger WHERE kind = 'charge'`)
	exec(t, conn, "UPDATE users SET balance = 0")
	flush(t, s)
	restore(t, s)
	after := dump(t, s)
	for name, value := range before {
		ended := strings.Contains(name, "}o:") && value[1] != byte(engine.Pending)
		if after[name] != value && !ended {
			t.Errorf("%s is %q, it was %q", name, after[name], value)
		}
	}
	exec(t, conn, "DELETE FROM quarantine")
	exec(t, conn, "UPDATE users SET balance = $1", balance)
}

// A product whose initial units went with Redis before the writer had seen them is listed anew, with its units. One that
// is sold out has had them.
func restoreNeverListed(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) {
	user, soldOut := s.User(10), s.Product(1, 3)
	place(t, s, user, "a", line(soldOut, 3))
	s.Written()
	exec(t, conn, "INSERT INTO products (name, price, initial_stock, in_redis) VALUES ('Lost', 5, 9, true)")
	lost := number(t, conn, "SELECT max(id) FROM products")
	flush(t, s)
	restore(t, s)
	s.Reopen()
	for id, want := range map[int64]int64{soldOut: 0, lost: 9} {
		p, err := s.Engine.Product(t.Context(), id)
		if err != nil || p.Stock != want {
			t.Errorf("product %d has %d units (%v), want %d", id, p.Stock, err, want)
		}
	}
	s.Stop()
}

// Rows that were deleted from the journal are not passed over.
func restoreBroken(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) {
	exec(t, conn, "CREATE TEMP TABLE gone AS SELECT * FROM events ORDER BY epoch DESC, last_seq DESC LIMIT 1")
	exec(t, conn, "DELETE FROM events USING gone WHERE events.epoch = gone.epoch AND events.last_seq = gone.last_seq")
	flush(t, s)
	err := shop.Restore(t.Context(), servers(s), &persist.RestoreProgress{})
	if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "rows were deleted") {
		t.Errorf("restore: %v", err)
	}
	exec(t, conn, "INSERT INTO events SELECT * FROM gone")
	restore(t, s)
}

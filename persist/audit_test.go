package persist_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// tampering changes one thing behind Stampede's back; undo puts it back.
type tampering struct {
	name  string
	do    func(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) (undo func())
	named string // must stand in a violation
}

// inPostgres tampers by a statement and undoes it by another.
func inPostgres(do, undo string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
	return func(t *testing.T, _ *shoptest.Shop, conn *pgx.Conn) func() {
		exec(t, conn, do)
		return func() { exec(t, conn, undo) }
	}
}

// inRedis tampers with a key of partition 0 and puts it back as it was.
func inRedis(key string, do func(p redis.Pipeliner)) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
	return func(t *testing.T, s *shoptest.Shop, _ *pgx.Conn) func() {
		old, err := s.Redis.Dump(t.Context(), key).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		if _, err := s.Redis.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			do(p)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return func() {
			ctx := context.Background()
			if old == "" {
				s.Redis.Del(ctx, key)
			} else if err := s.Redis.RestoreReplace(ctx, key, 0, old).Err(); err != nil {
				t.Error(err)
			}
		}
	}
}

// tamper stops the shop and runs the cases one after the other: each must be named, and once all are undone all must be
// well. By checks are those meant that must have found something.
func tamper(t *testing.T, s *shoptest.Shop, conn *pgx.Conn, cases []tampering, checks ...string) {
	t.Helper()
	fired := map[string]bool{}
	persist.AuditPatience(t, 200*time.Millisecond) // nobody writes
	s.Stop()
	books := bystander(t, s, int(number(t, conn, "SELECT partitions FROM deployment")))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			undo := c.do(t, s, conn)
			found := auditBooks(t, books, s)
			undo()
			named := false
			for _, v := range found {
				fired[v.Check] = true
				named = named || strings.Contains(v.Subject, c.named)
			}
			if !named {
				t.Errorf("no violation names %q: %+v", c.named, found)
			}
		})
	}
	for _, v := range auditBooks(t, books, s) {
		t.Errorf("after everything was undone: %s: %s %s", v.Check, v.Subject, v.Detail)
	}
	for _, check := range checks {
		if !fired[check] {
			t.Errorf("the check %q found nothing", check)
		}
	}
}

// bystander opens the books as `stampede audit` does: nothing sells or writes.
func bystander(t *testing.T, s *shoptest.Shop, partitions int) *persist.Books {
	t.Helper()
	books, err := persist.OpenExisting(t.Context(), s.Stack.PostgresURL(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(books.Close)
	unstarted, err := engine.New(engine.Config{Redis: s.Redis, Partitions: partitions, OperationTimeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	books.Attach(unstarted)
	return books
}

// keepAside copies the tables, so that rows that a tampering deletes or changes can be put back.
func keepAside(t *testing.T, conn *pgx.Conn) (putBack func(table, where string) string) {
	t.Helper()
	for _, table := range []string{
		"orders", "order_items", "order_history", "balance_ledger", "stock_ledger", "events", "carts", "cart_items",
		"sales_hours", "epochs", "checkpoints", "users", "products",
	} {
		exec(t, conn, "CREATE TABLE kept_"+table+" AS TABLE "+table)
	}
	return func(table, where string) string {
		return "DELETE FROM " + table + " WHERE " + where + "; INSERT INTO " + table + " SELECT * FROM kept_" + table + " WHERE " + where
	}
}

// auditBooks returns what an audit by some books finds.
func auditBooks(t *testing.T, books *persist.Books, s *shoptest.Shop) (found []persist.Violation) {
	t.Helper()
	_, err := books.Audit(t.Context(), s.Redis, func(v persist.Violation) { found = append(found, v) })
	if err != nil {
		t.Fatalf("audit: %v", err)
	}
	return found
}

func TestAudit_FindsWhatRedisShouldHaveLetGo(t *testing.T) {
	persist.KeepEvents(t, 10)
	s, conn := start(t, shop.Config{})
	user, product := s.User(10_000), s.Product(100, 50)
	order := place(t, s, user, "a", line(product, 2))
	key := s.Engine.Keys().Order(0, order.ID)
	old, err := s.Redis.Get(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	push(t, s, order)
	s.Written()
	auditClean(t, s)
	tamper(t, s, conn, []tampering{
		{"a leftover", inRedis(key, func(p redis.Pipeliner) { p.Set(t.Context(), key, old, 0) }), key},
	})
}

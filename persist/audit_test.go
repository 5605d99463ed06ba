package persist_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
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

// inRedis sets a key and puts it back.
func inRedis(key func(s *shoptest.Shop) string, value string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
	return func(t *testing.T, s *shoptest.Shop, _ *pgx.Conn) func() {
		old, err := s.Redis.Get(t.Context(), key(s)).Result()
		if err != nil {
			t.Fatal(err)
		}
		s.Redis.Set(t.Context(), key(s), value, 0)
		return func() { s.Redis.Set(context.Background(), key(s), old, 0) }
	}
}

func TestAudit_FindsTampering(t *testing.T) {
	s, conn := start(t, shop.Config{})
	user, product := s.User(10_000), s.Product(100, 50)
	first := place(t, s, user, "a", line(product, 2))
	place(t, s, user, "b", line(product, 1))
	s.Written()
	auditClean(t, s)

	// Rows that a tampering deletes are kept aside, to be put back.
	for _, table := range []string{"orders", "order_items", "order_history", "balance_ledger", "stock_ledger", "events"} {
		exec(t, conn, "CREATE TABLE kept_"+table+" AS TABLE "+table)
	}
	putBack := func(table, where string) string {
		return "INSERT INTO " + table + " SELECT * FROM kept_" + table + " WHERE " + where
	}
	id := fmt.Sprint(first.ID)
	cases := []tampering{
		{"balance in Postgres", inPostgres("UPDATE users SET balance = balance + 1", "UPDATE users SET balance = balance - 1"), "users id="},
		{"balance in Redis", inRedis(func(s *shoptest.Shop) string { return s.Engine.Keys().Balance(0, user) }, "9701"), "b:"},
		{"stock in Postgres", inPostgres("UPDATE products SET stock = stock + 1", "UPDATE products SET stock = stock - 1"), "products id="},
		{"stock in Redis", inRedis(func(s *shoptest.Shop) string { return s.Engine.Keys().Stock(0, product) }, "48"), "s:"},
		{"order in Redis", inRedis(func(s *shoptest.Shop) string { return s.Engine.Keys().Order(0, first.ID) }, "x"), "o:" + id},
		{"status of an order", inPostgres("UPDATE orders SET status = 'FAILED' WHERE id = "+id, "UPDATE orders SET status = 'SUCCESS'"), "orders id=" + id},
		{"buyer of an order", inPostgres("UPDATE orders SET user_id = user_id + 1 WHERE id = "+id, "UPDATE orders SET user_id = user_id - 1 WHERE id = "+id), "orders id=" + id},
		{"total of an order", inPostgres("UPDATE orders SET total_price = total_price + 1 WHERE id = "+id, "UPDATE orders SET total_price = total_price - 1 WHERE id = "+id), "orders id=" + id},
		{"a deleted order", inPostgres("DELETE FROM orders WHERE id = "+id, putBack("orders", "id = "+id)), "orders id=" + id},
		{"an invented order", inPostgres("INSERT INTO orders SELECT 77, user_id, status, 0, created_at, updated_at FROM orders WHERE id = "+id, "DELETE FROM orders WHERE id = 77"), "orders id=77"},
		{"quantity of a line", inPostgres("UPDATE order_items SET quantity = 3 WHERE order_id = "+id, "UPDATE order_items SET quantity = 2 WHERE order_id = "+id), "order_items order_id=" + id},
		{"a deleted line", inPostgres("DELETE FROM order_items WHERE order_id = "+id, putBack("order_items", "order_id = "+id)), "order_items order_id=" + id},
		{"a step of history", inPostgres("UPDATE order_history SET reason = 'x' WHERE step = 2 AND order_id = "+id, "UPDATE order_history SET reason = ''"), "order_history order_id=" + id},
		{"an invented line", inPostgres("INSERT INTO order_items VALUES (78, 1, 1, 1)", "DELETE FROM order_items WHERE order_id = 78"), "order_items order_id=78"},
		{"amount of a posting", inPostgres("UPDATE balance_ledger SET amount = amount - 1 WHERE ref_id = "+id, "UPDATE balance_ledger SET amount = amount + 1 WHERE ref_id = "+id), "balance_ledger partition=0"},
		{"delta of a posting", inPostgres("UPDATE stock_ledger SET delta = delta - 1 WHERE order_id = "+id, "UPDATE stock_ledger SET delta = delta + 1 WHERE order_id = "+id), "stock_ledger partition=0"},
		{"an invented posting", inPostgres("INSERT INTO balance_ledger VALUES (0, 1, 999, 1, 0, 0, 'order', 5, now())", "DELETE FROM balance_ledger WHERE seq = 999"), "seq=999"},
		{"payload of an event", inPostgres("UPDATE events SET payload = payload || '\\x00'::bytea WHERE last_seq = 3", "DELETE FROM events WHERE last_seq = 3; "+putBack("events", "last_seq = 3")), "last_seq=3"},
		{"a price inside an event", inPostgres("UPDATE events SET payload = set_byte(payload, length(payload) - 9, 101) WHERE last_seq = 3", "DELETE FROM events WHERE last_seq = 3; "+putBack("events", "last_seq = 3")), "1-3"},
		{"a deleted event", inPostgres("DELETE FROM events WHERE last_seq = 2", putBack("events", "last_seq = 2")), "last_seq=3"},
		{"the checkpoint", inPostgres("UPDATE checkpoints SET events = events + 1", "UPDATE checkpoints SET events = events - 1"), "checkpoints partition=0"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			undo := c.do(t, s, conn)
			found := audit(t, s)
			undo()
			for _, v := range found {
				if strings.Contains(v.Subject, c.named) {
					auditClean(t, s)
					return
				}
			}
			t.Errorf("no violation names %q: %+v", c.named, found)
		})
	}
}

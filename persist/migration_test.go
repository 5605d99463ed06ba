package persist_test

import (
	"fmt"
	"testing"

	"stampede/cmd/shop"
	"stampede/engine"
)

// Books of the first version are brought forward: the lines of their orders are numbered as they were placed.
//
//servers:postgres
func TestMigration_BooksOfTheFirstVersionGoOn(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user := s.User(1_000_000)
	var products []int64
	for range 10 {
		products = append(products, s.Product(1, 10_000))
	}
	for n := range 200 {
		var lines []engine.Line
		for l := range 1 + n%10 {
			lines = append(lines, line(products[(n*7+l*3)%10], 1))
		}
		place(t, s, user, fmt.Sprint(n), lines...)
	}
	s.Written()
	s.Stop()
	for _, sql := range []string{
		"DROP VIEW sales_hourly, sales_daily, money_postings, stock_postings", "DROP TABLE sales_hours, quarantine, losses, layouts, pulses, challenge_answers, copy_losses", "ALTER TABLE nodes DROP COLUMN answers", "ALTER TABLE checkpoints DROP COLUMN challenge", "DROP INDEX orders_unpaid, balance_ledger_of_user, stock_ledger_transfers",
		"DELETE FROM stock_ledger WHERE kind = 'payment'", "ALTER TABLE stock_ledger DROP COLUMN peer, DROP COLUMN sent_epoch, DROP COLUMN sent_seq, DROP COLUMN held, ALTER COLUMN stock_after SET NOT NULL",
		"DROP TABLE carts, cart_items", "DROP INDEX orders_of_user", "ALTER TABLE order_items DROP COLUMN line",
		`ALTER TABLE balance_ledger DROP CONSTRAINT balance_ledger_kind_check,
			ADD CONSTRAINT balance_ledger_kind_check CHECK (kind IN ('charge', 'order'))`,
		`ALTER TABLE stock_ledger DROP CONSTRAINT stock_ledger_kind_check,
			ADD CONSTRAINT stock_ledger_kind_check CHECK (kind IN ('restock', 'order'))`,
		"DELETE FROM goose_db_version WHERE version_id > 1",
	} {
		exec(t, conn, sql)
	}
	s.Reopen()
	auditClean(t, s)
	pay(t, s, reserve(t, s, user, "later", line(products[0], 1)))
	s.Written()
	auditClean(t, s)
}

package persist_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/persist"
)

// derivedTables are those that a rebuild fills or corrects.
var derivedTables = []string{
	"orders", "order_items", "order_history", "balance_ledger", "stock_ledger", "carts", "cart_items", "sales_hours", "quarantine",
	"users", "products",
}

// dumpTables reads every column of every row, by table.
func dumpTables(t *testing.T, conn *pgx.Conn) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, table := range derivedTables {
		found, _ := conn.Query(t.Context(), "SELECT t::text FROM "+table+" t ORDER BY 1")
		rows, err := pgx.CollectRows(found, pgx.RowTo[string])
		if err != nil {
			t.Fatalf("%s: %v", table, err)
		}
		all[table] = strings.Join(rows, "\n")
	}
	return all
}

// dumpWritten is dumpTables once nothing is on its way into them any more.
func dumpWritten(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) map[string]string {
	t.Helper()
	s.Written()
	awaitSynced(t, conn)
	return dumpTables(t, conn)
}

func wantTables(t *testing.T, conn *pgx.Conn, want map[string]string) {
	t.Helper()
	for table, got := range dumpTables(t, conn) {
		if got != want[table] {
			t.Errorf("%s:\n%s\nwant\n%s", table, got, want[table])
		}
	}
}

// quietly is a rebuild whose progress nobody watches.
func quietly(persist.RebuildStage, int64, int64) {}

func rebuild(t *testing.T, s *shoptest.Shop) persist.Rebuilt {
	t.Helper()
	done, err := s.Books.RebuildReports(t.Context(), quietly)
	if err != nil {
		t.Fatalf("rebuild: %v", err)
	}
	return done
}

// wantUntouched makes sure that a rebuild ends in an error that says something, and changes nothing.
func wantUntouched(t *testing.T, s *shoptest.Shop, conn *pgx.Conn, want string) {
	t.Helper()
	before := dumpTables(t, conn)
	_, err := s.Books.RebuildReports(t.Context(), quietly)
	if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), want) {
		t.Errorf("a rebuild ends in %v, want something about %q", err, want)
	}
	wantTables(t, conn, before)
}

// spoilings leave no derived table as it was.
var spoilings = []string{
	"DELETE FROM orders WHERE id IN (SELECT id FROM orders ORDER BY id LIMIT 1)",
	"UPDATE orders SET status = 'CANCELED' WHERE status = 'PENDING'",
	"INSERT INTO orders VALUES (7, 1, 'SUCCESS', 5, now(), now())",
	"UPDATE order_items SET price = price + 1 WHERE line = 1",
	"TRUNCATE order_history",
	"UPDATE balance_ledger SET amount = amount + 1, balance_after = 0 WHERE kind <> 'charge'",
	"DELETE FROM stock_ledger WHERE order_id IS NOT NULL",
	"UPDATE stock_ledger SET order_id = 7",
	"UPDATE carts SET seq = seq + 1",
	"INSERT INTO carts VALUES (1000000, 1, 1, now())",
	"UPDATE cart_items SET quantity = 77",
	"UPDATE sales_hours SET units = units + 1",
	"INSERT INTO sales_hours SELECT partition, hour - interval '1 hour', product_id, units, revenue, orders FROM sales_hours",
	"INSERT INTO quarantine VALUES (0, 1, 1, 'no reason')",
	"UPDATE users SET balance = balance + 1",
	"UPDATE products SET stock = stock + id",
}

func spoil(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for _, sql := range spoilings {
		if tag, err := conn.Exec(t.Context(), sql); err != nil || tag.RowsAffected() == 0 && !strings.HasPrefix(sql, "TRUNCATE") {
			t.Fatalf("%s: %v %v", sql, tag, err)
		}
	}
}

//servers:postgres
func TestRebuild_MakesTheSameRowsAgain(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Hold: shortHold})
	lasting(t, s)
	before := dumpWritten(t, s, conn)
	for _, table := range rebuild(t, s).Tables {
		if table.Missing+table.Different+table.Surplus != 0 {
			t.Errorf("a rebuild of good books finds %+v", table)
		}
	}
	wantTables(t, conn, before)

	steps := number(t, conn, "SELECT count(*) FROM order_history")
	spoil(t, conn)
	for _, table := range rebuild(t, s).Tables {
		want := table
		switch table.Name {
		case "orders":
			want.Missing, want.Different, want.Surplus = 1, 1, 1
		case "order_history":
			want.Rows, want.Missing, want.Different, want.Surplus = steps, steps, 0, 0
		case "users":
			want.Different = 2
		}
		if table != want {
			t.Errorf("a rebuild of spoiled books finds %+v, want %+v", table, want)
		}
	}
	wantTables(t, conn, before)
	auditClean(t, s)
}

// Several partitions and epochs, and everything gone.
func TestRebuild_OfEmptiedTables(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 3, Hold: 300 * time.Millisecond})
	products := []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000)}
	var users []int64
	for n := range 12 {
		users = append(users, s.User(int64(100+5000*(n%4))))
	}
	for seed := range uint64(2) {
		stop := busy(t, s.Shop, users, products, seed)
		awaitEvents(t, s.Shop, 200)
		stop()
		s.Written()
		s.Stop()
		if err := s.Servers().Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Reopen()
	}
	s.Written()
	awaitNoHolds(t, s, conn)
	if epochs := number(t, conn, "SELECT count(DISTINCT epoch) FROM events"); epochs < 2 {
		t.Errorf("%d epochs: nothing to test", epochs)
	}
	before := dumpWritten(t, s, conn)
	exec(t, conn, "TRUNCATE "+strings.Join(derivedTables[:9], ", "))
	exec(t, conn, "UPDATE users SET balance = 0")
	exec(t, conn, "UPDATE products SET stock = 0")
	done := rebuild(t, s)
	wantTables(t, conn, before)
	if events := number(t, conn, "SELECT sum(events)::bigint FROM checkpoints"); done.Events != events || done.Partitions != 3 {
		t.Errorf("%d events in %d partitions, want %d in 3", done.Events, done.Partitions, events)
	}
	auditClean(t, s)
}

// awaitNoHolds waits until no order can expire any more.
func awaitNoHolds(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); number(t, conn, "SELECT count(*) FROM orders WHERE status = 'PENDING'") > 0; s.Written() {
		if time.Now().After(deadline) {
			t.Fatal("orders do not expire")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// While the tables are compared the writer waits, sales go on, and readers read what was there before.
func TestRebuild_BesideARunningShop(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	product := s.Product(1, 1_000_000)
	users := []int64{s.User(1_000_000), s.User(1_000_000), s.User(1_000_000)}
	place(t, s, users[0], "before", line(product, 1))
	s.Written()
	exec(t, conn, "TRUNCATE order_history")
	stop := load(t, s.Engine.Place, users, product)
	waited := false
	_, err := s.Books.RebuildReports(t.Context(), func(stage persist.RebuildStage, done, _ int64) {
		if stage != persist.RebuildCompares || done != 3 { // order_history, too, is written and not committed
			return
		}
		waited = true
		at := number(t, conn, "SELECT events FROM checkpoints")
		for n := range 20 {
			place(t, s, users[1], fmt.Sprint("meanwhile ", n), line(product, 1))
		}
		if steps := number(t, conn, "SELECT count(*) FROM order_history WHERE step = 1"); steps >= number(t, conn, "SELECT count(*) FROM orders") {
			t.Errorf("%d steps stand there before the rebuild has ended", steps)
		}
		if now := number(t, conn, "SELECT events FROM checkpoints"); now != at {
			t.Errorf("the checkpoint moved from %d to %d during the comparison", at, now)
		}
	})
	if err != nil || !waited {
		t.Fatalf("rebuild: %v, watched: %v", err, waited)
	}
	again := rebuild(t, s) // under load, and nothing to do
	acknowledged, open := stop()
	s.Written()
	if lag, err := s.Books.Lag(t.Context()); err != nil || lag.Events != 0 {
		t.Errorf("lag %+v, %v", lag, err)
	}
	for _, table := range again.Tables {
		if table.Missing+table.Different+table.Surplus != 0 {
			t.Errorf("a rebuild beside the writer finds %+v", table)
		}
	}
	if len(open) > 0 || len(acknowledged) == 0 {
		t.Errorf("%d orders acknowledged, %d open", len(acknowledged), len(open))
	}
	for id := range acknowledged {
		if n := number(t, conn, "SELECT count(*) FROM order_history WHERE order_id = $1", id); n != 2 {
			t.Errorf("order %d has %d steps", id, n)
		}
	}
	if err := errors.Join(s.Writer.Alarm(), s.Writer.Interrupted()); err != nil {
		t.Error(err)
	}
	auditClean(t, s)
}

//servers:postgres
func TestRebuild_CutShortChangesNothing(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Hold: shortHold})
	lasting(t, s)
	good := dumpWritten(t, s, conn)
	spoil(t, conn)
	spoiled := dumpTables(t, conn)
	for _, at := range []struct {
		stage persist.RebuildStage
		done  int64
	}{{persist.RebuildDerives, 1}, {persist.RebuildCompares, 1}, {persist.RebuildCompares, int64(len(derivedTables)) - 1}} {
		ctx, cancel := context.WithCancel(t.Context())
		wantCut := func(what string, cut func()) {
			t.Helper()
			_, err := s.Books.RebuildReports(ctx, func(stage persist.RebuildStage, done, _ int64) {
				if stage == at.stage && done >= at.done {
					cut()
				}
			})
			if err == nil {
				t.Errorf("%s at %v: no error", what, at)
			}
			wantTables(t, conn, spoiled)
		}
		wantCut("killed", func() {
			exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1", persist.LockRebuild)
		})
		wantCut("canceled", cancel)
	}
	rebuild(t, s)
	wantTables(t, conn, good)
	auditClean(t, s)
}

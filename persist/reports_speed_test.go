package persist_test

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// Books of a shop that sells a month long at one rate, few products much and many little.
const (
	monthUsers    = 100_000 // every hundredth order is of the first
	monthProducts = 3000
	monthHours    = 30 * 24
)

var monthBegin = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// What the writer leaves of the orders $1 to $2 of $3, which end with an hour, in the tables that reports read.
const (
	monthLedger = `INSERT INTO balance_ledger (partition, epoch, seq, user_id, amount, balance_after, kind, ref_id, at)
		SELECT 0, 1, n, CASE WHEN n % 100 = 0 THEN 1 ELSE 2 + (hashint8(-n)::bigint & 1048575) % ($5 - 1) END,
			-100, 1000, 'order', n, $4::timestamptz + (n - 1) * 3600 * $6 * 1000 / $3 * interval '1 ms'
		FROM generate_series($1::bigint, $2::bigint) AS n`
	monthSales = `INSERT INTO sales_hours (partition, hour, product_id, units, revenue, orders)
		SELECT 0, $4::timestamptz + hour * interval '1 hour', product, 2 * orders, 200 * orders, orders FROM (
			SELECT (n - 1) * $6 / $3 AS hour, 1 + floor($5 * power((hashint8(n)::bigint & 65535) / 65536.0::float8, 4))::bigint AS product, count(*) AS orders
			FROM generate_series($1::bigint, $2::bigint) AS n GROUP BY 1, 2 ORDER BY 1) sold`
)

// sellMonth writes a part of the orders of a month, each table by a connection of its own. Indexes beside the primary key
// are built anew behind it, which takes half the time.
func sellMonth(t *testing.T, s *shoptest.Shop, first, last, of int) {
	t.Helper()
	ledger, sales := connect(t, s), connect(t, s)
	found, _ := ledger.Query(t.Context(), `SELECT pg_get_indexdef(indexrelid), 'DROP INDEX ' || indexrelid::regclass FROM pg_index
		WHERE indrelid = 'balance_ledger'::regclass AND NOT indisprimary`)
	var create, drop string
	_, err := pgx.ForEachRow(found, []any{&create, &drop}, func() error { return nil })
	if err != nil || create == "" {
		t.Fatalf("the indexes of the ledger: %q, %v", create, err)
	}
	exec(t, ledger, drop)
	fill := errgroup.Group{}
	fill.Go(func() error {
		_, err := ledger.Exec(t.Context(), monthLedger, first, last, int64(of), monthBegin, int64(monthUsers), int64(monthHours))
		if err == nil {
			_, err = ledger.Exec(t.Context(), create)
		}
		return err
	})
	fill.Go(func() error {
		_, err := sales.Exec(t.Context(), monthSales, first, last, int64(of), monthBegin, int64(monthProducts), int64(monthHours))
		return err
	})
	if err := fill.Wait(); err != nil {
		t.Fatal(err)
	}
	exec(t, sales, "VACUUM ANALYZE balance_ledger, sales_hours")
}

// report is one that is asked for.
type report struct {
	name string
	ask  func(b *persist.Books) (persist.Plan, int, error)
	rows int // that it shows
}

// reports are those whose cost must not depend on how much there is beside what they show.
func reports(t *testing.T) []report {
	later := func(hours int) *time.Time {
		at := monthBegin.Add(time.Duration(hours) * time.Hour)
		return &at
	}
	sales := func(q engine.SalesQuery) func(*persist.Books) (persist.Plan, int, error) {
		return func(b *persist.Books) (persist.Plan, int, error) { return b.ExplainSales(t.Context(), q) }
	}
	ledger := func(user int64, before engine.Position) func(*persist.Books) (persist.Plan, int, error) {
		return func(b *persist.Books) (persist.Plan, int, error) {
			return b.ExplainLedger(t.Context(), user, before, 51)
		}
	}
	middle := engine.SaleKey{Bucket: *later(2), ProductID: 50}
	return []report{
		{"hours, from the first on", sales(engine.SalesQuery{Bucket: engine.Hour, Limit: 50}), 50},
		{"hours, a later page", sales(engine.SalesQuery{Bucket: engine.Hour, After: middle, Limit: 50}), 50},
		{"hours of a product", sales(engine.SalesQuery{From: later(1), To: later(6), ProductID: 1, Bucket: engine.Hour, Limit: 50}), 5},
		{"days, from the first on", sales(engine.SalesQuery{Bucket: engine.Day, Limit: 50}), 50},
		{"days, a later page", sales(engine.SalesQuery{Bucket: engine.Day, After: engine.SaleKey{Bucket: monthBegin, ProductID: 50}, Limit: 50}), 50},
		{"a day of a product", sales(engine.SalesQuery{To: later(24), ProductID: 7, Bucket: engine.Day, Limit: 50}), 1},
		{"ledger of who buys much", ledger(1, persist.Newest), 51},
		{"ledger of who buys much, a later page", ledger(1, engine.Position{Epoch: 1, Seq: 8000}), 51},
	}
}

// Reports on ninety times the orders look at about as many pages, find each by an index, and so stay quick.
func TestReports_CostWhatTheyShowAndNotWhatThereIs(t *testing.T) {
	t.Parallel()
	orders := benchOrders(t, 200_000)
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		orders = 10_000_000
	}
	s, _ := start(t, shop.Config{})
	begun := time.Now()
	part := (orders + 89) / 90 // those of eight hours
	sellMonth(t, s, 1, part, orders)
	few := map[string]int64{}
	for _, r := range reports(t) {
		plan, _, err := r.ask(s.Books)
		if err != nil {
			t.Fatalf("%s: %v", r.name, err)
		}
		few[r.name] = plan.Buffers
	}
	sellMonth(t, s, part+1, orders, orders)
	t.Logf("%d orders generated in %v", orders, time.Since(begun))
	for _, r := range reports(t) {
		plan, rows, err := r.ask(s.Books)
		begun := time.Now()
		if _, _, again := r.ask(s.Books); err != nil || again != nil {
			t.Fatalf("%s: %v, %v", r.name, err, again)
		}
		t.Logf("%s: %v with EXPLAIN, %d rows; %d pages, of the first eight hours %d", r.name, time.Since(begun), rows, plan.Buffers, few[r.name])
		if rows != r.rows {
			t.Errorf("%s: %d rows, want %d", r.name, rows, r.rows)
		}
		if plan.Buffers > 10*few[r.name] {
			t.Errorf("%s: %d pages, of the first eight hours %d", r.name, plan.Buffers, few[r.name])
		}
		wantByIndex(t, r.name, plan)
	}
	whole := engine.SalesQuery{ProductID: 7, Bucket: engine.Day, Limit: 200}
	plan, rows, err := s.Books.ExplainSales(t.Context(), whole)
	if err != nil || rows != 30 || plan.Buffers > 8*monthHours {
		t.Errorf("the days of a product: %d rows, %d pages, %v", rows, plan.Buffers, err)
	}
	wantByIndex(t, "the days of a product", plan)
	for _, bucket := range []engine.Bucket{engine.Day, engine.Hour} {
		begun, rows := time.Now(), 0
		_, err := s.Books.SalesReport(t.Context(), engine.SalesQuery{Bucket: bucket, Limit: 100_000}, func(engine.Sale) error { rows++; return nil })
		t.Logf("all by %v: %d rows in %v, %v", time.Duration(bucket), rows, time.Since(begun), err)
	}
}

func wantByIndex(t *testing.T, name string, p persist.Plan) {
	t.Helper()
	if len(p.Scans) == 0 || slices.ContainsFunc(p.Scans, func(scan string) bool { return strings.HasPrefix(scan, "Seq Scan of ") }) {
		t.Errorf("%s reads by %v", name, p.Scans)
	}
}

package persist_test

import (
	"fmt"
	"slices"
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

// The same for postings, sums, epochs and checkpoints: each tampering is one statement, and the tables it touches are put
// back from the copies.
func TestAudit_FindsTamperingWithSumsAndPostings(t *testing.T) {
	s, conn := start(t, shop.Config{Hold: shortHold})
	orders := kinds(t, s, func() {})
	expire(t, s, orders["pending"])
	s.Written()
	putBack := keepAside(t, conn)
	of := func(kind string) string { return fmt.Sprint(orders[kind].ID) }
	sold := "product_id = " + fmt.Sprint(orders["paid"].Items[0].ProductID)
	user := "id = " + fmt.Sprint(orders["paid"].UserID)
	on := func(name, table, where, change, named string) tampering {
		do := "UPDATE " + table + " SET " + change + " WHERE " + where
		if change == "" {
			do = "DELETE FROM " + table + " WHERE " + where
		}
		return tampering{name, inPostgres(do, putBack(table, "true")), named}
	}
	// Several statements that agree with each other: only what they do not touch can tell.
	all := func(name, named string, tables []string, statements ...string) tampering {
		var undo []string
		for _, table := range tables {
			undo = append(undo, putBack(table, "true"))
		}
		return tampering{name, inPostgres(strings.Join(statements, "; "), strings.Join(undo, "; ")), named}
	}
	payment, hold := "kind = 'payment' AND order_id = "+of("paid"), "kind = 'hold' AND order_id = "+of("paid")
	tamper(t, s, conn, []tampering{
		on("units of an hour", "sales_hours", sold, "units = units + 1", "sales_hours hour="),
		on("revenue of an hour", "sales_hours", sold, "revenue = revenue - 1", "sales_hours hour="),
		on("orders of an hour", "sales_hours", sold, "orders = orders + 1", "sales_hours hour="),
		on("a missing hour", "sales_hours", sold, "", "sales_hours hour="),
		on("another hour", "sales_hours", sold, "hour = hour - interval '1 h'", "sales_hours hour="),
		on("an hour of another partition", "sales_hours", sold, "partition = 3", "partition=3"),
		{"an invented hour", inPostgres("INSERT INTO sales_hours VALUES (0, '2020-01-01', 1, 1, 1, 1)", "DELETE FROM sales_hours WHERE hour = '2020-01-01'"), "sales_hours hour=2020-01-01"},

		on("a missing payment of a hold", "stock_ledger", payment, "", "order_items order_id="+of("paid")),
		on("units of a payment", "stock_ledger", payment, "held = held - 1", "stock_ledger product_id="),
		on("a payment from the shelf", "stock_ledger", payment, "delta = -1", "stock_ledger partition=0"),
		on("a stock after a payment", "stock_ledger", payment, "stock_after = 5", "stock_ledger partition=0"),
		on("no stock after a hold", "stock_ledger", hold, "stock_after = NULL", "stock_ledger partition=0"),
		on("a hold that holds nothing", "stock_ledger", hold, "held = 0", "stock_ledger product_id="),
		on("stock after a hold", "stock_ledger", hold, "stock_after = stock_after + 1", "stock_ledger partition=0"),
		on("kind of a stock posting", "stock_ledger", hold, "kind = 'order'", "stock_ledger partition=0"),
		on("reason of a stock posting", "stock_ledger", hold, "reason = 'x'", "stock_ledger partition=0"),
		on("order of a stock posting", "stock_ledger", hold, "order_id = 5", "order_items order_id=5"),
		on("partition of a stock posting", "stock_ledger", hold, "partition = 1", "stock_ledger partition=1"),
		on("time of a stock posting", "stock_ledger", hold, "at = at + interval '1 ms'", "stock_ledger partition=0"),
		on("balance after a posting", "balance_ledger", "kind = 'order' AND ref_id = "+of("paid"), "balance_after = balance_after + 1", "balance_ledger partition=0"),
		on("kind of a posting", "balance_ledger", "kind = 'refund' AND ref_id = "+of("refunded"), "kind = 'charge'", "orders id="+of("refunded")),
		on("buyer of a posting", "balance_ledger", "kind = 'order' AND ref_id = "+of("paid"), "user_id = user_id + 1", "users id="),
		on("time of a posting", "balance_ledger", "kind = 'order' AND ref_id = "+of("paid"), "at = at - interval '1 h'", "balance_ledger partition=0"),
		{"a charge of nothing", inPostgres("INSERT INTO balance_ledger SELECT partition, epoch, seq + 9000, user_id, 0, balance_after, 'charge', 7, at FROM balance_ledger WHERE ref_id = "+of("paid"), "DELETE FROM balance_ledger WHERE seq > 9000"), "seq=90"},
		all("a balance with its postings", "balance_ledger partition=0", []string{"users", "balance_ledger"},
			"UPDATE users SET balance = balance + 7 WHERE "+user, "UPDATE balance_ledger SET amount = amount + 7, balance_after = balance_after + 7 WHERE kind = 'order' AND ref_id = "+of("paid")),
		all("a stock with its postings", "stock_ledger partition=0", []string{"products", "stock_ledger"},
			"UPDATE products SET stock = stock + 1", "UPDATE stock_ledger SET delta = delta + 1, stock_after = stock_after + 1 WHERE kind = 'restock'"),

		{"an invented quarantine", inPostgres("INSERT INTO quarantine VALUES (0, 1, 2, 'x')", "DELETE FROM quarantine"), "quarantine partition=0 epoch=1 seq=2"},
		{"a closed epoch that is open", inPostgres("INSERT INTO epochs VALUES (0, 2, NULL, 'x')", "DELETE FROM epochs WHERE epoch = 2"), "epochs partition=0 epoch=2"},
		{"an epoch in between", inPostgres("INSERT INTO epochs VALUES (0, 0, 0, 'x')", "DELETE FROM epochs WHERE epoch = 0"), "epochs partition=0 epoch=0"},
		on("an end of the open epoch", "epochs", "epoch = 1", "last_seq = 3", "epochs partition=0 epoch=1"),
		on("a missing epoch", "epochs", "epoch = 1", "", "checkpoints partition=0"),
		on("the fence", "checkpoints", "true", "fence = 2", "checkpoints partition=0"),
		on("bytes of the checkpoint", "checkpoints", "true", "bytes = bytes + 1", "checkpoints partition=0"),
		on("seq of the checkpoint", "checkpoints", "true", "seq = seq - 1", "checkpoints partition=0"),
		on("events of the checkpoint", "checkpoints", "true", "events = events - 1", "checkpoints partition=0"),
		on("price of a product", "products", "id = 1", "price = price + 1", "}c:1"),
		on("name of a product", "products", "id = 1", "name = 'x'", "}c:1"),
		on("version of a product", "products", "id = 1", "version = version + 1", "}c:1"),
	}, "epochs", "every event is derived", "checkpoint", "tables follow the journal", "shape of postings", "postings follow each other",
		"order = its postings", "balance = postings", "stock = postings", "holds = unpaid orders", "money",
		"sales by hour = orders", "catalogue in Redis = Postgres", "balance in Redis = Postgres", "rows without an event")
}

func TestAudit_FindsTamperingWithKeys(t *testing.T) {
	s, conn := start(t, shop.Config{})
	user, product := s.User(10_000), s.Product(100, 50)
	order := place(t, s, user, "first order", line(product, 2))
	if _, _, err := s.Engine.Restock(t.Context(), engine.RestockRequest{ProductID: product, Delta: 3, Reason: "found", Key: "of an admin"}); err != nil {
		t.Fatal(err)
	}
	s.Written()
	awaitSynced(t, conn)
	keys, ctx := s.Engine.Keys(), t.Context()
	set := func(key, value string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(key, func(p redis.Pipeliner) { p.Set(ctx, key, value, 0) })
	}
	gone := func(key string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(key, func(p redis.Pipeliner) { p.Del(ctx, key) })
	}
	meta, events := keys.Meta(0), keys.Events(0)
	field := func(name string, value any) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(meta, func(p redis.Pipeliner) { p.HSet(ctx, meta, name, value) })
	}
	placed, restocked := keys.Idempotency(0, user, "first order"), keys.Idempotency(0, 0, "of an admin")
	catalogue, listed := keys.Catalogue(0, product), keys.Listed(0)
	door, err := s.Engine.Look(ctx, 0)
	if err != nil {
		t.Fatal(err)
	}
	record := fmt.Sprintf("1:1:%d:Thing", order.CreatedAt.UnixMilli())
	tamper(t, s, conn, []tampering{
		{"an answer", inRedis(placed, func(p redis.Pipeliner) { p.SetRange(ctx, placed, 16, "x") }), placed},
		{"a fingerprint", inRedis(placed, func(p redis.Pipeliner) { p.SetRange(ctx, placed, 0, "x") }), placed},
		{"a missing answer", gone(placed), placed},
		{"the answer to a charge", gone(keys.Idempotency(0, user, "first")), keys.Idempotency(0, user, "first")},
		{"the answer to an admin", set(restocked, "x"), restocked},
		{"a price", set(catalogue, record), catalogue},
		{"a missing product", gone(catalogue), catalogue},
		{"an invented product", set(keys.Catalogue(0, 77), record), keys.Catalogue(0, 77)},
		{"the highest product", set(listed, "9"), listed},
		{"no highest product", gone(listed), listed},
		{"a missing balance", gone(keys.Balance(0, user)), keys.Balance(0, user)},
		{"an invented balance", set(keys.Balance(0, 77), "5"), keys.Balance(0, 77)},
		{"a missing share", gone(keys.Stock(0, product)), keys.Stock(0, product)},
		{"an invented share", set(keys.Stock(0, 77), "5"), keys.Stock(0, 77)},
		{"a key of no user", set(strings.TrimSuffix(meta, "meta")+"b:x", "5"), "b:x"},
		{"an open door that is shut", field("open", 0), meta},
		{"a later epoch", field("epoch", door.Epoch+1), meta},
		{"seq of the door", field("seq", door.Seq+1), meta},
		{"seq behind the books", field("seq", door.Seq-1), meta},
		{"events of earlier epochs", field("base", door.Base+5), meta},
		{"bytes of the backlog", field("bytes", door.Bytes+1), meta},
		{"bytes that the books are said to hold", field("done", door.Bytes+1), meta},
		{"what is said to have been let go", field("let_go", door.Events()), keys.Order(0, order.ID)},
		{"a missing stream entry", inRedis(events, func(p redis.Pipeliner) { p.XDel(ctx, events, "1-3") }), events},
		{"a stream entry that is none", inRedis(events, func(p redis.Pipeliner) {
			p.XAdd(ctx, &redis.XAddArgs{Stream: events, ID: "9-9", Values: []string{"x", "y"}})
		}), events + " 9-9"},
	}, "doors", "dense events", "readable events", "answers under keys", "catalogue in Redis = Postgres",
		"balance in Redis = Postgres", "stock in Redis = Postgres", "orders in Redis", "keys in Redis have a row")
}

// awaitSynced waits until the books know that Redis has every user and product.
func awaitSynced(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if number(t, conn, "SELECT (SELECT count(*) FROM users WHERE NOT in_redis) + (SELECT count(*) FROM products WHERE NOT in_redis)") == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("users and products are not synced")
		}
	}
}

func TestAudit_SummaryTellsWhatWasChecked(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Hold: shortHold, Partitions: 2})
	kinds(t, s, func() {})
	s.Written()
	var steps []string
	sum, err := s.Books.WatchedAudit(t.Context(), s.Redis,
		func(v persist.Violation) { t.Errorf("%+v", v) },
		func(p persist.Progress) {
			if len(steps) == 0 || steps[len(steps)-1] != p.Step {
				steps = append(steps, p.Step)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	checked := map[string]int64{}
	for _, c := range sum.Checks {
		checked[c.Check] = c.Rows
	}
	for _, name := range persist.AuditChecks() {
		if checked[name] == 0 {
			t.Errorf("%q looked at nothing in a shop that has everything: %v", name, checked)
		}
	}
	if checked["order states"] != sum.Orders || checked["readable events"] != sum.Events || checked["balance in Redis = Postgres"] != sum.Users {
		t.Errorf("%v of %+v", checked, sum)
	}
	if !slices.Contains(steps, "journal") || !slices.Contains(steps, "tables") || !slices.Contains(steps, "keys of Redis") {
		t.Errorf("told of the steps %v", steps)
	}
}

package persist_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
)

func TestAudit_FindsTampering(t *testing.T) {
	s, conn := start(t, shop.Config{})
	user, product := s.User(10_000), s.Product(100, 50)
	first := place(t, s, user, "a", line(product, 2))
	place(t, s, user, "b", line(product, 1))
	s.Written()
	auditClean(t, s)
	putBack := keepAside(t, conn)
	id := fmt.Sprint(first.ID)
	keys := s.Engine.Keys()
	set := func(key, value string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(key, func(p redis.Pipeliner) { p.Set(t.Context(), key, value, 0) })
	}
	top, minute := keys.Top(0), keys.Sold(0, first.CreatedAt.Unix()/60)
	cases := []tampering{
		{"balance in Postgres", inPostgres("UPDATE users SET balance = balance + 1", "UPDATE users SET balance = balance - 1"), "users id="},
		{"balance in Redis", set(keys.Balance(0, user), "9701"), "b:"},
		{"stock in Postgres", inPostgres("UPDATE products SET stock = stock + 1", "UPDATE products SET stock = stock - 1"), "products id="},
		{"stock in Redis", set(keys.Stock(0, product), "48"), "s:"},
		{"order in Redis", set(keys.Order(0, first.ID), "x"), "o:" + id},
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
		{"units of the top five", inRedis(top, func(p redis.Pipeliner) { p.ZIncrBy(t.Context(), top, -1, fmt.Sprintf("%016d", product)) }), top},
		{"a product of the top five", inRedis(top, func(p redis.Pipeliner) { p.ZRem(t.Context(), top, fmt.Sprintf("%016d", product)) }), top},
		{"an invented top seller", inRedis(top, func(p redis.Pipeliner) { p.ZAdd(t.Context(), top, redis.Z{Score: -9, Member: "0000000000000077"}) }), top},
		{"a top seller that is no product", inRedis(top, func(p redis.Pipeliner) { p.ZAdd(t.Context(), top, redis.Z{Score: -9, Member: "x"}) }), top},
		{"units of a minute", inRedis(minute, func(p redis.Pipeliner) { p.HIncrBy(t.Context(), minute, fmt.Sprint(product), 1) }), minute},
		{"a missing minute", inRedis(minute, func(p redis.Pipeliner) { p.Del(t.Context(), minute) }), minute},
		{"an invented minute", inRedis(keys.Sold(0, first.CreatedAt.Unix()/60-5), func(p redis.Pipeliner) {
			p.HSet(t.Context(), keys.Sold(0, first.CreatedAt.Unix()/60-5), "1", 1)
		}), keys.Sold(0, first.CreatedAt.Unix()/60-5)},
		{"the checkpoint", inPostgres("UPDATE checkpoints SET events = events + 1", "UPDATE checkpoints SET events = events - 1"), "checkpoints partition=0"},
	}
	tamper(t, s, conn, cases, "no oversell", "order total = its lines", "order states", "top five = Postgres", "journal = stream")
}

// The same for what orders go through, carts, and what Redis holds of them.
func TestAudit_FindsTamperingWithStepsAndCarts(t *testing.T) {
	s, conn := start(t, shop.Config{Hold: shortHold})
	orders := lasting(t, s)
	user, pending := orders["paid"].UserID, orders["pending"]
	addToCart(t, s, user, orders["paid"].Items[1].ProductID, 5)
	s.Written()
	auditClean(t, s)
	putBack := keepAside(t, conn)
	of := func(kind string) string { return fmt.Sprint(orders[kind].ID) }
	keys, ctx := s.Engine.Keys(), t.Context()
	holds, record, paidRecord := keys.Holds(0), keys.Order(0, pending.ID), keys.Order(0, orders["paid"].ID)
	member := string(binary.BigEndian.AppendUint64(nil, uint64(pending.ID)))
	cart, buyer := keys.Cart(0, user), fmt.Sprint(user)
	on := func(table, where, change string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		do := "UPDATE " + table + " SET " + change + " WHERE " + where
		if change == "" {
			do = "DELETE FROM " + table + " WHERE " + where
		}
		return inPostgres(do, putBack(table, where))
	}
	tamper(t, s, conn, []tampering{
		{"status of an unpaid order", on("orders", "id = "+fmt.Sprint(pending.ID), "status = 'CANCELED'"), "orders id=" + fmt.Sprint(pending.ID)},
		{"a refund that is no more", on("orders", "id = "+of("refunded"), "status = 'SUCCESS'"), "orders id=" + of("refunded")},
		{"deadline of an order", on("orders", "id = "+of("paid"), "expires_at = expires_at + interval '1 ms'"), "orders id=" + of("paid")},
		{"no deadline", on("orders", "id = "+of("expired"), "expires_at = NULL"), "orders id=" + of("expired")},
		{"time of the last step", on("orders", "id = "+of("failed"), "updated_at = updated_at + interval '1 s'"), "orders id=" + of("failed")},
		{"a missing step", on("order_history", "step = 2 AND order_id = "+of("refunded later"), ""), "order_history order_id=" + of("refunded later")},
		{"a missing last step", on("order_history", "step = 2 AND order_id = "+of("canceled"), ""), "orders id=" + of("canceled")},
		{"an illegal step", on("order_history", "step = 2 AND order_id = "+of("refunded"), "status = 'FAILED'"), "order_history order_id=" + of("refunded")},
		{"a step too many", inPostgres("INSERT INTO order_history VALUES ("+of("canceled")+", 3, 'REFUNDED', '', now())", putBack("order_history", "order_id = "+of("canceled"))), "order_history order_id=" + of("canceled")},
		{"time of a step", on("order_history", "step = 2 AND order_id = "+of("expired"), "at = at - interval '1 h'"), "order_history order_id=" + of("expired")},
		{"reason of a step", on("order_history", "step = 3 AND order_id = "+of("refunded"), "reason = ''"), "order_history order_id=" + of("refunded")},
		{"order of the lines", on("order_items", "order_id = "+of("paid"), "line = 3 - line"), "order_items order_id=" + of("paid")},
		{"a missing refund", on("balance_ledger", "kind = 'refund' AND ref_id = "+of("refunded"), ""), "orders id=" + of("refunded")},
		{"a refund of less", on("balance_ledger", "kind = 'refund' AND ref_id = "+of("refunded"), "amount = amount - 1"), "balance_ledger partition=0"},
		{"a refund twice", inPostgres("INSERT INTO balance_ledger SELECT partition, epoch, seq + 9000, user_id, amount, balance_after, kind, ref_id, at FROM balance_ledger WHERE kind = 'refund' AND ref_id = "+of("refunded"), "DELETE FROM balance_ledger WHERE seq > 9000"), "orders id=" + of("refunded")},
		{"a payment that was none", on("balance_ledger", "ref_id = "+of("paid"), "kind = 'charge'"), "orders id=" + of("paid")},
		{"a release that was none", on("stock_ledger", "kind = 'release' AND order_id = "+of("expired"), ""), "order_items order_id=" + of("expired")},
		{"a hold of less", on("stock_ledger", "kind = 'hold' AND order_id = "+fmt.Sprint(pending.ID), "delta = delta + 1"), "order_items order_id=" + fmt.Sprint(pending.ID)},
		{"a missing cart", on("carts", "user_id = "+buyer, ""), "carts user_id=" + buyer},
		{"a cart of another event", on("carts", "user_id = "+buyer, "seq = 1"), "carts user_id=" + buyer},
		{"time of a cart", on("carts", "user_id = "+buyer, "updated_at = updated_at + interval '1 ms'"), "carts user_id=" + buyer},
		{"an invented cart", inPostgres("INSERT INTO carts VALUES (999, 1, 1, now()); INSERT INTO cart_items VALUES (999, 1, 1, 1)", "DELETE FROM carts WHERE user_id = 999; DELETE FROM cart_items WHERE user_id = 999"), "carts user_id=999"},
		{"units in a cart", on("cart_items", "user_id = "+buyer, "quantity = quantity + 1"), "cart_items user_id=" + buyer},
		{"lines of a cart", on("cart_items", "user_id = "+buyer, "line = line + 1"), "cart_items user_id=" + buyer},
		{"a missing line of a cart", on("cart_items", "user_id = "+buyer, ""), "carts user_id=" + buyer},

		{"a missing hold", inRedis(holds, func(p redis.Pipeliner) { p.ZRem(ctx, holds, member) }), record},
		{"deadline of a hold", inRedis(holds, func(p redis.Pipeliner) { p.ZIncrBy(ctx, holds, 1, member) }), holds},
		{"an invented hold", inRedis(holds, func(p redis.Pipeliner) { p.ZAdd(ctx, holds, redis.Z{Score: 4e12, Member: "87654321"}) }), holds},
		{"a hold of a paid order", inRedis(holds, func(p redis.Pipeliner) {
			p.ZAdd(ctx, holds, redis.Z{Score: 4e12, Member: string(binary.BigEndian.AppendUint64(nil, uint64(orders["paid"].ID)))})
		}), holds},
		{"a hold that is no order", inRedis(holds, func(p redis.Pipeliner) { p.ZAdd(ctx, holds, redis.Z{Score: 4e12, Member: "x"}) }), holds},
		{"a missing unpaid order", inRedis(record, func(p redis.Pipeliner) { p.Del(ctx, record) }), record},
		{"a missing paid order", inRedis(paidRecord, func(p redis.Pipeliner) { p.Del(ctx, paidRecord) }), paidRecord},
		{"a paid order that is unpaid", inRedis(paidRecord, func(p redis.Pipeliner) { p.SetRange(ctx, paidRecord, 1, "\x01") }), paidRecord},
		{"a record of nothing", inRedis(keys.Order(0, 78), func(p redis.Pipeliner) { p.Copy(ctx, paidRecord, keys.Order(0, 78), 0, true) }), keys.Order(0, 78)},
		{"an invented cart in Redis", inRedis(keys.Cart(0, 3), func(p redis.Pipeliner) { p.Copy(ctx, cart, keys.Cart(0, 3), 0, true) }), keys.Cart(0, 3)},
		{"a missing cart in Redis", inRedis(cart, func(p redis.Pipeliner) { p.Del(ctx, cart) }), cart},
		{"a cart in Redis", inRedis(cart, func(p redis.Pipeliner) { p.Append(ctx, cart, "x") }), cart},
		{"units of a cart in Redis", inRedis(cart, func(p redis.Pipeliner) { p.SetRange(ctx, cart, 3, "\x01") }), cart},
	}, "carts", "carts in Redis = Postgres", "holds in Redis = Postgres", "orders in Redis", "order states")
}

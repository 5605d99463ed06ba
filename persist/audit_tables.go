package persist

import "context"

// tables checks what can be told from the tables alone: no row without an event, and sums that close.
func (a *audit) tables(ctx context.Context) error {
	var got counts
	err := a.snapshot.QueryRow(ctx, `SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items),
		(SELECT count(*) FROM order_history), (SELECT count(*) FROM balance_ledger), (SELECT count(*) FROM stock_ledger),
		(SELECT count(*) FROM carts), (SELECT count(*) FROM cart_items),
		(SELECT count(*) FROM users), (SELECT count(*) FROM products)`).Scan(
		&got.orders, &got.items, &got.history, &got.balances, &got.stocks, &got.carts, &got.cartItems, &a.sum.Users, &a.sum.Products)
	if err != nil {
		return err
	}
	a.sum.Orders = got.orders
	for _, t := range []struct {
		table     string
		got, want int64
	}{
		{"orders", got.orders, a.expected.orders},
		{"order_items", got.items, a.expected.items},
		{"order_history", got.history, a.expected.history},
		{"balance_ledger", got.balances, a.expected.balances},
		{"stock_ledger", got.stocks, a.expected.stocks},
		{"carts", got.carts, a.expected.carts},
		{"cart_items", got.cartItems, a.expected.cartItems},
	} {
		if t.got != t.want {
			a.violated("tables follow the journal", t.table, "has %d rows, the journal accounts for %d", t.got, t.want)
		}
	}
	// These checks go over whole tables, which may be too new to have statistics: a nested loop would be quadratic.
	if _, err := a.snapshot.Exec(ctx, "SET LOCAL enable_nestloop = off"); err != nil {
		return err
	}
	defer a.snapshot.Exec(context.WithoutCancel(ctx), "SET LOCAL enable_nestloop = on") //nolint:errcheck // ends with the transaction at the latest
	for _, c := range tableChecks {
		if err := a.each(ctx, c.name, c.sql); err != nil {
			return err
		}
	}
	return nil
}

// tableChecks return subject and detail of each row that breaks a sum or a rule, or that no event accounts for.
var tableChecks = []struct{ name, sql string }{
	{"rows without an event", `
		SELECT 'orders id=' || o.id, 'no posting in stock_ledger accounts for it' FROM orders o
		LEFT JOIN (SELECT DISTINCT order_id FROM stock_ledger WHERE kind IN ('order', 'hold')) l ON l.order_id = o.id
		WHERE l.order_id IS NULL LIMIT 100`},
	{"rows without an event", `
		SELECT 'order_items order_id=' || i.order_id || ' product_id=' || i.product_id, 'there is no such order' FROM order_items i
		LEFT JOIN orders o ON o.id = i.order_id WHERE o.id IS NULL LIMIT 100`},
	{"rows without an event", `
		SELECT 'order_history order_id=' || h.order_id || ' step=' || h.step, 'there is no such order' FROM order_history h
		LEFT JOIN orders o ON o.id = h.order_id WHERE o.id IS NULL LIMIT 100`},
	{"rows without an event", `
		SELECT 'balance_ledger partition=' || l.partition || ' epoch=' || l.epoch || ' seq=' || l.seq, 'the journal has no such event'
		FROM balance_ledger l LEFT JOIN checkpoints c USING (partition)
		WHERE c.partition IS NULL OR l.seq < 1 OR (l.epoch, l.seq) > (c.epoch, c.seq) LIMIT 100`},
	{"rows without an event", `
		SELECT 'stock_ledger partition=' || l.partition || ' epoch=' || l.epoch || ' seq=' || l.seq, 'the journal has no such event'
		FROM stock_ledger l LEFT JOIN checkpoints c USING (partition)
		WHERE c.partition IS NULL OR l.seq < 1 OR (l.epoch, l.seq) > (c.epoch, c.seq) LIMIT 100`},
	{"carts", `
		SELECT 'carts user_id=' || coalesce(c.user_id, i.user_id),
			CASE WHEN u.id IS NULL THEN 'there is no such user' WHEN c.user_id IS NULL THEN 'items stand without a cart' ELSE 'holds nothing' END
		FROM carts c FULL JOIN (SELECT DISTINCT user_id FROM cart_items) i ON i.user_id = c.user_id
		LEFT JOIN users u ON u.id = coalesce(c.user_id, i.user_id)
		WHERE c.user_id IS NULL OR i.user_id IS NULL OR u.id IS NULL LIMIT 100`},
	{"order states", `
		SELECT 'order_history order_id=' || order_id, 'goes ' || concat_ws(', ', first, second, third) || ' in ' || steps || ' steps, at '
			|| concat_ws(', ', first_at, second_at, third_at)
		FROM (` + histories + `) h
		WHERE first IS DISTINCT FROM 'PENDING' OR steps <> last OR last > 3 OR second_at < first_at OR third_at < second_at
			OR NOT coalesce(second, 'SUCCESS') IN ('SUCCESS', 'FAILED', 'CANCELED', 'EXPIRED')
			OR (third IS NOT NULL AND (third <> 'REFUNDED' OR second IS DISTINCT FROM 'SUCCESS'))`},
	{"order states", `
		SELECT 'orders id=' || o.id, 'is ' || o.status || ', updated at ' || o.updated_at || ', its history ends with '
			|| coalesce(third, second, first, 'nothing') || coalesce(' at ' || coalesce(third_at, second_at, first_at), '')
		FROM orders o LEFT JOIN (` + histories + `) h ON h.order_id = o.id
		WHERE o.status IS DISTINCT FROM coalesce(third, second, first)
			OR o.updated_at IS DISTINCT FROM coalesce(third_at, second_at, first_at) OR o.created_at IS DISTINCT FROM first_at
			OR (o.status IN ('PENDING', 'FAILED', 'EXPIRED', 'CANCELED') AND o.expires_at IS NULL)`},
	{"balance = postings", `
		SELECT 'users id=' || coalesce(u.id, l.user_id), 'balance is ' || coalesce(u.balance::text, 'missing') || ', its postings add up to ' || coalesce(l.sum, 0)
		FROM users u FULL JOIN (SELECT user_id, sum(amount) FROM balance_ledger GROUP BY user_id) l ON l.user_id = u.id
		WHERE u.balance IS DISTINCT FROM coalesce(l.sum, 0)`},
	{"stock = postings", `
		SELECT 'products id=' || coalesce(p.id, l.product_id), 'stock is ' || coalesce(p.stock::text, 'missing') || ', its postings add up to ' || coalesce(l.sum, 0)
		FROM products p FULL JOIN (SELECT product_id, sum(delta) FROM stock_ledger GROUP BY product_id) l ON l.product_id = p.id
		WHERE p.stock IS DISTINCT FROM coalesce(l.sum, 0)`},
	{"no oversell", `
		SELECT 'products id=' || p.id, p.stock || ' left, ' || coalesce(s.held, 0) || ' held and ' || coalesce(s.sold, 0) || ' sold of '
			|| coalesce(r.supplied, 0) || ' supplied'
		FROM products p
		LEFT JOIN (SELECT product_id, sum(delta) AS supplied FROM stock_ledger WHERE kind = 'restock' GROUP BY product_id) r ON r.product_id = p.id
		LEFT JOIN (SELECT product_id, sum(quantity) FILTER (WHERE status = 'PENDING') AS held,
				sum(quantity) FILTER (WHERE status = 'SUCCESS') AS sold
			FROM order_items JOIN orders ON id = order_id GROUP BY product_id) s ON s.product_id = p.id
		WHERE p.stock < 0 OR p.stock + coalesce(s.held, 0) + coalesce(s.sold, 0) <> coalesce(r.supplied, 0)`},
	{"order total = its lines", `
		SELECT 'orders id=' || o.id, 'total is ' || o.total_price || ', its lines add up to ' || coalesce(sum(i.quantity * i.price), 0)
		FROM orders o LEFT JOIN order_items i ON i.order_id = o.id GROUP BY o.id
		HAVING o.total_price IS DISTINCT FROM coalesce(sum(i.quantity * i.price), 0)`},
	{"order = its postings", `
		SELECT 'orders id=' || coalesce(o.id, l.ref_id), 'is ' || coalesce(o.status, 'missing') || ' with total ' || coalesce(o.total_price, 0)
			|| ', paid ' || coalesce(l.paid::text, 'nothing') || ', given back ' || coalesce(l.back::text, 'nothing')
		FROM orders o FULL JOIN (SELECT ref_id, -sum(amount) FILTER (WHERE kind = 'order') AS paid,
				sum(amount) FILTER (WHERE kind = 'refund') AS back, count(*) AS postings
			FROM balance_ledger WHERE kind IN ('order', 'refund') GROUP BY ref_id) l ON l.ref_id = o.id
		WHERE l.paid IS DISTINCT FROM CASE WHEN o.status IN ('SUCCESS', 'REFUNDED') THEN o.total_price END
			OR l.back IS DISTINCT FROM CASE WHEN o.status = 'REFUNDED' THEN o.total_price END
			OR coalesce(l.postings, 0) <> CASE o.status WHEN 'SUCCESS' THEN 1 WHEN 'REFUNDED' THEN 2 ELSE 0 END`},
	{"order = its postings", `
		SELECT 'order_items order_id=' || coalesce(i.order_id, l.order_id) || ' product_id=' || coalesce(i.product_id, l.product_id),
			coalesce(i.quantity::text, 'nothing') || ' of an order that is ' || coalesce(i.status, 'missing') || ', the stock postings add up to '
			|| coalesce(l.sum::text, 'nothing')
		FROM (SELECT order_id, product_id, quantity, status FROM order_items JOIN orders ON id = order_id) i
		FULL JOIN (SELECT order_id, product_id, sum(delta), count(*) AS postings FROM stock_ledger
			WHERE order_id IS NOT NULL GROUP BY order_id, product_id) l
			ON l.order_id = i.order_id AND l.product_id = i.product_id
		WHERE l.sum IS DISTINCT FROM CASE WHEN i.status IN ('PENDING', 'SUCCESS') THEN -i.quantity WHEN i.status IS NOT NULL THEN 0 END
			OR l.postings <> CASE WHEN i.status IN ('PENDING', 'SUCCESS') THEN 1 ELSE 2 END`},
	{"money", `
		SELECT 'all users', 'balances ' || b.sum || ' and revenue ' || o.sum || ' are not the charges ' || c.sum
		FROM (SELECT coalesce(sum(balance), 0) AS sum FROM users) b,
			(SELECT coalesce(sum(total_price), 0) AS sum FROM orders WHERE status = 'SUCCESS') o,
			(SELECT coalesce(sum(amount), 0) AS sum FROM balance_ledger WHERE kind = 'charge') c
		WHERE b.sum + o.sum <> c.sum`},
}

// histories puts the steps of each order into a row: the machine allows three.
const histories = `SELECT order_id, count(*) AS steps, max(step) AS last,
	max(status) FILTER (WHERE step = 1) AS first, max(at) FILTER (WHERE step = 1) AS first_at,
	max(status) FILTER (WHERE step = 2) AS second, max(at) FILTER (WHERE step = 2) AS second_at,
	max(status) FILTER (WHERE step = 3) AS third, max(at) FILTER (WHERE step = 3) AS third_at
	FROM order_history GROUP BY order_id`

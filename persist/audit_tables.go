package persist

import "context"

// tables checks what can be told from the tables alone: no row without an event, and sums that close.
func (a *audit) tables(ctx context.Context) error {
	var got counts
	err := a.snapshot.QueryRow(ctx, `SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items),
		(SELECT count(*) FROM order_history), (SELECT count(*) FROM balance_ledger), (SELECT count(*) FROM stock_ledger),
		(SELECT count(*) FROM users), (SELECT count(*) FROM products)`).Scan(
		&got.orders, &got.items, &got.history, &got.balances, &got.stocks, &a.sum.Users, &a.sum.Products)
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

// tableChecks return subject and detail of each row that breaks a sum, or that no event accounts for.
var tableChecks = []struct{ name, sql string }{
	{"rows without an event", `
		SELECT 'orders id=' || o.id, 'no posting in balance_ledger accounts for it' FROM orders o
		LEFT JOIN balance_ledger l ON l.kind = 'order' AND l.ref_id = o.id WHERE l.ref_id IS NULL LIMIT 100`},
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
	{"balance = postings", `
		SELECT 'users id=' || coalesce(u.id, l.user_id), 'balance is ' || coalesce(u.balance::text, 'missing') || ', its postings add up to ' || coalesce(l.sum, 0)
		FROM users u FULL JOIN (SELECT user_id, sum(amount) FROM balance_ledger GROUP BY user_id) l ON l.user_id = u.id
		WHERE u.balance IS DISTINCT FROM coalesce(l.sum, 0)`},
	{"stock = postings", `
		SELECT 'products id=' || coalesce(p.id, l.product_id), 'stock is ' || coalesce(p.stock::text, 'missing') || ', its postings add up to ' || coalesce(l.sum, 0)
		FROM products p FULL JOIN (SELECT product_id, sum(delta) FROM stock_ledger GROUP BY product_id) l ON l.product_id = p.id
		WHERE p.stock IS DISTINCT FROM coalesce(l.sum, 0)`},
	{"no oversell", `
		SELECT 'products id=' || p.id, p.stock || ' left and ' || coalesce(s.sold, 0) || ' sold of ' || coalesce(r.supplied, 0) || ' supplied'
		FROM products p
		LEFT JOIN (SELECT product_id, sum(delta) AS supplied FROM stock_ledger WHERE kind = 'restock' GROUP BY product_id) r ON r.product_id = p.id
		LEFT JOIN (SELECT product_id, sum(quantity) AS sold FROM order_items JOIN orders ON id = order_id
			WHERE status = 'SUCCESS' GROUP BY product_id) s ON s.product_id = p.id
		WHERE p.stock < 0 OR p.stock + coalesce(s.sold, 0) <> coalesce(r.supplied, 0)`},
	{"order total = its lines", `
		SELECT 'orders id=' || o.id, 'total is ' || o.total_price || ', its lines add up to ' || coalesce(sum(i.quantity * i.price), 0)
		FROM orders o LEFT JOIN order_items i ON i.order_id = o.id GROUP BY o.id
		HAVING o.total_price IS DISTINCT FROM coalesce(sum(i.quantity * i.price), 0)`},
	{"money", `
		SELECT 'all users', 'balances ' || b.sum || ' and revenue ' || o.sum || ' are not the charges ' || c.sum
		FROM (SELECT coalesce(sum(balance), 0) AS sum FROM users) b,
			(SELECT coalesce(sum(total_price), 0) AS sum FROM orders WHERE status = 'SUCCESS') o,
			(SELECT coalesce(sum(amount), 0) AS sum FROM balance_ledger WHERE kind = 'charge') c
		WHERE b.sum + o.sum <> c.sum`},
}

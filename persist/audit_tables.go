package persist

import (
	"context"
	"fmt"
)

// tablePlans suits checks that go over whole tables, which may be too new to have statistics: a nested loop would be
// quadratic.
const tablePlans = "SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = on; SET LOCAL enable_nestloop = off"

// tables checks what can be told from the tables alone: no row without an event, and sums that close.
func (a *audit) tables(ctx context.Context) error {
	var got counts
	err := a.snapshot.QueryRow(ctx, `SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_items),
		(SELECT count(*) FROM order_history), (SELECT count(*) FROM balance_ledger), (SELECT count(*) FROM stock_ledger),
		(SELECT count(*) FROM carts), (SELECT count(*) FROM cart_items), (SELECT count(*) FROM sales_hours),
		(SELECT count(*) FROM users), (SELECT count(*) FROM products)`).Scan(&got.orders, &got.items, &got.history, &got.balances,
		&got.stocks, &got.carts, &got.cartItems, &got.hours, &a.sum.Users, &a.sum.Products)
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
			a.violated(checkTables, t.table, "has %d rows, the journal accounts for %d", t.got, t.want)
		}
	}
	if _, err := a.snapshot.Exec(ctx, tablePlans); err != nil {
		return err
	}
	for i, c := range tableChecks {
		a.progress(Progress{"tables", int64(i), int64(len(tableChecks))})
		if err := a.each(ctx, c.name, c.sql); err != nil {
			return err
		}
		a.looked(c.name, c.rows(&got, &a.sum))
	}
	return a.firstShares(ctx)
}

// tableCheck is a query of the subject and the detail of each row that breaks a sum or a rule, or that no event accounts
// for. rows is how many it looks at.
type tableCheck struct {
	name, sql string
	rows      func(n *counts, s *Summary) int64
}

var tableChecks = []tableCheck{
	{
		checkNoEvent, `
		SELECT 'balance_ledger partition=' || l.partition || ' epoch=' || l.epoch || ' seq=' || l.seq, 'the journal has no such event'
		FROM balance_ledger l LEFT JOIN checkpoints c USING (partition)
		WHERE c.partition IS NULL OR l.seq < 1 OR (l.epoch, l.seq) > (c.epoch, c.seq) LIMIT 100`,
		func(n *counts, _ *Summary) int64 { return n.balances },
	},
	{
		checkNoEvent, `
		SELECT 'stock_ledger partition=' || l.partition || ' epoch=' || l.epoch || ' seq=' || l.seq, 'the journal has no such event'
		FROM stock_ledger l LEFT JOIN checkpoints c USING (partition)
		WHERE c.partition IS NULL OR l.seq < 1 OR (l.epoch, l.seq) > (c.epoch, c.seq) LIMIT 100`,
		func(n *counts, _ *Summary) int64 { return n.stocks },
	},
	{
		checkCarts, `
		SELECT 'carts user_id=' || coalesce(c.user_id, i.user_id),
			CASE WHEN u.id IS NULL THEN 'there is no such user' WHEN c.user_id IS NULL THEN 'items stand without a cart' ELSE 'holds nothing' END
		FROM carts c FULL JOIN (SELECT DISTINCT user_id FROM cart_items) i ON i.user_id = c.user_id
		LEFT JOIN users u ON u.id = coalesce(c.user_id, i.user_id)
		WHERE c.user_id IS NULL OR i.user_id IS NULL OR u.id IS NULL LIMIT 100`,
		func(n *counts, _ *Summary) int64 { return n.carts },
	},
	{
		checkStates, orderStates("orders", "order_history"),
		func(n *counts, _ *Summary) int64 { return n.orders },
	},
	{
		checkTotals, `
		SELECT 'orders id=' || o.id, 'total is ' || o.total_price || ', its lines add up to ' || coalesce(i.sum::text, 'nothing: it has none')
		FROM orders o LEFT JOIN (SELECT order_id, sum(quantity * price) FROM order_items GROUP BY order_id) i ON i.order_id = o.id
		WHERE o.total_price IS DISTINCT FROM i.sum`,
		func(n *counts, _ *Summary) int64 { return n.orders },
	},
	{
		checkBalances, `
		SELECT 'users id=' || coalesce(u.id, l.user_id), 'balance is ' || coalesce(u.balance::text, 'missing') || ', its postings add up to ' || coalesce(l.sum, 0)
		FROM users u FULL JOIN (SELECT user_id, sum(amount) FROM balance_ledger GROUP BY user_id) l ON l.user_id = u.id
		WHERE u.balance IS DISTINCT FROM coalesce(l.sum, 0)`,
		func(_ *counts, s *Summary) int64 { return s.Users },
	},
	{
		checkStocks, `
		SELECT 'products id=' || coalesce(p.id, l.product_id), 'stock is ' || coalesce(p.stock::text, 'missing') || ', its postings add up to ' || coalesce(l.sum, 0)
		FROM products p FULL JOIN (SELECT product_id, sum(delta) FROM stock_ledger GROUP BY product_id) l ON l.product_id = p.id
		WHERE p.stock IS DISTINCT FROM coalesce(l.sum, 0)`,
		func(_ *counts, s *Summary) int64 { return s.Products },
	},
	{
		checkOversell, `
		SELECT 'products id=' || p.id, p.stock || ' left, ' || coalesce(s.held, 0) || ' held, ' || coalesce(r.moving, 0) || ' under way and '
			|| coalesce(s.sold, 0) || ' sold of ' || coalesce(r.supplied, 0) || ' supplied'
		FROM products p
		LEFT JOIN (SELECT product_id, sum(delta) FILTER (WHERE kind = 'restock') AS supplied,
				-sum(delta) FILTER (WHERE kind <> 'restock') AS moving
			FROM stock_ledger WHERE kind IN ('restock', 'sent', 'received') GROUP BY product_id) r ON r.product_id = p.id
		LEFT JOIN (` + unitsOfOrders + `) s ON s.product_id = p.id
		WHERE p.stock < 0 OR r.moving < 0
			OR p.stock + coalesce(s.held, 0) + coalesce(s.sold, 0) + coalesce(r.moving, 0) <> coalesce(r.supplied, 0)`,
		func(_ *counts, s *Summary) int64 { return s.Products },
	},
	{
		checkUnpaid, `
		SELECT 'stock_ledger product_id=' || coalesce(l.product_id, s.product_id), 'postings hold ' || coalesce(l.held, 0) || ' units, unpaid orders '
			|| coalesce(s.held, 0)
		FROM (SELECT product_id, sum(held) AS held FROM stock_ledger GROUP BY product_id) l
		FULL JOIN (` + unitsOfOrders + `) s ON s.product_id = l.product_id
		WHERE coalesce(l.held, 0) <> coalesce(s.held, 0)`,
		func(_ *counts, s *Summary) int64 { return s.Products },
	},
	{
		checkMoney, `
		SELECT 'all users', 'balances ' || b.sum || ' and revenue ' || o.sum || ' are not the charges ' || c.sum
		FROM (SELECT coalesce(sum(balance), 0) AS sum FROM users) b,
			(SELECT coalesce(sum(total_price), 0) AS sum FROM orders WHERE status = 'SUCCESS') o,
			(SELECT coalesce(sum(amount), 0) AS sum FROM balance_ledger WHERE kind = 'charge') c
		WHERE b.sum + o.sum <> c.sum`,
		func(_ *counts, s *Summary) int64 { return s.Users },
	},
	shapesOfMoney, shapesOfStock, chainsOfMoney, chainsOfStock, receivedWasSent, oneUnderWay, moneyOfOrders, stockOfOrders, hoursOfSales,
}

// orderStates queries the orders, of some orders and their steps, whose history is not legal or does not end in what the
// order is. Steps follow each other by their number. By their time they do too, but for those that the release before wrote
// while the clock of Redis was set back: these are right, and stay as they are for ever. That a time is the one of the
// event, the comparison of the tables with the journal says.
func orderStates(orders, steps string) string {
	return `SELECT CASE WHEN legal IS false OR o.id IS NULL THEN 'order_history order_id=' || h.order_id ELSE 'orders id=' || o.id END,
			coalesce('is ' || o.status || ', updated at ' || o.updated_at, 'there is no such order') || ', its history goes '
				|| concat_ws(', ', first, second, third) || ' in ' || coalesce(steps, 0) || ' steps, at ' || concat_ws(', ', first_at, second_at, third_at)
		FROM ` + orders + ` o FULL JOIN (SELECT *, ` + legal + ` AS legal FROM (` + fmt.Sprintf(histories, steps) + `) h) h ON h.order_id = o.id
		WHERE legal IS NOT true OR o.status IS DISTINCT FROM coalesce(third, second, first)
			OR o.updated_at IS DISTINCT FROM coalesce(third_at, second_at, first_at) OR o.created_at IS DISTINCT FROM first_at
			OR (o.status IN ('PENDING', 'FAILED', 'EXPIRED', 'CANCELED') AND o.expires_at IS NULL)`
}

// statesOfSome are the rows of some orders, whose ids are the parameter.
var statesOfSome = orderStates("(SELECT * FROM orders WHERE id = ANY($1))", "(SELECT * FROM order_history WHERE order_id = ANY($1)) s")

// histories puts the steps of each order into a row: the machine allows three.
const histories = `SELECT order_id, count(*) AS steps, max(step) AS last,
	max(status) FILTER (WHERE step = 1) AS first, max(at) FILTER (WHERE step = 1) AS first_at,
	max(status) FILTER (WHERE step = 2) AS second, max(at) FILTER (WHERE step = 2) AS second_at,
	max(status) FILTER (WHERE step = 3) AS third, max(at) FILTER (WHERE step = 3) AS third_at
	FROM %s GROUP BY order_id`

// legal says whether a history is one of those that the machine allows.
const legal = `coalesce(first = 'PENDING' AND steps = last AND last <= 3
	AND coalesce(second, 'SUCCESS') IN ('SUCCESS', 'FAILED', 'CANCELED', 'EXPIRED')
	AND (third IS NULL OR (third = 'REFUNDED' AND second = 'SUCCESS')), false)`

// unitsOfOrders are the units that orders hold and have sold, by product.
const unitsOfOrders = `SELECT product_id, sum(quantity) FILTER (WHERE status = 'PENDING') AS held,
		sum(quantity) FILTER (WHERE status = 'SUCCESS') AS sold
	FROM order_items JOIN orders ON id = order_id WHERE status IN ('PENDING', 'SUCCESS') GROUP BY product_id`

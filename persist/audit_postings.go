package persist

// What each kind of posting looks like, whatever the others say. See the views money_postings and stock_postings: what one
// side of a posting gives the other takes, so each adds up to zero by itself.
var (
	shapesOfMoney = tableCheck{
		checkShapes, `
		SELECT 'balance_ledger partition=' || partition || ' epoch=' || epoch || ' seq=' || seq, 'a posting of ' || amount || ' is no ' || kind
		FROM balance_ledger
		WHERE NOT CASE kind WHEN 'charge' THEN amount > 0 WHEN 'order' THEN amount <= 0 WHEN 'refund' THEN amount >= 0 ELSE false END`,
		func(n *counts, _ *Summary) int64 { return n.balances },
	}
	shapesOfStock = tableCheck{
		checkShapes, `
		SELECT 'stock_ledger partition=' || partition || ' epoch=' || epoch || ' seq=' || seq || ' product_id=' || product_id,
			delta || ' on the shelf and ' || held || ' held, with ' || coalesce(stock_after::text, 'nothing told') || ' after it, of '
			|| coalesce('order ' || order_id, 'no order') || ' because of "' || reason || '" is no ' || kind
		FROM stock_ledger
		WHERE (order_id IS NULL) <> (kind = 'restock') OR (stock_after IS NULL) <> (kind = 'payment') OR (reason <> '' AND kind <> 'restock')
			OR NOT CASE kind WHEN 'restock' THEN delta <> 0 AND held = 0 WHEN 'order' THEN delta < 0 AND held = 0
				WHEN 'hold' THEN delta < 0 AND held = -delta WHEN 'payment' THEN delta = 0 AND held < 0
				WHEN 'release' THEN delta > 0 AND held = -delta WHEN 'refund' THEN delta > 0 AND held = 0 ELSE false END`,
		func(n *counts, _ *Summary) int64 { return n.stocks },
	}
)

// Every posting tells what stands after it: what stood after the one before, and its own amount. They are those of a user,
// and of a product in a partition.
var (
	chainsOfMoney = tableCheck{
		checkChains, `
		SELECT 'balance_ledger partition=' || partition || ' epoch=' || epoch || ' seq=' || seq,
			balance_after || ' after it are not ' || before || ' before it and ' || amount
		FROM (SELECT partition, epoch, seq, amount, balance_after,
				coalesce(lag(balance_after) OVER (PARTITION BY user_id ORDER BY epoch, seq), 0) AS before FROM balance_ledger) l
		WHERE balance_after <> before + amount`,
		func(n *counts, _ *Summary) int64 { return n.balances },
	}
	chainsOfStock = tableCheck{
		checkChains, `
		SELECT 'stock_ledger partition=' || partition || ' epoch=' || epoch || ' seq=' || seq || ' product_id=' || product_id,
			stock_after || ' after it are not ' || before || ' before it and ' || delta
		FROM (SELECT partition, epoch, seq, product_id, delta, stock_after,
				coalesce(lag(stock_after) OVER (PARTITION BY product_id, partition ORDER BY epoch, seq), 0) AS before
			FROM stock_ledger WHERE stock_after IS NOT NULL) l
		WHERE stock_after <> before + delta`,
		func(n *counts, _ *Summary) int64 { return n.stocks },
	}
)

// What an order's postings leave in each account is what its status says.
var (
	moneyOfOrders = tableCheck{
		checkPostings, `
		SELECT 'orders id=' || coalesce(o.id, l.ref_id), 'is ' || coalesce(o.status, 'missing') || ' with total ' || coalesce(o.total_price, 0)
			|| ', its postings leave ' || coalesce(l.buyer, 0) || ' with the buyer and ' || coalesce(-l.buyer, 0) || ' in revenue, by '
			|| coalesce(l.orders, 0) || ' payments and ' || coalesce(l.refunds, 0) || ' refunds'
		FROM orders o FULL JOIN (SELECT ref_id, sum(amount) AS buyer, count(*) FILTER (WHERE kind = 'order') AS orders,
				count(*) FILTER (WHERE kind = 'refund') AS refunds
			FROM balance_ledger WHERE kind IN ('order', 'refund') GROUP BY ref_id) l ON l.ref_id = o.id
		WHERE (coalesce(l.buyer, 0), coalesce(l.orders, 0), coalesce(l.refunds, 0)) IS DISTINCT FROM
			(CASE o.status WHEN 'SUCCESS' THEN -o.total_price ELSE 0 END::numeric,
			CASE WHEN o.status IN ('SUCCESS', 'REFUNDED') THEN 1 ELSE 0 END::bigint, CASE o.status WHEN 'REFUNDED' THEN 1 ELSE 0 END::bigint)`,
		func(n *counts, _ *Summary) int64 { return n.orders },
	}
	stockOfOrders = tableCheck{
		checkPostings, `
		SELECT 'order_items order_id=' || coalesce(i.order_id, l.order_id) || ' product_id=' || coalesce(i.product_id, l.product_id),
			coalesce(i.quantity::text, 'nothing') || ' of an order that is ' || coalesce(i.status, 'missing') || ', its postings leave '
			|| coalesce(l.shelf, 0) || ' on the shelf, ' || coalesce(l.held, 0) || ' held and ' || coalesce(-l.shelf - l.held, 0) || ' sold, in '
			|| coalesce(l.postings, 0)
		FROM (SELECT order_id, product_id, quantity, status, expires_at FROM order_items LEFT JOIN orders ON id = order_id) i
		FULL JOIN (SELECT order_id, product_id, sum(delta) AS shelf, sum(held) AS held, count(*) AS postings FROM stock_ledger
			WHERE order_id IS NOT NULL GROUP BY order_id, product_id) l
			ON l.order_id = i.order_id AND l.product_id = i.product_id
		WHERE i.status IS NULL OR (l.shelf, l.held, l.postings) IS DISTINCT FROM CASE i.status
			WHEN 'PENDING' THEN (-i.quantity::numeric, 0::numeric + i.quantity, 1::bigint)
			WHEN 'SUCCESS' THEN (-i.quantity::numeric, 0::numeric, CASE WHEN i.expires_at IS NULL THEN 1 ELSE 2 END::bigint)
			WHEN 'REFUNDED' THEN (0::numeric, 0::numeric, CASE WHEN i.expires_at IS NULL THEN 2 ELSE 3 END::bigint)
			ELSE (0::numeric, 0::numeric, 2::bigint) END`,
		func(n *counts, _ *Summary) int64 { return n.items },
	}
)

// hoursOfSales recomputes sales_hours from orders and the payments in the ledger. An hour of which everything was given
// back may stand there with zeros.
var hoursOfSales = tableCheck{
	checkHours, `
	SELECT 'sales_hours hour=' || coalesce(s.hour, o.hour) || ' product_id=' || coalesce(s.product_id, o.product_id)
			|| ' partition=' || coalesce(s.partition, o.partition),
		'is ' || coalesce(s.units || ' units for ' || s.revenue || ' in ' || s.orders || ' orders', 'missing') || ', the orders make '
			|| coalesce(o.units || ' units for ' || o.revenue || ' in ' || o.orders || ' orders', 'none')
	FROM sales_hours s
	FULL JOIN (SELECT b.partition, date_trunc('hour', b.at, 'UTC') AS hour, i.product_id, sum(i.quantity) AS units,
			sum(i.quantity * i.price) AS revenue, count(*) AS orders
		FROM balance_ledger b JOIN orders o ON o.id = b.ref_id JOIN order_items i ON i.order_id = o.id
		WHERE b.kind = 'order' AND o.status = 'SUCCESS' GROUP BY 1, 2, 3) o
		ON o.hour = s.hour AND o.product_id = s.product_id AND o.partition = s.partition
	WHERE (coalesce(s.units, 0), coalesce(s.revenue, 0), coalesce(s.orders, 0))
		IS DISTINCT FROM (coalesce(o.units, 0), coalesce(o.revenue, 0), coalesce(o.orders, 0))`,
	func(n *counts, _ *Summary) int64 { return n.hours },
}

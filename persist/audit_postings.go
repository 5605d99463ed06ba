package persist

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

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
		WHERE (order_id IS NULL) <> (kind IN ('restock', 'sent', 'received')) OR (stock_after IS NULL) <> (kind = 'payment') OR (reason <> '' AND kind <> 'restock')
			OR num_nonnulls(peer, sent_epoch, sent_seq) <> CASE WHEN kind IN ('sent', 'received') THEN 3 ELSE 0 END OR peer = partition
			OR NOT CASE kind WHEN 'restock' THEN delta <> 0 AND held = 0 WHEN 'order' THEN delta < 0 AND held = 0
				WHEN 'hold' THEN delta < 0 AND held = -delta WHEN 'payment' THEN delta = 0 AND held < 0
				WHEN 'release' THEN delta > 0 AND held = -delta WHEN 'refund' THEN delta > 0 AND held = 0
				WHEN 'sent' THEN delta < 0 AND held = 0 AND (sent_epoch, sent_seq) = (epoch, seq)
				WHEN 'received' THEN delta > 0 AND held = 0 ELSE false END`,
		func(n *counts, _ *Summary) int64 { return n.stocks },
	}
)

// Every posting tells what stands after it: what stood after the one before, and its own amount. They are those of a user,
// and of a product in a partition, where they begin anew with each layout: see firstShares.
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
		FROM (SELECT *, coalesce(lag(stock_after) OVER (PARTITION BY product_id, partition, layout ORDER BY epoch, seq),
				CASE WHEN layout > 1 THEN stock_after - delta ELSE 0 END) AS before
			FROM (SELECT partition, epoch, seq, product_id, delta, stock_after, ` + layoutOf + ` AS layout
				FROM stock_ledger WHERE stock_after IS NOT NULL) s) l
		WHERE stock_after <> before + delta`,
		func(n *counts, _ *Summary) int64 { return n.stocks },
	}
)

// layoutOf numbers the layouts, from 1.
const layoutOf = "width_bucket(epoch, (SELECT array_agg(epoch ORDER BY epoch) FROM layouts))"

// selectFirstShares reads, of each product and partition, the first posting of each layout but the first, with what stood
// before it, and all that the product's postings of earlier layouts add up to.
const selectFirstShares = `SELECT partition, epoch, seq, product_id, layout, stock_after - delta, carried
	FROM (SELECT *, row_number() OVER (PARTITION BY product_id, partition, layout ORDER BY epoch, seq) AS n,
			coalesce(sum(delta) OVER (PARTITION BY product_id ORDER BY layout RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)::bigint AS carried
		FROM (SELECT partition, epoch, seq, product_id, delta, stock_after, ` + layoutOf + ` AS layout
			FROM stock_ledger WHERE stock_after IS NOT NULL) s) l
	WHERE n = 1 AND layout > 1`

// firstShares makes sure that each layout began with all stock in the products' home partitions.
func (a *audit) firstShares(ctx context.Context) error {
	if len(a.layouts) == 1 {
		return nil
	}
	keys := make([]*engine.Keys, len(a.layouts))
	for i, l := range a.layouts {
		var err error
		if keys[i], err = engine.NewKeys(l.partitions); err != nil {
			return err
		}
	}
	rows, err := a.snapshot.Query(ctx, selectFirstShares)
	if err != nil {
		return fmt.Errorf("checking %s: %w", checkChains, err)
	}
	var partition, layout int
	var at engine.Position
	var product, found, carried int64
	_, err = pgx.ForEachRow(rows, []any{&partition, &at.Epoch, &at.Seq, &product, &layout, &found, &carried}, func() error {
		want := int64(0)
		if keys[layout-1].Home(product) == partition {
			want = carried
		}
		a.looked(checkChains, 1)
		if found != want {
			a.violated(checkChains, fmt.Sprintf("stock_ledger partition=%d epoch=%d seq=%d product_id=%d", partition, at.Epoch, at.Seq, product),
				"is the first of its layout, %d stood before it and not %d", found, want)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("checking %s: %w", checkChains, err)
	}
	return nil
}

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

// hoursOfSales recomputes sales_hours from the payments and refunds in the ledger. An hour of which everything was given
// back may stand there with zeros; one that was given back in a later layout than it was sold in may be negative.
var hoursOfSales = tableCheck{
	checkHours, `
	SELECT 'sales_hours hour=' || coalesce(s.hour, o.hour) || ' product_id=' || coalesce(s.product_id, o.product_id)
			|| ' partition=' || coalesce(s.partition, o.partition),
		'is ' || coalesce(s.units || ' units for ' || s.revenue || ' in ' || s.orders || ' orders', 'missing') || ', the orders make '
			|| coalesce(o.units || ' units for ' || o.revenue || ' in ' || o.orders || ' orders', 'none')
	FROM sales_hours s
	FULL JOIN (SELECT b.partition, date_trunc('hour', b.at, 'UTC') AS hour, i.product_id, sum(sign * i.quantity) AS units,
			sum(sign * i.quantity * i.price) AS revenue, sum(sign) AS orders
		FROM (SELECT partition, at, ref_id, 1 AS sign FROM balance_ledger WHERE kind = 'order'
			UNION ALL SELECT r.partition, s.at, r.ref_id, -1 FROM balance_ledger r JOIN balance_ledger s ON s.ref_id = r.ref_id
			WHERE r.kind = 'refund' AND s.kind = 'order') b
		JOIN order_items i ON i.order_id = b.ref_id GROUP BY 1, 2, 3) o
		ON o.hour = s.hour AND o.product_id = s.product_id AND o.partition = s.partition
	WHERE (coalesce(s.units, 0), coalesce(s.revenue, 0), coalesce(s.orders, 0))
		IS DISTINCT FROM (coalesce(o.units, 0), coalesce(o.revenue, 0), coalesce(o.orders, 0))`,
	func(n *counts, _ *Summary) int64 { return n.hours },
}

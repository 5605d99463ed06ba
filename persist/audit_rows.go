package persist

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// comparison is a query that returns subject and detail of each row that differs.
type comparison struct {
	sql  string
	args []any
}

// comparisons are those of the rows of a run of events, from the first position to the last.
func (r *rows) comparisons(p int, first, last engine.Position) []comparison {
	o, i, h, b, s := &r.orders, &r.items, &r.history, &r.balances, &r.stocks
	run := []any{first.Epoch, first.Seq, last.Epoch, last.Seq}
	return []comparison{
		{compareOrders, []any{o.id, o.user, o.total, o.created, o.expires}},
		{compareItems, []any{o.id, i.order, i.product, i.quantity, i.price, i.line}},
		{compareHistory, []any{h.order, h.step, h.status, h.reason, h.at}},
		{compareBalances, append([]any{p, b.epoch, b.seq, b.user, b.amount, b.after, b.ref, b.kind, b.at}, run...)},
		{compareStocks, append([]any{p, s.epoch, s.seq, s.product, s.delta, s.after, s.order, s.kind, s.reason, s.at}, run...)},
	}
}

// Each takes the arrays of its insert and joins them with the rows that stand in their place. What an order is in the end
// follows from its history, see tableChecks. A full join is never a nested loop, which would be quadratic.
const (
	compareOrders = `SELECT 'orders id=' || w.id, 'is ' || coalesce(t::text, 'missing') || ', the journal says ' || w::text
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[], $5::timestamptz[])
			AS w(id, user_id, total_price, created_at, expires_at)
		FULL JOIN (SELECT id, user_id, total_price, created_at, expires_at FROM orders WHERE id = ANY($1)) t USING (id)
		WHERE (w.id, w.user_id, w.total_price, w.created_at, w.expires_at)
			IS DISTINCT FROM (t.id, t.user_id, t.total_price, t.created_at, t.expires_at)`
	compareItems = `SELECT 'order_items order_id=' || coalesce(w.order_id, t.order_id) || ' product_id=' || coalesce(w.product_id, t.product_id),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::smallint[])
			AS w(order_id, product_id, quantity, price, line)
		FULL JOIN (SELECT * FROM order_items WHERE order_id = ANY($1)) t USING (order_id, product_id)
		WHERE (w.order_id, w.quantity, w.price, w.line) IS DISTINCT FROM (t.order_id, t.quantity, t.price, t.line)`
	compareHistory = `SELECT 'order_history order_id=' || w.order_id || ' step=' || w.step,
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || w::text
		FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[]) AS w(order_id, step, status, reason, at)
		FULL JOIN (SELECT * FROM order_history WHERE order_id = ANY($1)) t USING (order_id, step)
		WHERE CASE WHEN w.order_id IS NULL THEN false -- a step of another run
			ELSE (w.order_id, w.status, w.reason, w.at) IS DISTINCT FROM (t.order_id, t.status, t.reason, t.at) END`
	compareBalances = `SELECT 'balance_ledger partition=' || $1::smallint || ' epoch=' || coalesce(w.epoch, t.epoch) || ' seq=' || coalesce(w.seq, t.seq),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::timestamptz[])
			AS w(epoch, seq, user_id, amount, balance_after, ref_id, kind, at)
		FULL JOIN (SELECT * FROM balance_ledger WHERE partition = $1::smallint
			AND (epoch, seq) BETWEEN ($10::bigint, $11::bigint) AND ($12::bigint, $13::bigint)) t USING (epoch, seq)
		WHERE (w.user_id, w.amount, w.balance_after, w.ref_id, w.kind, w.at)
			IS DISTINCT FROM (t.user_id, t.amount, t.balance_after, t.ref_id, t.kind, t.at)`
	compareStocks = `SELECT 'stock_ledger partition=' || $1::smallint || ' epoch=' || coalesce(w.epoch, t.epoch)
				|| ' seq=' || coalesce(w.seq, t.seq) || ' product_id=' || coalesce(w.product_id, t.product_id),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::timestamptz[])
			AS w(epoch, seq, product_id, delta, stock_after, order_id, kind, reason, at)
		FULL JOIN (SELECT * FROM stock_ledger WHERE partition = $1::smallint
			AND (epoch, seq) BETWEEN ($11::bigint, $12::bigint) AND ($13::bigint, $14::bigint)) t USING (epoch, seq, product_id)
		WHERE (w.delta, w.stock_after, w.order_id, w.kind, w.reason, w.at)
			IS DISTINCT FROM (t.delta, t.stock_after, t.order_id, t.kind, t.reason, t.at)`
)

// each reports every row of a query that returns subject and detail.
func (a *audit) each(ctx context.Context, check, sql string, args ...any) error {
	rows, err := a.snapshot.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("checking %s: %w", check, err)
	}
	var subject, detail string
	_, err = pgx.ForEachRow(rows, []any{&subject, &detail}, func() error {
		a.violated(check, subject, "%s", detail)
		return nil
	})
	if err != nil {
		return fmt.Errorf("checking %s: %w", check, err)
	}
	return nil
}

package persist

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// compareRows compares what a run of events of an epoch accounts for, from the first position to the last, with the rows
// that stand in the tables: by tallies, and where these differ row by row.
func (a *audit) compareRows(ctx context.Context, p int, r *rows, first, last engine.Position) error {
	for _, t := range r.runTables(p, first, last) {
		want, err := t.wanted()
		if err != nil {
			return err
		}
		*t.count(&a.expected) += want.rows
		a.looked(checkTables, want.rows)
		found, err := a.copied(ctx, t.found...)
		if err != nil {
			return err
		}
		if found == want {
			continue
		}
		if err := a.each(ctx, checkTables, t.sql, t.args...); err != nil {
			return err
		}
	}
	return nil
}

// runTable is a table with the rows that a run of events added to it.
type runTable struct {
	count func(*counts) *int64
	rows  int
	row   func(c *copier, i int) // as COPY writes it
	found []string               // queries of what stands in their place
	sql   string                 // returns subject and detail of each row that differs
	args  []any
}

func (t *runTable) wanted() (tally, error) {
	c := copier{b: make([]byte, 0, 96*t.rows)}
	c.begin()
	for i := range t.rows {
		t.row(&c, i)
	}
	return tallied(c.b)
}

func (r *rows) runTables(p int, first, last engine.Position) []runTable {
	o, i, h, b, s := &r.orders, &r.items, &r.history, &r.balances, &r.stocks
	run := []any{first.Epoch, first.Seq, last.Epoch, last.Seq}
	within := fmt.Sprintf(" WHERE partition = %d AND epoch = %d AND seq BETWEEN %d AND %d", p, first.Epoch, first.Seq, last.Seq)
	tables := make([]runTable, 0, len(added))
	for _, t := range added {
		name, columns, _ := strings.Cut(t.table, " ")
		next := runTable{rows: t.rows(r), row: func(c *copier, i int) { t.row(c, r, int16(p), i) }} //nolint:gosec // at most PartitionsMax
		read := "SELECT " + strings.Trim(columns, "()") + " FROM " + name
		switch name {
		case "orders": // status and time of the last step follow from the history, see tableChecks
			next.row, read = r.orderRow, "SELECT id, user_id, total_price, created_at, expires_at FROM orders"
			next.found = oneOf(read+" WHERE id", o.id)
			next.sql, next.args = compareOrders, []any{o.id, o.user, o.total, o.created, o.expires}
			next.count = func(n *counts) *int64 { return &n.orders }
		case "order_items":
			next.found = oneOf(read+" WHERE order_id", o.id)
			next.sql, next.args = compareItems, []any{o.id, i.order, i.product, i.quantity, i.price, i.line}
			next.count = func(n *counts) *int64 { return &n.items }
		case "order_history":
			next.found = r.stepsOf(read)
			next.sql, next.args = compareHistory, []any{h.order, h.step, h.status, h.reason, h.at}
			next.count = func(n *counts) *int64 { return &n.history }
		case "balance_ledger":
			next.found = []string{read + within}
			next.sql, next.args = compareBalances, append([]any{p, b.epoch, b.seq, b.user, b.amount, b.after, b.ref, b.kind, b.at}, run...)
			next.count = func(n *counts) *int64 { return &n.balances }
		case "stock_ledger":
			next.found = []string{read + within}
			next.sql, next.args = compareStocks, append([]any{
				p, s.epoch, s.seq, s.product, s.delta, s.held, s.after, s.order, s.kind, s.reason, s.at,
				s.peer, s.sentEpoch, s.sentSeq,
			}, run...)
			next.count = func(n *counts) *int64 { return &n.stocks }
		}
		tables = append(tables, next)
	}
	return tables
}

// orderRow writes what never changes of an order.
func (r *rows) orderRow(c *copier, i int) {
	t := &r.orders
	c.row(5)
	c.int64s(t.id[i], t.user[i], t.total[i])
	c.time(t.created[i])
	c.timeOrNull(t.expires[i])
}

// stepsOf queries the steps that the run added: an order may have taken others before and after. The steps of an order
// follow each other.
func (r *rows) stepsOf(read string) (queries []string) {
	type span struct{ from, to int16 }
	spans := map[int64]span{}
	for i, id := range r.history.order {
		step := r.history.step[i]
		s, known := spans[id]
		if !known {
			s.from = step
		}
		spans[id] = span{s.from, step}
	}
	bySpan := map[span][]int64{}
	for id, s := range spans {
		bySpan[s] = append(bySpan[s], id)
	}
	for s, ids := range bySpan {
		queries = append(queries, oneOf(fmt.Sprintf("%s WHERE step BETWEEN %d AND %d AND order_id", read, s.from, s.to), ids)...)
	}
	return queries
}

// oneOf ends a query: the column that it ends in is one of some ids. COPY takes no parameters.
func oneOf(query string, ids []int64) []string {
	if len(ids) == 0 {
		return nil
	}
	b := append([]byte(query), " = ANY('{"...)
	for i, id := range ids {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, id, 10)
	}
	return []string{string(append(b, "}')"...))}
}

// tally tells sets of rows apart: their number and the sum of their hashes, whatever their order.
type tally struct {
	rows int64
	sum  uint64
}

var tallySeed = maphash.MakeSeed()

// tallied reads rows as COPY ... (FORMAT binary) writes them: PostgreSQL manual, "COPY", "Binary Format".
func tallied(body []byte) (t tally, err error) {
	errShort := errors.New("COPY ended in the middle of a row")
	if len(body) < len(copySignature)+8 {
		return t, errShort
	}
	for rest := body[len(copySignature)+8:]; len(rest) >= 2; {
		fields := int16(binary.BigEndian.Uint16(rest)) //nolint:gosec // -1 is the end
		if fields < 0 {
			break
		}
		n := 2
		for range fields {
			if len(rest) < n+4 {
				return t, errShort
			}
			length := int32(binary.BigEndian.Uint32(rest[n:])) //nolint:gosec // -1 is null
			n += 4 + int(max(0, length))
		}
		if len(rest) < n {
			return t, errShort
		}
		t.rows++
		t.sum += maphash.Bytes(tallySeed, rest[:n])
		rest = rest[n:]
	}
	return t, nil
}

// copied tallies what queries return.
func (a *audit) copied(ctx context.Context, queries ...string) (all tally, err error) {
	for _, sql := range queries {
		a.copy.Reset()
		if _, err := a.snapshot.Conn().PgConn().CopyTo(ctx, &a.copy, "COPY ("+sql+") TO STDOUT (FORMAT binary)"); err != nil {
			return all, fmt.Errorf("comparing tables: %w", err)
		}
		t, err := tallied(a.copy.Bytes())
		if err != nil {
			return all, err
		}
		all.rows, all.sum = all.rows+t.rows, all.sum+t.sum
	}
	return all, nil
}

// What differs, row by row. Each takes the arrays of the rows and joins them with the rows that stand in their place. What an order is in the end
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
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
			$9::text[], $10::text[], $11::timestamptz[], $12::smallint[], $13::bigint[], $14::bigint[])
			AS w(epoch, seq, product_id, delta, held, stock_after, order_id, kind, reason, at, peer, sent_epoch, sent_seq)
		FULL JOIN (SELECT * FROM stock_ledger WHERE partition = $1::smallint
			AND (epoch, seq) BETWEEN ($15::bigint, $16::bigint) AND ($17::bigint, $18::bigint)) t USING (epoch, seq, product_id)
		WHERE (w.delta, w.held, w.stock_after, w.order_id, w.kind, w.reason, w.at, w.peer, w.sent_epoch, w.sent_seq)
			IS DISTINCT FROM (t.delta, t.held, t.stock_after, t.order_id, t.kind, t.reason, t.at, t.peer, t.sent_epoch, t.sent_seq)`
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

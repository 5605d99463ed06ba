package persist

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// rows are the derived rows of a run of journal entries, column by column as unnest takes them.
type rows struct {
	orders struct {
		id, user, total []int64
		status          []string
		created         []time.Time
		updated         []time.Time
	}
	items struct {
		order, product, quantity, price []int64
	}
	history struct {
		order  []int64
		step   []int16
		status []string
		reason []string
		at     []time.Time
	}
	balances struct {
		epoch, seq, user, amount, after, ref []int64
		kind                                 []string
		at                                   []time.Time
	}
	stocks struct {
		epoch, seq, product, delta, after []int64
		order                             []*int64
		kind, reason                      []string
		at                                []time.Time
	}
	balanceOf map[int64]int64 // the last one of each user
	deltaOf   map[int64]int64 // the sum of each product
	events    int64
}

// derive turns entries into rows. The writer inserts them and the audit compares with them, so that the tables are a
// function of the journal.
func derive(entries []engine.Entry) (*rows, error) {
	r := &rows{balanceOf: map[int64]int64{}, deltaOf: map[int64]int64{}}
	for i := range entries {
		events, err := entries[i].Events()
		if err != nil {
			return nil, err
		}
		for j := range events {
			at := engine.Position{Epoch: entries[i].Last.Epoch, Seq: entries[i].First + int64(j)}
			if err := r.add(at, &events[j]); err != nil {
				return nil, err
			}
		}
	}
	return r, nil
}

func (r *rows) add(at engine.Position, e *engine.Event) error {
	r.events++
	switch e.Kind {
	case engine.Ordered:
		order := e.Order()
		r.addOrder(&order)
		r.addBalance(at, e.UserID, -e.Total, e.Balance, "order", e.RefID, e.At)
		for i, l := range e.Lines {
			r.addStock(at, l.ProductID, -l.Quantity, e.StocksAfter[i], "order", &order.ID, "", e.At)
		}
	case engine.Credited:
		r.addBalance(at, e.UserID, e.Amount, e.Balance, "charge", e.RefID, e.At)
	case engine.Restocked:
		r.addStock(at, e.ProductID, e.Delta, e.Stock, "restock", nil, e.Reason, e.At)
	default:
		return fmt.Errorf("event %v: nothing is derived from kind %d", at, e.Kind)
	}
	return nil
}

func (r *rows) addOrder(o *engine.Order) {
	t := &r.orders
	t.id, t.user, t.total = append(t.id, o.ID), append(t.user, o.UserID), append(t.total, o.Total)
	t.status = append(t.status, o.Status.String())
	t.created, t.updated = append(t.created, o.CreatedAt), append(t.updated, o.UpdatedAt())
	for _, i := range o.Items {
		t := &r.items
		t.order, t.product = append(t.order, o.ID), append(t.product, i.ProductID)
		t.quantity, t.price = append(t.quantity, i.Quantity), append(t.price, i.Price)
	}
	for n, s := range o.History {
		t := &r.history
		t.order, t.step = append(t.order, o.ID), append(t.step, int16(n+1)) //nolint:gosec // a few steps
		t.status, t.reason = append(t.status, s.Status.String()), append(t.reason, s.Reason)
		t.at = append(t.at, s.At)
	}
}

func (r *rows) addBalance(at engine.Position, user, amount, after int64, kind string, ref int64, when time.Time) {
	t := &r.balances
	t.epoch, t.seq, t.user = append(t.epoch, at.Epoch), append(t.seq, at.Seq), append(t.user, user)
	t.amount, t.after, t.ref = append(t.amount, amount), append(t.after, after), append(t.ref, ref)
	t.kind, t.at = append(t.kind, kind), append(t.at, when)
	r.balanceOf[user] = after
}

func (r *rows) addStock(at engine.Position, product, delta, after int64, kind string, order *int64, reason string, when time.Time) {
	t := &r.stocks
	t.epoch, t.seq, t.product = append(t.epoch, at.Epoch), append(t.seq, at.Seq), append(t.product, product)
	t.delta, t.after, t.order = append(t.delta, delta), append(t.after, after), append(t.order, order)
	t.kind, t.reason, t.at = append(t.kind, kind), append(t.reason, reason), append(t.at, when)
	r.deltaOf[product] += delta
}

// Inserts of derived rows: one statement a table, fed by arrays.
const (
	insertEvents = `INSERT INTO events (partition, epoch, first_seq, last_seq, version, payload)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[], $6::bytea[])`
	insertOrders = `INSERT INTO orders (id, user_id, total_price, status, created_at, updated_at)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[])`
	insertItems = `INSERT INTO order_items (order_id, product_id, quantity, price)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])`
	insertHistory = `INSERT INTO order_history (order_id, step, status, reason, at)
		SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[])`
	insertBalances = `INSERT INTO balance_ledger (partition, epoch, seq, user_id, amount, balance_after, ref_id, kind, at)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
			$8::text[], $9::timestamptz[])`
	insertStocks = `INSERT INTO stock_ledger (partition, epoch, seq, product_id, delta, stock_after, order_id, kind, reason, at)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
			$8::text[], $9::text[], $10::timestamptz[])`
	updateBalances = `UPDATE users u SET balance = n.balance
		FROM unnest($1::bigint[], $2::bigint[]) AS n(id, balance) WHERE u.id = n.id`
	// Writers of several partitions meet on products: locking in one order keeps them from deadlocks.
	updateStocks = `WITH n AS (SELECT * FROM unnest($1::bigint[], $2::bigint[]) AS n(id, delta)),
		locked AS MATERIALIZED (SELECT p.id FROM products p JOIN n USING (id) ORDER BY p.id FOR NO KEY UPDATE OF p)
		UPDATE products p SET stock = p.stock + n.delta FROM n, locked WHERE p.id = n.id AND p.id = locked.id`
)

// queue adds the inserts of everything derived to a batch.
func (r *rows) queue(b *pgx.Batch, partition int) {
	if o := &r.orders; len(o.id) > 0 {
		b.Queue(insertOrders, o.id, o.user, o.total, o.status, o.created, o.updated)
		i := &r.items
		b.Queue(insertItems, i.order, i.product, i.quantity, i.price)
		h := &r.history
		b.Queue(insertHistory, h.order, h.step, h.status, h.reason, h.at)
	}
	if t := &r.balances; len(t.seq) > 0 {
		b.Queue(insertBalances, partition, t.epoch, t.seq, t.user, t.amount, t.after, t.ref, t.kind, t.at)
		b.Queue(updateBalances, keysAndValues(r.balanceOf)...)
	}
	if t := &r.stocks; len(t.seq) > 0 {
		b.Queue(insertStocks, partition, t.epoch, t.seq, t.product, t.delta, t.after, t.order, t.kind, t.reason, t.at)
		b.Queue(updateStocks, keysAndValues(r.deltaOf)...)
	}
}

func keysAndValues(m map[int64]int64) []any {
	keys, values := make([]int64, 0, len(m)), make([]int64, 0, len(m))
	for k, v := range m {
		keys, values = append(keys, k), append(values, v)
	}
	return []any{keys, values}
}

// insertJournal adds the insert of the entries themselves to a batch.
func insertJournal(b *pgx.Batch, partition int, entries []engine.Entry) {
	n := len(entries)
	epochs, firsts, lasts := make([]int64, n), make([]int64, n), make([]int64, n)
	versions, payloads := make([]int16, n), make([][]byte, n)
	for i, e := range entries {
		epochs[i], firsts[i], lasts[i] = e.Last.Epoch, e.First, e.Last.Seq
		versions[i], payloads[i] = int16(e.Version), e.Payload //nolint:gosec // parsed from a small number
	}
	b.Queue(insertEvents, partition, epochs, firsts, lasts, versions, payloads)
}

// scanEntry reads a journal row as an entry.
func scanEntry(row pgx.CollectableRow) (e engine.Entry, err error) {
	err = row.Scan(&e.Last.Epoch, &e.First, &e.Last.Seq, &e.Version, &e.Payload)
	return e, err
}

const selectEntries = `SELECT epoch, first_seq, last_seq, version, payload FROM events
	WHERE partition = $1 AND (epoch, last_seq) > ($2, $3) ORDER BY epoch, last_seq LIMIT $4`

// querier is a pool, a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// journal reads up to limit entries of a partition behind a position.
func journal(ctx context.Context, q querier, partition int, after engine.Position, limit int) ([]engine.Entry, error) {
	found, err := q.Query(ctx, selectEntries, partition, after.Epoch, after.Seq, limit)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	entries, err := pgx.CollectRows(found, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("reading the journal: %w", err)
	}
	return entries, nil
}

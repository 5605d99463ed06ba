package persist

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"stampede/engine"
)

// Inserts of derived rows: one statement a table, fed by arrays.
const (
	insertEvents = `INSERT INTO events (partition, epoch, first_seq, last_seq, version, payload)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[], $6::bytea[])`
	insertOrders = `INSERT INTO orders (id, user_id, total_price, status, created_at, updated_at, expires_at)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[])`
	// Updates find their rows by key, each. The planner would rather read a table of up to some million rows as a whole
	// for some thousand of them, and a plan that is kept from when the table was small may do so for each.
	byKey = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
		set_config('enable_mergejoin', 'off', true)`
	updateOrders = `UPDATE orders o SET status = n.status, updated_at = n.updated_at
		FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[]) AS n(id, was, status, updated_at)
		WHERE o.id = n.id AND o.status = n.was`
	insertItems = `INSERT INTO order_items (order_id, product_id, quantity, price, line)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[])`
	insertHistory = `INSERT INTO order_history (order_id, step, status, reason, at)
		SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[])`
	insertBalances = `INSERT INTO balance_ledger (partition, epoch, seq, user_id, amount, balance_after, ref_id, kind, at)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
			$8::text[], $9::timestamptz[])`
	insertStocks = `INSERT INTO stock_ledger (partition, epoch, seq, product_id, delta, stock_after, order_id, kind, reason, at)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
			$8::text[], $9::text[], $10::timestamptz[])`
	// A cart is replaced as a whole: the event says what it holds, not what changed in it.
	deleteCartItems = `DELETE FROM cart_items WHERE user_id = ANY($1)`
	deleteCarts     = `DELETE FROM carts WHERE user_id = ANY($1)`
	insertCartItems = `INSERT INTO cart_items (user_id, product_id, quantity, line)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[])`
	upsertCarts = `INSERT INTO carts (user_id, epoch, seq, updated_at)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[])
		ON CONFLICT (user_id) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, updated_at = excluded.updated_at`
	updateBalances = `UPDATE users u SET balance = n.balance
		FROM unnest($1::bigint[], $2::bigint[]) AS n(id, balance) WHERE u.id = n.id`
	// Writers of several partitions meet on products: locking in one order keeps them from deadlocks.
	updateStocks = `WITH locked AS MATERIALIZED (
			SELECT p.id, n.delta FROM unnest($1::bigint[], $2::bigint[]) AS n(id, delta) JOIN products p USING (id)
			ORDER BY p.id FOR NO KEY UPDATE OF p)
		UPDATE products p SET stock = p.stock + locked.delta FROM locked WHERE p.id = locked.id`
)

// queue adds the inserts of everything derived to a batch.
func (r *rows) queue(b *pgx.Batch, partition int) {
	b.Queue(byKey)
	if o := &r.orders; len(o.id) > 0 {
		b.Queue(insertOrders, o.id, o.user, o.total, o.status, o.created, o.updated, o.expires)
		i := &r.items
		b.Queue(insertItems, i.order, i.product, i.quantity, i.price, i.line)
	}
	if m := &r.moved; len(m.id) > 0 {
		b.Queue(updateOrders, m.id, m.was, m.status, m.updated).Exec(func(done pgconn.CommandTag) error {
			if found := done.RowsAffected(); found != int64(len(m.id)) {
				return fmt.Errorf("%w: partition %d: of %d orders that take a step, %d stand in the table as the step before left them",
					ErrAlarm, partition, len(m.id), found)
			}
			return nil
		})
	}
	if h := &r.history; len(h.order) > 0 {
		b.Queue(insertHistory, h.order, h.step, h.status, h.reason, h.at)
	}
	if t := &r.balances; len(t.seq) > 0 {
		b.Queue(insertBalances, partition, t.epoch, t.seq, t.user, t.amount, t.after, t.ref, t.kind, t.at)
		b.Queue(updateBalances, keysAndValues(r.balanceOf)...)
	}
	r.queueCarts(b)
	// Last, so that rows that several writers share are locked for the shortest time.
	if t := &r.stocks; len(t.seq) > 0 {
		b.Queue(insertStocks, partition, t.epoch, t.seq, t.product, t.delta, t.after, t.order, t.kind, t.reason, t.at)
		b.Queue(updateStocks, keysAndValues(r.deltaOf)...)
	}
}

func (r *rows) queueCarts(b *pgx.Batch) {
	if len(r.cartOf) == 0 {
		return
	}
	c := columnsOf(r.cartOf)
	b.Queue(deleteCartItems, c.all)
	if len(c.empty) > 0 {
		b.Queue(deleteCarts, c.empty)
	}
	if len(c.user) > 0 {
		b.Queue(upsertCarts, c.user, c.epoch, c.seq, c.updated)
		b.Queue(insertCartItems, c.itemOf, c.product, c.quantity, c.line)
	}
}

// cartColumns are carts column by column.
type cartColumns struct {
	all, empty        []int64 // users
	user, epoch, seq  []int64 // of carts that hold something
	updated           []time.Time
	itemOf            []int64 // user
	product, quantity []int64
	line              []int16
}

func columnsOf(carts map[int64]cart) *cartColumns {
	c := &cartColumns{}
	for user, cart := range carts {
		c.all = append(c.all, user)
		if len(cart.lines) == 0 {
			c.empty = append(c.empty, user)
			continue
		}
		c.user, c.epoch, c.seq = append(c.user, user), append(c.epoch, cart.at.Epoch), append(c.seq, cart.at.Seq)
		c.updated = append(c.updated, cart.updated)
		for i, l := range cart.lines {
			c.itemOf, c.product = append(c.itemOf, user), append(c.product, l.ProductID)
			c.quantity, c.line = append(c.quantity, l.Quantity), append(c.line, int16(i+1)) //nolint:gosec // at most LinesMax
		}
	}
	return c
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

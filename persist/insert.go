package persist

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"stampede/engine"
)

// What changes rows that stand there: one statement a table, fed by arrays. Rows that are only added go by COPY, see copy.go.
const (
	// Updates find their rows by key, each. The planner would rather read a table of up to some million rows as a whole
	// for some thousand of them, and a plan that is kept from when the table was small may do so for each.
	byKey = `SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
		set_config('enable_mergejoin', 'off', true)`
	updateOrders = `UPDATE orders o SET status = n.status, updated_at = n.updated_at
		FROM unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[]) AS n(id, was, status, updated_at)
		WHERE o.id = n.id AND o.status = n.was`
	upsertSales = `INSERT INTO sales_hours AS t (partition, hour, product_id, units, revenue, orders)
		SELECT $1, to_timestamp(hour * 3600), product_id, units, revenue, orders
			FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[]) AS n(hour, product_id, units, revenue, orders)
		ON CONFLICT (hour, product_id, partition) DO UPDATE
			SET units = t.units + excluded.units, revenue = t.revenue + excluded.revenue, orders = t.orders + excluded.orders`
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

// insert writes everything derived, in a transaction of the caller's.
func (r *rows) insert(ctx context.Context, tx pgx.Tx, partition int) error {
	if err := r.copy(ctx, tx.Conn(), partition); err != nil {
		return err
	}
	b := &pgx.Batch{}
	r.queue(b, partition)
	return tx.SendBatch(ctx, b).Close()
}

// queue adds what changes rows that stand there to a batch.
func (r *rows) queue(b *pgx.Batch, partition int) {
	b.Queue(byKey)
	if m := &r.moved; len(m.id) > 0 {
		b.Queue(updateOrders, m.id, m.was, m.status, m.updated).Exec(func(done pgconn.CommandTag) error {
			if found := done.RowsAffected(); found != int64(len(m.id)) {
				return fmt.Errorf("%w: of %d orders that take a step, %d stand in the table as the step before left them",
					errStep, len(m.id), found)
			}
			return nil
		})
	}
	if len(r.balanceOf) > 0 {
		b.Queue(updateBalances, keysAndValues(r.balanceOf)...)
	}
	r.queueCarts(b)
	r.queueSales(b, partition)
	// Last, so that rows that several writers share are locked for the shortest time.
	if len(r.deltaOf) > 0 {
		b.Queue(updateStocks, keysAndValues(r.deltaOf)...)
	}
}

// errStep says that an order does not stand as a step found it.
var errStep = errors.New("step of an order that is not as it was")

func (r *rows) queueSales(b *pgx.Batch, partition int) {
	n := len(r.soldIn)
	if n == 0 {
		return
	}
	hours, products := make([]int64, 0, n), make([]int64, 0, n)
	units, revenues, orders := make([]int64, 0, n), make([]int64, 0, n), make([]int64, 0, n)
	for at, s := range r.soldIn {
		hours, products = append(hours, at.hour), append(products, at.product)
		units, revenues, orders = append(units, s.units), append(revenues, s.revenue), append(orders, s.orders)
	}
	b.Queue(upsertSales, partition, hours, products, units, revenues, orders)
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

// keysAndValues are in the order of the keys, in which all who change several rows lock them.
func keysAndValues(m map[int64]int64) []any {
	keys, values := slices.Sorted(maps.Keys(m)), make([]int64, len(m))
	for i, k := range keys {
		values[i] = m[k]
	}
	return []any{keys, values}
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

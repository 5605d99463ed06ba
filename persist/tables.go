package persist

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// added are the tables whose rows are only added, with how a row of each is written; of orders, too, though they change.
// COPY costs Postgres two thirds of what INSERT ... SELECT FROM unnest does (BenchmarkWriter).
var added = []struct {
	table string
	rows  func(r *rows) int
	row   func(c *copier, r *rows, partition int16, i int)
}{
	{
		"orders (id, user_id, total_price, status, created_at, updated_at, expires_at)",
		func(r *rows) int { return len(r.orders.id) },
		func(c *copier, r *rows, _ int16, i int) {
			t := &r.orders
			c.row(7)
			c.int64s(t.id[i], t.user[i], t.total[i])
			c.text(t.status[i])
			c.time(t.created[i])
			c.time(t.updated[i])
			c.timeOrNull(t.expires[i])
		},
	},
	{
		"order_items (order_id, product_id, quantity, price, line)",
		func(r *rows) int { return len(r.items.order) },
		func(c *copier, r *rows, _ int16, i int) {
			t := &r.items
			c.row(5)
			c.int64s(t.order[i], t.product[i], t.quantity[i], t.price[i])
			c.int16(t.line[i])
		},
	},
	{
		"order_history (order_id, step, status, reason, at)",
		func(r *rows) int { return len(r.history.order) },
		func(c *copier, r *rows, _ int16, i int) {
			t := &r.history
			c.row(5)
			c.int64s(t.order[i])
			c.int16(t.step[i])
			c.text(t.status[i])
			c.text(t.reason[i])
			c.time(t.at[i])
		},
	},
	{
		"balance_ledger (partition, epoch, seq, user_id, amount, balance_after, ref_id, kind, at)",
		func(r *rows) int { return len(r.balances.seq) },
		func(c *copier, r *rows, partition int16, i int) {
			t := &r.balances
			c.row(9)
			c.int16(partition)
			c.int64s(t.epoch[i], t.seq[i], t.user[i], t.amount[i], t.after[i], t.ref[i])
			c.text(t.kind[i])
			c.time(t.at[i])
		},
	},
	{
		"stock_ledger (partition, epoch, seq, product_id, delta, held, stock_after, order_id, kind, reason, at, peer, sent_epoch, sent_seq)",
		func(r *rows) int { return len(r.stocks.seq) },
		func(c *copier, r *rows, partition int16, i int) {
			t := &r.stocks
			c.row(14)
			c.int16(partition)
			c.int64s(t.epoch[i], t.seq[i], t.product[i], t.delta[i], t.held[i])
			c.int64OrNull(t.after[i])
			c.int64OrNull(t.order[i])
			c.text(t.kind[i])
			c.text(t.reason[i])
			c.time(t.at[i])
			c.int16OrNull(t.peer[i])
			c.int64OrNull(t.sentEpoch[i])
			c.int64OrNull(t.sentSeq[i])
		},
	},
}

// copy adds the rows.
func (r *rows) copy(ctx context.Context, conn *pgx.Conn, partition int) error {
	var c copier
	for _, t := range added {
		n := t.rows(r)
		if n == 0 {
			continue
		}
		c.begin()
		for i := range n {
			t.row(&c, r, int16(partition), i) //nolint:gosec // at most PartitionsMax
		}
		if err := c.send(ctx, conn, t.table); err != nil {
			return err
		}
	}
	return nil
}

// copyJournal adds the entries themselves.
func copyJournal(ctx context.Context, conn *pgx.Conn, partition int, entries []engine.Entry) error {
	var c copier
	c.begin()
	for i := range entries {
		e := &entries[i]
		c.row(6)
		c.int16(int16(partition)) //nolint:gosec // at most PartitionsMax
		c.int64s(e.Last.Epoch, e.First, e.Last.Seq)
		c.int16(int16(e.Version)) //nolint:gosec // parsed from a small number
		c.bytes(e.Payload)
	}
	if err := c.send(ctx, conn, "events (partition, epoch, first_seq, last_seq, version, payload)"); err != nil {
		return fmt.Errorf("writing the journal: %w", err)
	}
	return nil
}

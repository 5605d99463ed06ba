package persist

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// shares returns what tells a product's share in a partition, and whether it was listed there; and what the query of the
// products must read for it, beside them.
func (r *restore) shares(ctx context.Context) (of func(l *engine.Product, partition int) (int64, bool), sql string, scans []any, err error) {
	e := r.books.engine
	if e.Keys().Partitions() == 1 {
		unlisted, err := r.neverListed(ctx)
		return func(l *engine.Product, _ int) (int64, bool) { return l.Stock, !unlisted[l.ID] }, " FROM products", nil, err
	}
	var initial int64
	var s shelf
	of = func(l *engine.Product, partition int) (int64, bool) {
		return s.share(partition, e.Keys().Home(l.ID) == partition), s.listed(e, l.ID, initial, partition)
	}
	sql = ", initial_stock, partitions, sums, initials, coalesce(carried, 0) FROM products LEFT JOIN (" + selectShelves + ") s ON product_id = id"
	return of, sql, []any{&initial, &s.partitions, &s.sums, &s.initials, &s.carried}, nil
}

// selectTransfers reads what the records of transfers hold: what is under way from a partition to a peer, and the last that
// came from a peer.
const selectTransfers = `SELECT s.partition, s.product_id, s.peer, s.epoch, s.seq, -s.delta, s.at` + openTransfers + `
	UNION ALL
	(SELECT DISTINCT ON (partition, product_id, peer) partition, product_id, peer, sent_epoch, sent_seq, 0, at FROM stock_ledger
		WHERE kind = 'received' AND ` + thisLayout + `
		ORDER BY partition, product_id, peer, sent_epoch DESC, sent_seq DESC)
	ORDER BY 1, 2`

// transfers loads the records of transfers. Of what is settled they say nothing: that it has come, its receiver remembers.
func (r *restore) transfers(ctx context.Context) error {
	if len(r.mine) == 1 {
		return nil
	}
	type key struct {
		partition int
		product   int64
	}
	var now key
	var t engine.Transfers
	var left []time.Time
	flush := func() error {
		p, product := r.mine[now.partition], now.product
		if p == nil || len(t.Out)+len(t.In) == 0 {
			return nil
		}
		return r.into(ctx, p, func(to *engine.Load) { to.Transfers(product, &t, left) })
	}
	var next key
	var peer int
	var id engine.Position
	var units int64
	var at time.Time
	rows, err := r.books.pool.Query(ctx, selectTransfers)
	if err != nil {
		return unavailable("reading transfers", err)
	}
	_, err = pgx.ForEachRow(rows, []any{&next.partition, &next.product, &peer, &id.Epoch, &id.Seq, &units, &at}, func() error {
		if next != now {
			if err := flush(); err != nil {
				return err
			}
			now, t, left = next, engine.Transfers{}, nil
		}
		if units == 0 {
			t.In = append(t.In, engine.Incoming{Peer: peer, ID: id})
		} else {
			t.Out, left = append(t.Out, engine.Outgoing{Peer: peer, ID: id, Units: units}), append(left, at)
		}
		return nil
	})
	if err != nil {
		return unavailable("reading transfers", err)
	}
	return flush()
}

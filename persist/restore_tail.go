package persist

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"stampede/engine"
)

const (
	recordsRead  = 64 // journal entries a read
	recordsAhead = 4  // reads that wait to be loaded
)

// records loads the idempotency records that still live, out of the end of the journal.
func (r *restore) records(ctx context.Context, p *part) error {
	since := r.books.engine.RememberedSince()
	from, events, err := r.books.tail(ctx, p.partition, p.at.Position, since)
	if err != nil {
		return err
	}
	r.watch.expect(RestoredEvents, events)
	group, ctx := errgroup.WithContext(ctx)
	read := make(chan []engine.Entry, recordsAhead)
	group.Go(func() error {
		defer close(read)
		return r.journal(ctx, p, from, read)
	})
	group.Go(func() error {
		load := r.books.engine.NewLoad(p.partition)
		for entries := range read {
			for i := range entries {
				events, err := entries[i].Events()
				if err != nil {
					return refused("partition %d: %v", p.partition, err)
				}
				for j := range events {
					r.books.engine.Record(load, &events[j], since)
				}
				r.watch.read(RestoredEvents, int64(len(events)))
				if load.Full() {
					if load, err = r.put(ctx, load); err != nil {
						return err
					}
				}
			}
		}
		_, err := r.put(ctx, load)
		return err
	})
	return group.Wait()
}

// journal reads a partition's entries behind a position up to the checkpoint.
func (r *restore) journal(ctx context.Context, p *part, after engine.Position, to chan<- []engine.Entry) error {
	for after.Compare(p.at.Position) < 0 {
		entries, err := journal(ctx, r.books.pool, p.partition, after, recordsRead)
		if err != nil {
			return unavailable("restoring from the journal", err)
		}
		if len(entries) == 0 {
			return refused("the journal of partition %d ends at %v, before its checkpoint %v: rows were deleted", p.partition, after, p.at.Position)
		}
		after = entries[len(entries)-1].Last
		select {
		case to <- entries:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// soldSince is what was sold and not given back behind a position, by minute and product. A payment of a held order sells
// its units; a refund counts in the minute of the sale.
const soldSince = `SELECT floor(extract(epoch FROM at) / 60)::bigint AS minute, product_id, sum(units)::bigint
	FROM (SELECT at, product_id, -(delta + held) AS units FROM stock_ledger
			WHERE partition = $1 AND (epoch, seq) > ($2, $3) AND kind IN ('order', 'payment')
		UNION ALL
		SELECT (SELECT h.at FROM order_history h WHERE h.order_id = l.order_id AND h.status = 'SUCCESS'), product_id, -(delta + held)
			FROM stock_ledger l WHERE partition = $1 AND (epoch, seq) > ($2, $3) AND kind = 'refund') AS moves
	WHERE at >= to_timestamp($4::bigint * 60)
	GROUP BY 1, 2 HAVING sum(units) <> 0 ORDER BY 1`

// sold loads the minutes of the window and the running totals.
func (r *restore) sold(ctx context.Context, p *part) error {
	from, _, err := r.books.tail(ctx, p.partition, p.at.Position, time.Unix(p.first*60, 0))
	if err != nil {
		return err
	}
	rows, err := r.books.pool.Query(ctx, soldSince, p.partition, from.Epoch, from.Seq, p.first)
	if err != nil {
		return unavailable("reading what was sold", err)
	}
	load, totals, minute := r.books.engine.NewLoad(p.partition), map[int64]int64{}, []engine.Sold(nil)
	flush := func() (err error) {
		if len(minute) > 0 {
			load.Minute(minute[0].Minute, minute)
			r.watch.read(RestoredMinutes, 1)
		}
		if minute = minute[:0]; load.Full() {
			load, err = r.put(ctx, load)
		}
		return err
	}
	var s engine.Sold
	_, err = pgx.ForEachRow(rows, []any{&s.Minute, &s.Product, &s.Units}, func() error {
		if len(minute) > 0 && minute[0].Minute != s.Minute {
			if err := flush(); err != nil {
				return err
			}
		}
		minute = append(minute, s)
		totals[s.Product] += s.Units
		return nil
	})
	if err != nil {
		return unavailable("reading what was sold", err)
	}
	if err := flush(); err != nil {
		return err
	}
	for product, units := range totals {
		load.Total(product, units)
		if load.Full() {
			if load, err = r.put(ctx, load); err != nil {
				return err
			}
		}
	}
	_, err = r.put(ctx, load)
	return err
}

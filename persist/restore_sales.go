package persist

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"stampede/engine"
)

// What was sold and not given back, by minute and product. A payment of a held order sells its units; a refund counts in the
// minute of the sale.
const (
	soldOf = `(SELECT at, product_id, -(delta + held) AS units, partition, epoch, seq, order_id FROM stock_ledger WHERE kind IN ('order', 'payment')
		UNION ALL
		SELECT (SELECT h.at FROM order_history h WHERE h.order_id = l.order_id AND h.status = 'SUCCESS'), product_id, -(delta + held),
			partition, epoch, seq, order_id
		FROM stock_ledger l WHERE kind = 'refund') AS moves`
	// soldSince is what a partition sold behind a position.
	soldSince = `SELECT floor(extract(epoch FROM at) / 60)::bigint AS minute, product_id, 0::bigint, sum(units)::bigint FROM ` + soldOf + `
		WHERE partition = $1 AND (epoch, seq) > ($2, $3) AND at >= to_timestamp($4::bigint * 60)
		GROUP BY 1, 2 HAVING sum(units) <> 0 ORDER BY 1`
	// soldToEach is what all partitions sold behind a position of each, by buyer.
	soldToEach = `SELECT floor(extract(epoch FROM at) / 60)::bigint AS minute, product_id, o.user_id, sum(units)::bigint
		FROM unnest($1::bigint[], $2::bigint[]) WITH ORDINALITY AS f(from_epoch, from_seq, n)
		JOIN ` + soldOf + ` ON partition = f.n - 1 AND (epoch, seq) > (f.from_epoch, f.from_seq)
		JOIN orders o ON o.id = order_id
		WHERE at >= to_timestamp($3::bigint * 60)
		GROUP BY 1, 2, 3 HAVING sum(units) <> 0 ORDER BY 1`
)

// sales loads the minutes of the window and the running totals. Where the window reaches into an earlier layout, the
// partition of a sale is that in which its buyer is now: there it is taken back from.
func (r *restore) sales(ctx context.Context, readers *errgroup.Group) error {
	if !r.layouts.within(engine.Window) {
		for _, p := range r.parts {
			readers.Go(func() error {
				from, _, err := r.books.tail(ctx, p.partition, p.at.Position, time.Unix(p.first*60, 0))
				if err != nil {
					return err
				}
				return r.sold(ctx, func(int64) *part { return p }, soldSince, p.partition, from.Epoch, from.Seq, p.first)
			})
		}
		return nil
	}
	first := r.parts[0].first
	for _, p := range r.parts {
		first = min(first, p.first)
	}
	epochs, seqs := make([]int64, len(r.ends)), make([]int64, len(r.ends))
	for n := range r.ends {
		from, _, err := r.books.tail(ctx, n, r.endOf(n), time.Unix(first*60, 0))
		if err != nil {
			return err
		}
		epochs[n], seqs[n] = from.Epoch, from.Seq
	}
	return r.sold(ctx, r.of, soldToEach, epochs, seqs, first)
}

// soldUnits are units by product.
type soldUnits map[int64]int64

// sold loads the rows of one of the queries, each into the part of its buyer.
func (r *restore) sold(ctx context.Context, of func(buyer int64) *part, sql string, args ...any) error {
	rows, err := r.books.pool.Query(ctx, sql, args...)
	if err != nil {
		return unavailable("reading what was sold", err)
	}
	loads, minute := map[int]*engine.Load{}, int64(-1)
	minutes, totals := map[int]soldUnits{}, map[int]soldUnits{}
	flush := func() error {
		for n, units := range minutes {
			sold := make([]engine.Sold, 0, len(units))
			for product, u := range units {
				if u != 0 {
					sold = append(sold, engine.Sold{Minute: minute, Product: product, Units: u})
				}
			}
			if len(sold) > 0 {
				r.loadOf(loads, n).Minute(minute, sold)
				r.watch.read(RestoredMinutes, 1)
			}
		}
		clear(minutes)
		return r.putFull(ctx, loads)
	}
	var s engine.Sold
	var buyer int64
	_, err = pgx.ForEachRow(rows, []any{&s.Minute, &s.Product, &buyer, &s.Units}, func() error {
		if s.Minute != minute {
			if err := flush(); err != nil {
				return err
			}
			minute = s.Minute
		}
		p := of(buyer)
		if p == nil || s.Minute < p.first {
			return nil
		}
		for _, sums := range []map[int]soldUnits{minutes, totals} {
			if sums[p.partition] == nil {
				sums[p.partition] = soldUnits{}
			}
			sums[p.partition][s.Product] += s.Units
		}
		return nil
	})
	if err != nil {
		return unavailable("reading what was sold", err)
	}
	if err := flush(); err != nil {
		return err
	}
	return r.totals(ctx, loads, totals)
}

// totals loads running totals, and what is left in some loads.
func (r *restore) totals(ctx context.Context, loads map[int]*engine.Load, totals map[int]soldUnits) error {
	for n, units := range totals {
		for product, u := range units {
			if u == 0 {
				continue
			}
			r.loadOf(loads, n).Total(product, u)
			if err := r.putFull(ctx, loads); err != nil {
				return err
			}
		}
	}
	return r.putAll(ctx, loads)
}

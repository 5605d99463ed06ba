package persist

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// windowMinutes is how many minutes of sales count in the top five, the current one included.
const windowMinutes = int64(engine.Window / time.Minute)

// What was sold and not given back, as of a position of a partition, by minute, product and buyer. A refund counts in the
// minute of the sale. What was sold in an earlier layout counts where its buyer is now, and is taken back there.
const (
	soldAsOf = ` FROM balance_ledger s JOIN order_items i ON i.order_id = s.ref_id
		WHERE s.partition = $1 AND s.kind = 'order' AND s.at >= to_timestamp($4::bigint * 60) AND s.at < to_timestamp($5::bigint * 60)
			AND (s.epoch, s.seq) <= ($2, $3)
			AND NOT EXISTS (SELECT FROM balance_ledger r WHERE r.partition = $1 AND r.kind = 'refund' AND r.ref_id = s.ref_id
				AND (r.epoch, r.seq) <= ($2, $3))`
	soldInLayouts = ` FROM balance_ledger s JOIN order_items i ON i.order_id = s.ref_id
		WHERE s.kind = 'order' AND s.at >= to_timestamp($4::bigint * 60) AND s.at < to_timestamp($5::bigint * 60)
			AND (s.epoch < (SELECT max(epoch) FROM layouts) OR s.partition = $1 AND (s.epoch, s.seq) <= ($2, $3))
			AND NOT EXISTS (SELECT FROM balance_ledger r WHERE r.kind = 'refund' AND r.ref_id = s.ref_id
				AND (r.epoch < (SELECT max(epoch) FROM layouts) OR r.partition = $1 AND (r.epoch, r.seq) <= ($2, $3)))`
	minuteOfSale = "floor(extract(epoch FROM s.at) / 60)::bigint"
	ofProducts   = " AND ($6::bigint[] IS NULL OR i.product_id = ANY($6))"
)

// soldQuery is one of what was sold: in the layout that the books have, or also in earlier ones.
type soldQuery struct{ alone, inLayouts string }

var (
	soldByMinute = soldQuery{
		"SELECT " + minuteOfSale + ", i.product_id, 0::bigint, sum(i.quantity)::bigint" + soldAsOf + " GROUP BY 1, 2 ORDER BY 1",
		"SELECT " + minuteOfSale + ", i.product_id, s.user_id, sum(i.quantity)::bigint" + soldInLayouts + " GROUP BY 1, 2, 3 ORDER BY 1, 2",
	}
	soldByProduct = soldQuery{
		"SELECT 0::bigint, i.product_id, 0::bigint, sum(i.quantity)::bigint" + soldAsOf + ofProducts + " GROUP BY 2",
		"SELECT 0::bigint, i.product_id, s.user_id, sum(i.quantity)::bigint" + soldInLayouts + ofProducts + " GROUP BY 2, 3 ORDER BY 2",
	}
)

// minuteMax is beyond any minute.
const minuteMax = int64(1) << 32

// sold visits what a partition has sold, in the order of a query.
func (a *audit) sold(ctx context.Context, query soldQuery, visit func(minute, product, units int64) error, p int, args ...any) error {
	tx, err := a.books.pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only read
	// It goes over the whole ledger, which may be too new to have statistics: a nested loop would be quadratic.
	if _, err := tx.Exec(ctx, auditSettings+"; SET LOCAL enable_nestloop = off"); err != nil {
		return err
	}
	sql, all := query.alone, true
	if a.layouts.within(engine.Window) {
		sql, all = query.inLayouts, false
	}
	rows, err := tx.Query(ctx, sql, append([]any{p}, args...)...)
	if err != nil {
		return fmt.Errorf("reading what was sold: %w", err)
	}
	var minute, product, buyer, units int64
	var lastMinute, lastProduct, sum int64 // of the buyers of the partition
	_, err = pgx.ForEachRow(rows, []any{&minute, &product, &buyer, &units}, func() (err error) {
		if (minute != lastMinute || product != lastProduct) && sum != 0 {
			err = visit(lastMinute, lastProduct, sum)
			sum = 0
		}
		if lastMinute, lastProduct = minute, product; all || a.keys.OfUser(buyer) == p {
			sum += units
		}
		return err
	})
	if err == nil && sum != 0 {
		err = visit(lastMinute, lastProduct, sum)
	}
	if err != nil {
		return fmt.Errorf("reading what was sold: %w", err)
	}
	return nil
}

// soldBetween visits the minutes from one to before another in which something was sold, each with its units by
// product, as of a position.
func (a *audit) soldBetween(ctx context.Context, p int, at engine.Position, from, to int64, visit func(minute int64, units map[int64]int64) error) error {
	last, all := int64(-1), map[int64]int64{}
	err := a.sold(ctx, soldByMinute, func(minute, product, units int64) error {
		if minute != last && len(all) > 0 {
			if err := visit(last, all); err != nil {
				return err
			}
			all = map[int64]int64{}
		}
		last, all[product] = minute, units
		return nil
	}, p, at.Epoch, at.Seq, from, to)
	if err == nil && len(all) > 0 {
		err = visit(last, all)
	}
	return err
}

// sales compares the running totals and the minutes of the top five with the books.
func (a *audit) sales(ctx context.Context) error {
	for p := range a.keys.Partitions() {
		if a.doors[p].skip {
			continue
		}
		if err := a.totals(ctx, p); err != nil {
			return err
		}
		if err := a.minutes(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// window is the first minute of the window as of the last event: what came before it may still stand in Redis, waiting
// to be rolled out, but counts for nothing.
func (m *meta) window() int64 { return max(m.rolled+1, m.minute-windowMinutes+1) }

const (
	minutesChunk      = 60     // minutes looked at together
	minutesProductsMx = 50_000 // products of theirs, from which on there are fewer minutes
)

// minutes compares the minutes of the window in which the books know of sales with Redis.
func (a *audit) minutes(ctx context.Context, p int) error {
	now, err := a.at(ctx, p, nil)
	if err != nil || now.rolled == 0 {
		return err
	}
	to, err := readCheckpoint(ctx, a.snapshot, p, "")
	if err != nil {
		return err
	}
	chunk, products, suspects := map[int64]map[int64]int64{}, 0, []int64(nil)
	look := func() error {
		if len(chunk) == 0 {
			return nil
		}
		held, _, err := a.heldMinutes(ctx, p, chunk)
		if err != nil {
			return err
		}
		a.looked(checkTop, int64(len(chunk)))
		for minute, units := range chunk {
			if !maps.Equal(held[minute], units) {
				suspects = append(suspects, minute)
			}
		}
		clear(chunk)
		products = 0
		return nil
	}
	err = a.soldBetween(ctx, p, to.Position, now.window(), minuteMax, func(minute int64, units map[int64]int64) error {
		a.minutesSeen[p].add(minute)
		chunk[minute] = units
		if products += len(units); len(chunk) < minutesChunk && products < minutesProductsMx {
			return nil
		}
		return look()
	})
	if err == nil {
		err = look()
	}
	if err != nil {
		return err
	}
	return a.minutesAgree(ctx, p, suspects)
}

// strayMinutes compares minutes that stand in Redis and in which the books knew of no sale.
func (a *audit) strayMinutes(ctx context.Context, p int, minutes []int64) error {
	minutes = slices.DeleteFunc(minutes, a.minutesSeen[p].has)
	return a.minutesAgree(ctx, p, minutes)
}

// minutesAgree compares some minutes as of the position at which Redis was read.
func (a *audit) minutesAgree(ctx context.Context, p int, minutes []int64) error {
	for from := 0; from < len(minutes); from += minutesChunk {
		want := map[int64]map[int64]int64{}
		low, high := minuteMax, int64(0)
		for _, m := range minutes[from:min(from+minutesChunk, len(minutes))] {
			want[m] = map[int64]int64{}
			low, high = min(low, m), max(high, m)
		}
		held, at, err := a.heldMinutes(ctx, p, want)
		if err != nil {
			return err
		}
		if err := a.passed(ctx, p, at.Mark); err != nil {
			return err
		}
		err = a.soldBetween(ctx, p, at.Position, low, high+1, func(minute int64, units map[int64]int64) error {
			if _, asked := want[minute]; asked {
				want[minute] = units
			}
			return nil
		})
		if err != nil {
			return err
		}
		for minute, units := range want {
			if minute >= at.window() && !maps.Equal(held[minute], units) {
				a.violated(checkTop, a.keys.Sold(p, minute), "holds units by product %v, the books say %v at %v", held[minute], units, at.Position)
			}
		}
	}
	return nil
}

// heldMinutes reads minutes from Redis at one instant.
func (a *audit) heldMinutes(ctx context.Context, p int, of map[int64]map[int64]int64) (map[int64]map[int64]int64, meta, error) {
	found := map[int64]*redis.MapStringStringCmd{}
	at, err := a.at(ctx, p, func(pipe redis.Pipeliner) {
		for minute := range of {
			found[minute] = pipe.HGetAll(ctx, a.keys.Sold(p, minute))
		}
	})
	held := map[int64]map[int64]int64{}
	for minute, fields := range found {
		held[minute] = unitsOf(fields.Val())
	}
	return held, at, err
}

// unitsOf reads a minute's units by product. One that was given back as a whole is as good as one that was never sold.
func unitsOf(fields map[string]string) map[int64]int64 {
	units := map[int64]int64{}
	for field, text := range fields {
		product, err := strconv.ParseInt(field, 10, 64)
		n, err2 := strconv.ParseInt(text, 10, 64)
		if err != nil || err2 != nil {
			product, n = -1, -1 // no script writes it, and no book knows it
		}
		if n != 0 {
			units[product] = n
		}
	}
	return units
}

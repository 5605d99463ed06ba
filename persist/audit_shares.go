package persist

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// shares compares every partition's share of every product with what the ledger says of that partition. The sums are added
// up once, in a snapshot of their own, and read as Redis is.
func (a *audit) shares(ctx context.Context) error {
	return pgx.BeginTxFunc(ctx, a.books.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, auditSettings); err != nil {
			return err
		}
		books, err := readCheckpoints(ctx, tx)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, "SELECT id, in_redis, partitions, sums, coalesce(carried, 0) FROM products LEFT JOIN ("+selectShelves+") s ON product_id = id ORDER BY id")
		if err != nil {
			return fmt.Errorf("reading shares: %w", err)
		}
		done := int64(0)
		next := make([]shelved, 0, a.chunk)
		look := func() error {
			done += int64(len(next))
			a.progress(Progress{"products", done, a.sum.Products})
			err := a.sharesAgree(ctx, books, next)
			next = next[:0]
			return err
		}
		var s shelved
		_, err = pgx.ForEachRow(rows, []any{&s.id, &s.inRedis, &s.partitions, &s.sums, &s.carried}, func() error {
			if next = append(next, s); len(next) < a.chunk {
				return nil
			}
			return look()
		})
		if err != nil {
			return fmt.Errorf("comparing shares: %w", err)
		}
		return look()
	})
}

// shelved is a product with its shares.
type shelved struct {
	id      int64
	inRedis bool // false: it may still be on its way there
	shelf
}

func (a *audit) sharesAgree(ctx context.Context, books []checkpoint, chunk []shelved) error {
	for _, s := range chunk {
		a.products.add(s.id)
	}
	for p := range a.keys.Partitions() {
		part := make([]holding, len(chunk))
		for i, s := range chunk {
			part[i] = holding{id: s.id, amount: s.share(p, a.keys.Home(s.id) == p), inRedis: s.inRedis}
		}
		if err := a.same(ctx, p, books[p], part, checkRStocks, a.keys.Stock, stockAfter); err != nil {
			return err
		}
	}
	return nil
}

// sumsAgree compares the sums of the shares of some products with Postgres: to add up what the ledger says of each takes a
// walk over it. Each partition is read at a position of its own, so that what differs is followed in each of them.
func (a *audit) sumsAgree(ctx context.Context, books []checkpoint, chunk []holding) error {
	keys, sums, lacks := make([]string, len(chunk)), make([]int64, len(chunk)), make([]bool, len(chunk))
	at := make([]meta, a.keys.Partitions())
	for p := range at {
		for i, h := range chunk {
			keys[i] = a.keys.Stock(p, h.id)
		}
		values, read, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		at[p] = read
		for i, h := range chunk {
			text, found := values[i].(string)
			units, err := strconv.ParseInt(text, 10, 64)
			if found = found && err == nil && units >= 0; !found && h.inRedis {
				a.violated(checkRStocks, keys[i], "is %q, which is no share", text)
			}
			sums[i] += units
			lacks[i] = lacks[i] || !found
		}
	}
	a.looked(checkRStocks, int64(len(chunk)))
	want := map[int64]int64{} // of those that differ
	for i, h := range chunk {
		if sums[i] != h.amount && !lacks[i] {
			want[h.id] = h.amount
		}
	}
	for p := range at {
		if len(want) == 0 {
			break
		}
		err := a.follow(ctx, p, books[p], at[p].Mark, func(e *engine.Event) {
			shelfChanges(e, func(id, units int64) {
				if _, asked := want[id]; asked {
					want[id] += units
				}
			})
		})
		if err != nil {
			return err
		}
	}
	for i, h := range chunk {
		if units, differs := want[h.id]; differs && units != sums[i] {
			a.violated(checkRStocks, fmt.Sprintf("products id=%d", h.id), "its shares add up to %d, the books say %d", sums[i], units)
		}
	}
	return nil
}

// shelfChanges tells by how much an event changes shares, by product.
func shelfChanges(e *engine.Event, tell func(id, units int64)) {
	switch e.Kind {
	case engine.Restocked, engine.Moved:
		tell(e.ProductID, e.Delta)
	case engine.Ordered, engine.Stepped:
		sign := int64(-1)
		if e.Kind == engine.Stepped {
			sign = stepOf[e.Order.Status].shelf
		}
		for _, i := range e.Order.Items {
			tell(i.ProductID, sign*i.Quantity)
		}
	}
}

package persist

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// tables loads what the tables hold, in one walk over each for all partitions.
func (r *restore) tables(ctx context.Context) error {
	for _, walk := range []struct {
		phase RestorePhase
		count string
		load  func(context.Context) error
	}{
		{RestoredProducts, "SELECT count(*) FROM products", r.products},
		{RestoredUsers, "SELECT count(*) FROM users", r.users},
		{RestoredUnpaid, "SELECT count(*) FROM orders WHERE status = 'PENDING'", r.unpaid},
		{RestoredCarts, "SELECT count(*) FROM carts", r.carts},
	} {
		var rows int64
		if err := r.books.pool.QueryRow(ctx, walk.count).Scan(&rows); err != nil {
			return unavailable("counting", err)
		}
		r.watch.expect(walk.phase, rows)
		if err := walk.load(ctx); err != nil {
			return err
		}
	}
	if err := r.transfers(ctx); err != nil {
		return err
	}
	for _, p := range r.parts {
		if _, err := r.put(ctx, p.load); err != nil {
			return err
		}
	}
	return nil
}

// of returns the part of a user, nil where it is not restored here.
func (r *restore) of(user int64) *part { return r.mine[r.books.engine.Keys().OfUser(user)] }

// into lets a part's load be filled, and sends it on once it is full.
func (r *restore) into(ctx context.Context, p *part, fill func(*engine.Load)) (err error) {
	if fill(p.load); p.load.Full() {
		p.load, err = r.put(ctx, p.load)
	}
	return err
}

// products loads the catalogue into every partition. With one, all stock lies there; else the ledger knows the shares.
func (r *restore) products(ctx context.Context) error {
	shareOf, sql, more, err := r.shares(ctx)
	if err != nil {
		return err
	}
	highest := int64(0)
	var l engine.Product
	err = r.each(ctx, RestoredProducts, "SELECT id, name, price, version, created_at, stock"+sql,
		append([]any{&l.ID, &l.Name, &l.Price, &l.Version, &l.CreatedAt, &l.Stock}, more...), func() error {
			for _, p := range r.parts {
				share, listed := shareOf(&l, p.partition)
				if !listed {
					r.unlisted = true
					continue
				}
				highest = max(highest, l.ID)
				if err := r.into(ctx, p, func(to *engine.Load) { to.Product(l, share) }); err != nil {
					return err
				}
			}
			return nil
		})
	for _, p := range r.parts {
		if highest > 0 {
			p.load.Listed(highest)
		}
	}
	return err
}

// neverListed returns the products whose initial units no event has put on a shelf: their creation got no further than
// the tables, or Redis was lost with the event. They are listed as new ones, which brings the units.
func (r *restore) neverListed(ctx context.Context) (map[int64]bool, error) {
	var empty []int64
	err := r.books.pool.QueryRow(ctx, "SELECT array_agg(id) FROM products WHERE stock = 0 AND initial_stock > 0").Scan(&empty)
	if err != nil {
		return nil, unavailable("reading products", err)
	}
	if len(empty) == 0 {
		return nil, nil
	}
	never := make(map[int64]bool, len(empty))
	for _, id := range empty {
		never[id] = true
	}
	rows, err := r.books.pool.Query(ctx,
		"SELECT DISTINCT product_id FROM stock_ledger WHERE kind = 'restock' AND product_id = ANY($1)", empty)
	if err != nil {
		return nil, unavailable("reading the stock ledger", err)
	}
	var id int64
	if _, err := pgx.ForEachRow(rows, []any{&id}, func() error { delete(never, id); return nil }); err != nil {
		return nil, unavailable("reading the stock ledger", err)
	}
	return never, nil
}

func (r *restore) users(ctx context.Context) error {
	var id, balance int64
	return r.each(ctx, RestoredUsers, "SELECT id, balance FROM users", []any{&id, &balance}, func() error {
		if p := r.of(id); p != nil {
			return r.into(ctx, p, func(to *engine.Load) { to.Balance(id, balance) })
		}
		return nil
	})
}

func (r *restore) carts(ctx context.Context) error {
	var user int64
	var products, quantities []int64
	const sql = `SELECT user_id, array_agg(product_id ORDER BY line, product_id), array_agg(quantity ORDER BY line, product_id)
		FROM cart_items GROUP BY user_id`
	return r.each(ctx, RestoredCarts, sql, []any{&user, &products, &quantities}, func() error {
		p := r.of(user)
		if p == nil {
			return nil
		}
		lines := make([]engine.Line, len(products))
		for i := range lines {
			lines[i] = engine.Line{ProductID: products[i], Quantity: quantities[i]}
		}
		return r.into(ctx, p, func(to *engine.Load) { to.Cart(user, lines) })
	})
}

func (r *restore) unpaid(ctx context.Context) error {
	rows, err := r.books.pool.Query(ctx, selectOrders+" WHERE o.status = 'PENDING'")
	if err != nil {
		return unavailable("reading unpaid orders", err)
	}
	defer rows.Close()
	for rows.Next() {
		var row orderRow
		if err := rows.Scan(row.fields()...); err != nil {
			return unavailable("reading unpaid orders", err)
		}
		order, err := row.order()
		if err != nil {
			return err
		}
		r.watch.read(RestoredUnpaid, 1)
		if p := r.of(order.UserID); p != nil {
			if err := r.into(ctx, p, func(to *engine.Load) { to.Unpaid(&order) }); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return unavailable("reading unpaid orders", err)
	}
	return nil
}

// each visits the rows of a query as they come.
func (r *restore) each(ctx context.Context, phase RestorePhase, sql string, scans []any, visit func() error) error {
	rows, err := r.books.pool.Query(ctx, sql)
	if err == nil {
		_, err = pgx.ForEachRow(rows, scans, func() error {
			r.watch.read(phase, 1)
			return visit()
		})
	}
	if err != nil {
		return fmt.Errorf("%w: restoring from the tables: %w", engine.ErrUnavailable, err)
	}
	return nil
}

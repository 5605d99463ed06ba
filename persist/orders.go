package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// selectOrders reads whole orders in one statement, so that each is of one snapshot: a row an order, with its items
// in the order in which they were placed, and its history.
const selectOrders = `SELECT o.id, o.user_id, o.status, o.total_price, o.created_at, o.expires_at,
		i.products, i.quantities, i.prices, h.statuses, h.reasons, h.times
	FROM orders o
	CROSS JOIN LATERAL (SELECT array_agg(product_id ORDER BY line, product_id) AS products,
			array_agg(quantity ORDER BY line, product_id) AS quantities, array_agg(price ORDER BY line, product_id) AS prices
		FROM order_items WHERE order_id = o.id) i
	CROSS JOIN LATERAL (SELECT array_agg(status ORDER BY step) AS statuses, array_agg(reason ORDER BY step) AS reasons,
			array_agg(at ORDER BY step) AS times
		FROM order_history WHERE order_id = o.id) h`

// orderRow is a row of selectOrders.
type orderRow struct {
	engine.Order
	status                       string
	expires                      *time.Time
	products, quantities, prices []int64
	statuses, reasons            []string
	times                        []time.Time
}

// fields are where the columns of selectOrders go.
func (r *orderRow) fields() []any {
	return []any{
		&r.ID, &r.UserID, &r.status, &r.Total, &r.CreatedAt, &r.expires,
		&r.products, &r.quantities, &r.prices, &r.statuses, &r.reasons, &r.times,
	}
}

// order puts the columns together.
func (r *orderRow) order() (engine.Order, error) {
	o := r.Order
	status, known := statusOf[r.status]
	if !known {
		return o, fmt.Errorf("order %d has the unknown status %q", o.ID, r.status)
	}
	o.Status, o.CreatedAt = status, o.CreatedAt.UTC()
	if r.expires != nil {
		o.ExpiresAt = r.expires.UTC()
	}
	for i := range r.products {
		o.Items = append(o.Items, engine.Item{ProductID: r.products[i], Quantity: r.quantities[i], Price: r.prices[i]})
	}
	for i := range r.statuses {
		if status, known = statusOf[r.statuses[i]]; !known {
			return o, fmt.Errorf("order %d went through the unknown status %q", o.ID, r.statuses[i])
		}
		o.History = append(o.History, engine.Step{Status: status, Reason: r.reasons[i], At: r.times[i].UTC()})
	}
	return o, nil
}

var statusOf = func() map[string]engine.Status {
	all := map[string]engine.Status{}
	for s := engine.Pending; s <= engine.Refunded; s++ {
		all[s.String()] = s
	}
	return all
}()

// collectOrders reads the rows of selectOrders with some conditions.
func collectOrders(ctx context.Context, q querier, conditions string, args ...any) ([]engine.Order, error) {
	found, err := q.Query(ctx, selectOrders+conditions, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, func(row pgx.CollectableRow) (engine.Order, error) {
		var r orderRow
		if err := row.Scan(r.fields()...); err != nil {
			return engine.Order{}, err
		}
		return r.order()
	})
}

// Order reads an order, together with how many events of its partition the books held when it was read.
func (b *Books) Order(ctx context.Context, id int64) (engine.Archived, error) {
	// The partition follows from the user, who is not known yet: all checkpoints are read, in the same snapshot.
	const sql = "WITH o AS (" + selectOrders + ` WHERE o.id = $1)
		SELECT o.*, (SELECT array_agg(events ORDER BY partition) FROM checkpoints) FROM o`
	var r orderRow
	var events []int64
	err := b.pool.QueryRow(ctx, sql, id).Scan(append(r.fields(), &events)...)
	if errors.Is(err, pgx.ErrNoRows) {
		return engine.Archived{}, engine.ErrOrderNotFound
	}
	if err != nil {
		return engine.Archived{}, unavailable("reading the order", err)
	}
	order, err := r.order()
	if err != nil {
		return engine.Archived{}, unavailable("reading the order", err)
	}
	p := b.engine.Keys().OfUser(order.UserID)
	if p >= len(events) {
		return engine.Archived{}, unavailable("reading the order", fmt.Errorf("partition %d has no checkpoint", p))
	}
	return engine.Archived{Order: order, Events: events[p]}, nil
}

// ordersMax is the longest page of Orders.
const ordersMax = 200

// Orders returns a user's orders below an id, newest first (before 0: from the newest on), and whether there may be more.
// It shows every change that was answered before the call.
func (b *Books) Orders(ctx context.Context, user, before int64, limit int) (orders []engine.Order, more bool, err error) {
	if limit < 1 || limit > ordersMax {
		return nil, false, fmt.Errorf("%w: limit must be 1 to %d", engine.ErrInvalid, ordersMax)
	}
	if user < 1 || user > engine.IDMax {
		return nil, false, engine.ErrUserNotFound
	}
	if err := b.progress.await(ctx, b.engine.Keys().OfUser(user)); err != nil {
		return nil, false, err
	}
	conditions, args := " WHERE o.user_id = $1 ORDER BY o.id DESC LIMIT $2", []any{user, limit + 1}
	if before > 0 {
		conditions, args = " WHERE o.user_id = $1 AND o.id < $3 ORDER BY o.id DESC LIMIT $2", append(args, before)
	}
	orders, err = collectOrders(ctx, b.pool, conditions, args...)
	if err != nil {
		return nil, false, unavailable("reading orders", err)
	}
	if len(orders) == 0 {
		// Most who ask have orders: only where none is found it matters whether there is such a user.
		var known bool
		if err := b.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM users WHERE id = $1)", user).Scan(&known); err != nil {
			return nil, false, unavailable("reading the user", err)
		}
		if !known {
			return nil, false, engine.ErrUserNotFound
		}
	}
	if len(orders) > limit {
		return orders[:limit], true, nil
	}
	return orders, false, nil
}

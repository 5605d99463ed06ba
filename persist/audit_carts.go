package persist

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

const selectCarts = `SELECT c.user_id, c.epoch, c.seq, c.updated_at, i.products, i.quantities, i.lines FROM carts c
	CROSS JOIN LATERAL (SELECT array_agg(product_id ORDER BY line) AS products, array_agg(quantity ORDER BY line) AS quantities,
			array_agg(line ORDER BY line) AS lines
		FROM cart_items WHERE user_id = c.user_id) i`

// errLines says that the lines of a cart are not numbered as the writer numbers them.
var errLines = errors.New("lines are not numbered from 1 on")

// collectCarts reads carts with some conditions. What is wrong with a cart's lines is left to each.
func collectCarts(ctx context.Context, q querier, each func(user int64, c cart, wrong error), conditions string, args ...any) error {
	found, err := q.Query(ctx, selectCarts+conditions, args...)
	if err != nil {
		return fmt.Errorf("reading carts: %w", err)
	}
	var user, epoch, seq int64
	var updated time.Time
	var products, quantities []int64
	var lines []int16
	_, err = pgx.ForEachRow(found, []any{&user, &epoch, &seq, &updated, &products, &quantities, &lines}, func() error {
		c, wrong := cart{at: engine.Position{Epoch: epoch, Seq: seq}, updated: updated}, error(nil)
		for i := range products {
			c.lines = append(c.lines, engine.Line{ProductID: products[i], Quantity: quantities[i]})
			if int(lines[i]) != i+1 {
				wrong = errLines
			}
		}
		each(user, c, wrong)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading carts: %w", err)
	}
	return nil
}

// cartRows compares the carts of a run of the journal, which ends at last, with the rows. A row names the event that made
// it: it must be exactly what that event says, and no later event may concern the same user. A user without a row must
// have emptied the cart in the end: the walk remembers whose cart is open, a bit a user.
func (a *audit) cartRows(ctx context.Context, carts map[int64]cart, last engine.Position) error {
	users := make([]int64, 0, len(carts))
	for user := range carts {
		users = append(users, user)
	}
	if len(users) == 0 {
		return nil
	}
	found := map[int64]bool{}
	err := collectCarts(ctx, a.snapshot, func(user int64, row cart, wrong error) {
		found[user] = true
		want, subject := carts[user], fmt.Sprintf("carts user_id=%d", user)
		switch order := row.at.Compare(want.at); {
		case order < 0 || order == 0 && len(want.lines) == 0:
			a.violated(checkTables, subject, "is that of event %v, event %v changed it to %v", row.at, want.at, want.lines)
		case order > 0 && row.at.Compare(last) <= 0:
			a.violated(checkTables, subject, "is that of event %v, which did not change it", row.at)
		case order == 0:
			a.expected.carts++
			a.expected.cartItems += int64(len(want.lines))
			if !slices.Equal(row.lines, want.lines) || wrong != nil {
				a.violated(checkTables, "cart_items user_id="+fmt.Sprint(user), "are %v (%v), the journal says %v", row.lines, wrong, want.lines)
			}
			if !row.updated.Equal(want.updated) {
				a.violated(checkTables, subject, "was updated at %v, the journal says %v", row.updated, want.updated)
			}
		}
	}, " WHERE c.user_id = ANY($1)", users)
	for user, c := range carts {
		if len(c.lines) > 0 && !found[user] {
			a.open.add(user)
		} else {
			a.open.remove(user)
		}
	}
	return err
}

// cartsLeftOpen reports whose last event left something in the cart, though there is no row. A user's events lie in one
// partition.
func (a *audit) cartsLeftOpen() {
	a.open.each(func(user int64) {
		a.violated(checkTables, fmt.Sprintf("carts user_id=%d", user), "is missing, the journal says that the cart holds something")
	})
	clear(a.open)
}

// carts compares the carts of the books with those in Redis.
func (a *audit) carts(ctx context.Context) error {
	for after, more := int64(0), true; more; {
		var err error
		if after, more, err = a.someCarts(ctx, after); err != nil {
			return err
		}
	}
	return nil
}

// someCarts compares a chunk of carts, and returns where the next begins and whether there may be one.
func (a *audit) someCarts(ctx context.Context, after int64) (last int64, more bool, err error) {
	byPartition, n := make([]map[int64]cart, a.keys.Partitions()), 0
	last = after
	err = collectCarts(ctx, a.books.pool, func(user int64, c cart, _ error) {
		p := a.keys.OfUser(user)
		if byPartition[p] == nil {
			byPartition[p] = map[int64]cart{}
		}
		byPartition[p][user], last = c, user
		n++
	}, " WHERE c.user_id > $1 ORDER BY c.user_id LIMIT $2", after, a.chunk)
	for p, part := range byPartition {
		if err == nil {
			err = a.cartsAgree(ctx, p, part)
		}
	}
	return last, n == a.chunk, err
}

// strayCarts compares carts that Redis has and the books perhaps have not.
func (a *audit) strayCarts(ctx context.Context, p int, users []int64) error {
	carts := map[int64]cart{}
	for _, user := range users {
		carts[user] = cart{}
	}
	err := collectCarts(ctx, a.books.pool, func(user int64, _ cart, _ error) { delete(carts, user) }, " WHERE c.user_id = ANY($1)", users)
	if err != nil {
		return err
	}
	return a.cartsAgree(ctx, p, carts)
}

// cartsAgree compares carts with Redis. Where they differ the books are read again once they hold what Redis held. A cart
// that has changed since is looked at again, a few times: it changes under the eyes of the audit, which then says nothing.
func (a *audit) cartsAgree(ctx context.Context, p int, carts map[int64]cart) error {
	if a.doors[p].skip {
		return nil
	}
	a.looked(checkRCarts, int64(len(carts)))
	for range auditRounds {
		if len(carts) == 0 {
			return nil
		}
		held, at, err := a.heldCarts(ctx, p, carts)
		if err != nil {
			return err
		}
		for user, c := range carts {
			if h := held[user]; h.err == nil && slices.Equal(h.lines, c.lines) {
				delete(carts, user)
			}
		}
		if len(carts) == 0 {
			return nil
		}
		if err := a.passed(ctx, p, at.Mark); err != nil {
			return err
		}
		changed, err := a.cartsNow(ctx, p, at, carts)
		if err != nil {
			return err
		}
		for user, c := range carts {
			h := held[user]
			if !changed[user] && (h.err != nil || !slices.Equal(h.lines, c.lines)) {
				a.violated(checkRCarts, a.keys.Cart(p, user), "holds %v (%v), the books say %v", h.lines, h.err, c.lines)
			}
			if !changed[user] {
				delete(carts, user)
			}
		}
	}
	return nil
}

// heldCart is a cart as Redis has it.
type heldCart struct {
	lines []engine.Line
	err   error
}

func (a *audit) heldCarts(ctx context.Context, p int, of map[int64]cart) (map[int64]heldCart, meta, error) {
	users, keys := make([]int64, 0, len(of)), make([]string, 0, len(of))
	for user := range of {
		users, keys = append(users, user), append(keys, a.keys.Cart(p, user))
	}
	records, at, err := a.held(ctx, p, keys)
	if err != nil {
		return nil, at, err
	}
	held := map[int64]heldCart{}
	for i, user := range users {
		if record, stands := records[i].(string); stands {
			lines, err := engine.DecodeCart(record)
			held[user] = heldCart{lines, err}
		}
	}
	return held, at, nil
}

// cartsNow reads carts anew, and tells which of them have changed since Redis was looked at.
func (a *audit) cartsNow(ctx context.Context, p int, at meta, carts map[int64]cart) (changed map[int64]bool, err error) {
	tx, err := a.books.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only read
	users := make([]int64, 0, len(carts))
	for user := range carts {
		users = append(users, user)
		carts[user] = cart{}
	}
	err = collectCarts(ctx, tx, func(user int64, c cart, _ error) { carts[user] = c }, " WHERE c.user_id = ANY($1)", users)
	changed = map[int64]bool{}
	if err == nil {
		err = a.behind(ctx, tx, p, at.Position, endOfJournal, func(e *engine.Event) {
			changed[e.UserID] = changed[e.UserID] || e.Kind == engine.Carted
		})
	}
	return changed, err
}

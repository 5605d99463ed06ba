package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// CancelRequest gives an order back.
type CancelRequest struct {
	OrderID int64
	UserID  int64 // its buyer; 0 for whoever it is, which only an admin may say
	Admin   bool  // at any time, and with a key in the admins' scope
	Reason  string
	Key     string // idempotency key
}

// cancelTries bounds how often an order that moved between Redis and the books is looked for anew.
const cancelTries = 4

// Cancel cancels an unpaid order, or refunds a paid one: stock, and money where it was paid, go back in the same
// step. The second result says that an earlier call with the same key did.
func (e *Engine) Cancel(ctx context.Context, r CancelRequest) (Order, bool, error) {
	if utf8.RuneCountInString(r.Reason) > NameMax {
		return Order{}, false, invalid("reason has more than %d characters", NameMax)
	}
	named := r.UserID
	if r.UserID == 0 && r.Admin {
		var err error
		if r.UserID, err = e.buyerOf(ctx, &r); err != nil {
			return Order{}, false, err
		}
	}
	if err := checkOrder(r.OrderID, r.UserID, r.Key); err != nil {
		return Order{}, false, err
	}
	p := e.partitionOf(r.UserID)
	if r.Admin {
		unlock, err := e.lockAdminKey(ctx, p, r.Key)
		if err != nil {
			return Order{}, false, err
		}
		defer unlock()
	}
	for range cancelTries {
		op, missing, err := e.cancelOp(ctx, p, &r, named)
		if err != nil {
			return Order{}, false, err
		}
		err = p.queue.do(ctx, cancelKind, op, len(op.items))
		switch {
		case errors.Is(err, errOrderChanged):
			continue
		case errors.Is(err, ErrOrderNotFound) && missing == nil:
			continue // it was let go after it was read
		case errors.Is(err, ErrOrderNotFound):
			return Order{}, false, missing
		case err != nil:
			return Order{}, false, err
		case op.replayed:
			return e.replayed(ctx, p, op.order, op.status)
		}
		order, err := DecodeOrder(op.order, op.record)
		return order, false, err
	}
	return Order{}, false, fmt.Errorf("%w: the order moves between Redis and the books", ErrUnavailable)
}

// buyerOf finds whose order an admin means. Where there is none, the key has the first word: used for another request it
// is refused as such.
func (e *Engine) buyerOf(ctx context.Context, r *CancelRequest) (int64, error) {
	order, err := e.anybodysOrder(ctx, r.OrderID)
	if errors.Is(err, ErrOrderNotFound) {
		if used := e.usedElsewhere(ctx, nil, r.Key); used != nil {
			return 0, used
		}
	}
	return order.UserID, err
}

// cancelOp reads what the script needs to know of the order, whose buyer the request named or not. missing says why it could not be found: even then the
// script is asked, since the key comes first.
func (e *Engine) cancelOp(ctx context.Context, p *partition, r *CancelRequest, named int64) (op *rollbackOp, missing, err error) {
	scope, within, reason := r.UserID, e.cfg.RefundWindow, r.Reason
	if r.Admin {
		scope, within = adminScope, -1
	}
	if reason == "" {
		if reason = "canceled by the buyer"; r.Admin {
			reason = "canceled by an admin"
		}
	}
	op = &rollbackOp{
		user: r.UserID, order: r.OrderID, key: r.Key, scope: scope, within: within, reason: reason,
		fingerprint: fingerprint("POST /order/{id}/cancel", scope,
			strconv.FormatInt(r.OrderID, 10), strconv.FormatInt(named, 10), r.Reason),
	}
	order, found, err := e.heldOrder(ctx, p, r.OrderID)
	if err != nil {
		return nil, nil, err
	}
	if !found {
		archived, err := e.archived(ctx, p, r.OrderID)
		switch {
		case err != nil:
			missing = err
		case archived.UserID != r.UserID:
			missing = ErrOrderNotFound
		default:
			order = archived.Order
			op.archived, op.events = string(encodeOrder(&order)), archived.Events
		}
	} else if order.UserID != r.UserID {
		missing = ErrOrderNotFound
	}
	op.items, op.soldAt = order.Items, order.PaidAt()
	return op, missing, nil
}

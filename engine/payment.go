package engine

import (
	"context"
	"errors"
	"strconv"
)

// PayRequest pays a held order.
type PayRequest struct {
	UserID  int64
	OrderID int64
	Key     string // idempotency key
}

// Pay pays a held order from its user's balance. Where the balance is too short the order turns FAILED and its stock
// goes back: that is a *Refusal of ErrInsufficientBalance with the Order. The second result says that an earlier call
// with the same key did either.
func (e *Engine) Pay(ctx context.Context, r PayRequest) (Order, bool, error) {
	if err := checkOrder(r.OrderID, r.UserID, r.Key); err != nil {
		return Order{}, false, err
	}
	p := e.partitionOf(r.UserID)
	// The lines never change: they say which keys the script needs. The state is judged by the script.
	order, _, err := e.heldOrder(ctx, p, r.OrderID)
	if err != nil {
		return Order{}, false, err
	}
	op := &debitOp{
		user: r.UserID, order: r.OrderID, key: r.Key, items: order.Items,
		fingerprint: fingerprint("POST /order/{id}/payment", r.UserID, strconv.FormatInt(r.OrderID, 10)),
	}
	if err := p.queue.do(ctx, debitKind, op, len(op.items)); err != nil {
		if errors.Is(err, ErrOrderNotFound) {
			err = e.pastPayment(ctx, p, r)
		}
		return Order{}, false, err
	}
	if op.replayed {
		order, _, err = e.replayed(ctx, p, op.order, op.status)
	} else {
		order, err = DecodeOrder(op.order, op.record)
	}
	if err == nil && order.Status == Failed {
		err = &Refusal{Reason: ErrInsufficientBalance, Balance: op.balance, Order: &order}
	}
	return order, op.replayed, err
}

// pastPayment says of an order that Redis does not hold why it cannot be paid: Redis lets go only what has ended.
func (e *Engine) pastPayment(ctx context.Context, p *partition, r PayRequest) error {
	archived, err := e.archived(ctx, p, r.OrderID)
	switch {
	case err != nil:
		return err
	case archived.UserID != r.UserID:
		return ErrOrderNotFound
	}
	return &Refusal{Reason: ErrNotPayable, Status: archived.Status}
}

func checkOrder(id, user int64, key string) error {
	if id < 1 {
		return invalid("the order id must be a positive integer")
	}
	if err := checkUser(user); err != nil {
		return err
	}
	return checkKey(key)
}

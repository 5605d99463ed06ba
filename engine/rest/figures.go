package rest

import (
	"errors"
	"strconv"
	"strings"

	"stampede/engine"
)

// figures adds to a problem what a client needs to act on it.
func figures(p *problem, err error) *problem {
	var r *engine.Refusal
	if !errors.As(err, &r) {
		r = &engine.Refusal{}
	}
	product := strconv.FormatInt(r.ProductID, 10)
	switch {
	case r.Reason == nil && p.code != validationFailed.code:
		return p
	case errors.Is(r.Reason, engine.ErrCartFull):
		return cartFull(p, r, product)
	case errors.Is(r.Reason, engine.ErrElsewhere):
		return p.with("The units of product %s did not come to the buyer's partition in time. The order was not placed.", product).
			field("product_id", product)
	}
	switch p.code {
	case validationFailed.code:
		return p.with("%s", strings.TrimPrefix(err.Error(), engine.ErrInvalid.Error()+": "))
	case productNotFound.code:
		return p.with("There is no product with the id %s.", product).field("product_id", product)
	case outOfStock.code:
		return p.with("Product %s has %d units left.", product, r.Left).field("product_id", product).field("left", r.Left)
	case lackOfBalance.code:
		return lackingBalance(p, r)
	case balanceLimit.code:
		return p.with("The balance is %d; it may not pass %d.", r.Balance, int64(engine.BalanceMax)).field("balance", r.Balance)
	case notPayable.code:
		return p.with("%s", whyNotPayable(r.Status)).field("order_status", r.Status.String())
	case notCancelable.code:
		return p.with("%s", whyNotCancelable(r.Status)).field("order_status", r.Status.String())
	}
	return p
}

// cartFull tells the two ways apart in which a cart is full.
func cartFull(p *problem, r *engine.Refusal, product string) *problem {
	if r.Left == 0 {
		return p.with("The cart holds %d different products, the most it can; product %s does not fit in.", engine.LinesMax, product).
			field("product_id", product)
	}
	return p.with("The cart holds %d units of product %s already, and at most %d fit in.", r.Left, product, engine.QuantityMax).
		field("product_id", product).field("in_cart", r.Left)
}

// lackingBalance says whether an order was lost over it: placing one makes none, paying a held one ends it.
func lackingBalance(p *problem, r *engine.Refusal) *problem {
	p = p.field("balance", r.Balance)
	if r.Order == nil {
		return p.with("The balance is %d.", r.Balance)
	}
	return p.with("The balance is %d, and the order costs %d: it has FAILED, and its stock is free again.", r.Balance, r.Order.Total).
		field("order", orderOf(r.Order))
}

func whyNotPayable(status engine.Status) string {
	if status == engine.Pending {
		return "The time to pay this order has passed; it is about to turn EXPIRED, and its stock goes back."
	}
	return "Only an order that is PENDING can be paid; this one is " + status.String() + "."
}

func whyNotCancelable(status engine.Status) string {
	switch status {
	case engine.Pending:
		return "The deadline of this order has passed; it is about to turn EXPIRED, and its stock goes back."
	case engine.Success:
		return "The time in which a buyer may give a paid order back has passed; an admin still can."
	}
	return "Only an order that is PENDING or SUCCESS can be cancelled; this one is " + status.String() + "."
}

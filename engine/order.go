package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// Status is the state of an order. The numbers stand in Redis and in events.
type Status int

// The states of an order.
const (
	Pending  Status = 1
	Success  Status = 2
	Failed   Status = 3
	Canceled Status = 4
	Expired  Status = 5
	Refunded Status = 6
)

var statusNames = [...]string{
	Pending: "PENDING", Success: "SUCCESS", Failed: "FAILED", Canceled: "CANCELED", Expired: "EXPIRED",
	Refunded: "REFUNDED",
}

// String returns the name that the API and Postgres use.
func (s Status) String() string {
	if s < Pending || int(s) >= len(statusNames) {
		return "UNKNOWN(" + strconv.Itoa(int(s)) + ")"
	}
	return statusNames[s]
}

// Line asks for units of a product.
type Line struct {
	ProductID int64
	Quantity  int64
}

// Item is a line of an order with the server's price at that moment, in minor units.
type Item struct {
	ProductID int64
	Quantity  int64
	Price     int64
}

// Step is an entry of an order's history.
type Step struct {
	Status Status
	Reason string
	At     time.Time
}

// Order is an order as Redis holds it.
type Order struct {
	ID        int64
	UserID    int64
	Status    Status
	Total     int64 // minor units
	Items     []Item
	CreatedAt time.Time
	ExpiresAt time.Time // zero where nothing is held
	History   []Step
}

// UpdatedAt is the time of the last step.
func (o *Order) UpdatedAt() time.Time {
	if len(o.History) == 0 {
		return o.CreatedAt
	}
	return o.History[len(o.History)-1].At
}

// PaidAt is the time of the sale: zero where there was none.
func (o *Order) PaidAt() time.Time {
	for _, s := range o.History {
		if s.Status == Success {
			return s.At
		}
	}
	return time.Time{}
}

// PlaceRequest asks for an order.
type PlaceRequest struct {
	UserID int64
	Lines  []Line
	Later  bool   // hold the stock and wait for Pay, instead of paying at once
	Key    string // idempotency key
}

// Place places an order, all in one step or not at all: with Later it holds the stock until the deadline, otherwise it
// is paid from the user's balance. The second result says that an earlier call with the same key and request placed it.
func (e *Engine) Place(ctx context.Context, r PlaceRequest) (Order, bool, error) {
	op, err := e.placing(r)
	if err != nil {
		return Order{}, false, err
	}
	return e.place(ctx, op, r.Later)
}

// placing checks a request and makes an operation of it.
func (e *Engine) placing(r PlaceRequest) (placeOp, error) {
	lines, err := mergeLines(r.Lines)
	if err != nil {
		return placeOp{}, err
	}
	if err := checkUser(r.UserID); err != nil {
		return placeOp{}, err
	}
	if err := checkKey(r.Key); err != nil {
		return placeOp{}, err
	}
	route := "POST /order"
	if r.Later {
		route = "POST /order later"
	}
	return placeOp{
		user: r.UserID, key: r.Key, lines: lines, order: e.ids.next(),
		fingerprint: fingerprintLines(route, r.UserID, r.Lines),
	}, nil
}

// place has an order placed, paid at once or held.
func (e *Engine) place(ctx context.Context, op placeOp, later bool) (Order, bool, error) {
	p := e.partitionOf(op.user)
	if later {
		held := &reserveOp{placeOp: op, hold: e.cfg.Hold}
		reserve := func() error { return p.queue.do(ctx, reserveKind, held, len(op.lines)) }
		if err := e.supply(ctx, p, op.asker(), op.lines, reserve(), reserve); err != nil {
			return Order{}, false, err
		}
		if held.replayed != 0 {
			return e.replayed(ctx, p, held.replayed, Pending)
		}
		return held.result(), false, nil
	}
	paid := &op
	pay := func() error { return p.queue.do(ctx, placeKind, paid, len(op.lines)) }
	if err := e.supply(ctx, p, op.asker(), op.lines, pay(), pay); err != nil {
		return Order{}, false, err
	}
	if paid.replayed != 0 {
		return e.replayed(ctx, p, paid.replayed, Success)
	}
	return paid.result(), false, nil
}

// replayed is the order of a used key as it was answered then, whatever came after.
func (e *Engine) replayed(ctx context.Context, p *partition, id int64, status Status) (Order, bool, error) {
	order, err := e.order(ctx, p, id)
	switch {
	case errors.Is(err, ErrOrderNotFound):
		// Its key says that it is there: "not found" would be a lie.
		return Order{}, false, fmt.Errorf("%w: order %d of a used key is missing", ErrCorrupt, id)
	case errors.Is(err, ErrUnavailable), errors.Is(err, ErrOverloaded):
		// What was asked for was done before: only the answer cannot be had now.
		return Order{}, false, fmt.Errorf("%w: the order cannot be read: %v", ErrUnknown, err) //nolint:errorlint // for the log
	case err != nil:
		return Order{}, false, err
	}
	order, err = order.when(status)
	return order, err == nil, err
}

// mergeLines adds up equal products, in the order of their first appearance, and checks the caps after that.
func mergeLines(lines []Line) ([]Line, error) {
	if len(lines) == 0 {
		return nil, invalid("items must not be empty")
	}
	if len(lines) > RequestLinesMax {
		return nil, invalid("items has more than %d entries", RequestLinesMax)
	}
	merged := make([]Line, 0, min(len(lines), LinesMax))
	for i, l := range lines {
		switch {
		case l.ProductID < 1:
			return nil, invalid("items[%d].product_id must be a positive integer", i)
		case l.Quantity < 1 || l.Quantity > QuantityMax:
			return nil, invalid("items[%d].quantity must be 1 to %d", i, QuantityMax)
		}
		// At most LinesMax of them: looking through what is merged beats a map, most of all for the usual one or two.
		if j := slices.IndexFunc(merged, func(m Line) bool { return m.ProductID == l.ProductID }); j >= 0 {
			merged[j].Quantity += l.Quantity
			if merged[j].Quantity > QuantityMax {
				return nil, invalid("product %d: the quantities of its lines add up to more than %d", l.ProductID, QuantityMax)
			}
			continue
		}
		if len(merged) == LinesMax {
			return nil, invalid("items has more than %d different products", LinesMax)
		}
		merged = append(merged, l)
	}
	for _, l := range merged {
		if l.ProductID > IDMax {
			return nil, &Refusal{Reason: ErrProductNotFound, ProductID: l.ProductID}
		}
	}
	return merged, nil
}

// Order returns an order of a user; user 0 finds anybody's.
func (e *Engine) Order(ctx context.Context, id, user int64) (Order, error) {
	if user != 0 {
		if user < 0 || user > IDMax {
			return Order{}, ErrOrderNotFound
		}
		order, err := e.order(ctx, e.partitionOf(user), id)
		if err == nil && order.UserID != user {
			return Order{}, ErrOrderNotFound
		}
		return order, err
	}
	return e.anybodysOrder(ctx, id)
}

// anybodysOrder looks for an order in every partition, then in the books.
func (e *Engine) anybodysOrder(ctx context.Context, id int64) (Order, error) {
	for _, p := range e.partitions {
		if order, found, err := e.heldOrder(ctx, p, id); err != nil || found {
			return order, err
		}
	}
	if e.cfg.Archive == nil {
		return Order{}, ErrOrderNotFound
	}
	archived, err := e.cfg.Archive(ctx, id)
	return archived.Order, err
}

// order reads an order of a partition, from the books where Redis has let it go.
func (e *Engine) order(ctx context.Context, p *partition, id int64) (Order, error) {
	order, found, err := e.heldOrder(ctx, p, id)
	if err != nil || found {
		return order, err
	}
	archived, err := e.archived(ctx, p, id)
	return archived.Order, err
}

// heldOrder reads an order from Redis.
func (e *Engine) heldOrder(ctx context.Context, p *partition, id int64) (Order, bool, error) {
	record, found, err := e.read(ctx, p, e.keys.Order(p.number, id))
	if err != nil || !found {
		return Order{}, false, err
	}
	order, err := DecodeOrder(id, record)
	return order, err == nil, err
}

// when is the order as it was when it came into a state.
func (o Order) when(status Status) (Order, error) {
	for i, s := range o.History {
		if s.Status == status {
			o.History, o.Status = o.History[:i+1], status
			return o, nil
		}
	}
	return Order{}, fmt.Errorf("%w: order %d was never %v", ErrCorrupt, o.ID, status)
}

// Equal reports whether two orders are the same, step by step.
func (o *Order) Equal(p *Order) bool {
	return o.ID == p.ID && o.UserID == p.UserID && o.Status == p.Status && o.Total == p.Total &&
		o.CreatedAt.Equal(p.CreatedAt) && o.ExpiresAt.Equal(p.ExpiresAt) && slices.Equal(o.Items, p.Items) &&
		slices.EqualFunc(o.History, p.History, func(a, b Step) bool {
			return a.Status == b.Status && a.Reason == b.Reason && a.At.Equal(b.At)
		})
}

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

// PlaceRequest asks for an order that is paid at once.
type PlaceRequest struct {
	UserID int64
	Lines  []Line
	Key    string // idempotency key
}

// Place places an order and pays it from the user's balance, all in one step or not at all. The second result says
// that an earlier call with the same key and request placed it.
func (e *Engine) Place(ctx context.Context, r PlaceRequest) (Order, bool, error) {
	lines, err := mergeLines(r.Lines)
	if err != nil {
		return Order{}, false, err
	}
	if err := checkUser(r.UserID); err != nil {
		return Order{}, false, err
	}
	if err := checkKey(r.Key); err != nil {
		return Order{}, false, err
	}
	p := e.partitionOf(r.UserID)
	op := &placeOp{
		user: r.UserID, key: r.Key, lines: lines, order: e.ids.next(),
		fingerprint: fingerprintLines("POST /order", r.UserID, r.Lines),
	}
	if err := p.queue.do(ctx, placeKind, op, len(lines)); err != nil {
		return Order{}, false, e.elsewhere(p, err)
	}
	if op.replayed != 0 {
		order, err := e.order(ctx, p, op.replayed)
		if errors.Is(err, ErrOrderNotFound) {
			// Its key says that it was placed: "not found" would be a lie.
			err = fmt.Errorf("%w: order %d of a used key is missing", ErrCorrupt, op.replayed)
		}
		if err != nil {
			return Order{}, false, err
		}
		return order.asAnswered(), true, nil
	}
	return op.result(), false, nil
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
	at := make(map[int64]int, min(len(lines), LinesMax))
	for i, l := range lines {
		switch {
		case l.ProductID < 1:
			return nil, invalid("items[%d].product_id must be a positive integer", i)
		case l.Quantity < 1 || l.Quantity > QuantityMax:
			return nil, invalid("items[%d].quantity must be 1 to %d", i, QuantityMax)
		}
		if j, seen := at[l.ProductID]; seen {
			merged[j].Quantity += l.Quantity
			if merged[j].Quantity > QuantityMax {
				return nil, invalid("product %d: the quantities of its lines add up to more than %d", l.ProductID, QuantityMax)
			}
			continue
		}
		if len(merged) == LinesMax {
			return nil, invalid("items has more than %d different products", LinesMax)
		}
		at[l.ProductID] = len(merged)
		merged = append(merged, l)
	}
	for _, l := range merged {
		if l.ProductID > IDMax {
			return nil, &Refusal{Reason: ErrProductNotFound, ProductID: l.ProductID}
		}
	}
	return merged, nil
}

// elsewhere turns "out of stock" in a partition that does not hold the product's pool into a refusal that claims
// less: with several partitions the product may well be there in its home partition.
func (e *Engine) elsewhere(p *partition, err error) error {
	var r *Refusal
	if errors.As(err, &r) && errors.Is(r, ErrOutOfStock) && e.keys.Home(r.ProductID) != p.number {
		return &Refusal{Reason: ErrElsewhere, ProductID: r.ProductID}
	}
	return err
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
	missing := ErrOrderNotFound
	for _, p := range e.partitions {
		order, err := e.order(ctx, p, id)
		if err == nil {
			return order, nil
		}
		if !errors.Is(err, ErrOrderNotFound) {
			missing = err // it may be in the partition that could not be read
		}
	}
	return Order{}, missing
}

func (e *Engine) order(ctx context.Context, p *partition, id int64) (Order, error) {
	record, found, err := e.read(ctx, p, e.keys.Order(p.number, id))
	if err != nil {
		return Order{}, err
	}
	if !found {
		return Order{}, ErrOrderNotFound
	}
	return DecodeOrder(id, record)
}

// asAnswered is the order as it was when it was placed: a replay repeats the first answer, whatever came after.
func (o Order) asAnswered() Order {
	const stepsWhenPaidAtOnce = 2
	if len(o.History) > stepsWhenPaidAtOnce {
		o.History = o.History[:stepsWhenPaidAtOnce]
	}
	o.Status = o.History[len(o.History)-1].Status
	return o
}

// Equal reports whether two orders are the same, step by step.
func (o *Order) Equal(p *Order) bool {
	return o.ID == p.ID && o.UserID == p.UserID && o.Status == p.Status && o.Total == p.Total &&
		o.CreatedAt.Equal(p.CreatedAt) && o.ExpiresAt.Equal(p.ExpiresAt) && slices.Equal(o.Items, p.Items) &&
		slices.EqualFunc(o.History, p.History, func(a, b Step) bool {
			return a.Status == b.Status && a.Reason == b.Reason && a.At.Equal(b.At)
		})
}

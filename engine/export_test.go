package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// What follows opens the corridor to the tests of engine_test, which may start a whole shop.

// Op is an operation as the corridor carries it, for tests that choose the batches themselves.
type Op struct {
	op        *operation
	partition int
}

// Outcome is how an Op ended.
type Outcome struct {
	Err      error
	Replayed bool
	RefID    int64  // order or charge; of the earlier call after a replay
	Status   Status // of the order; after a replay: as it was answered
	Order    Order  // after the operation; of a replay none
	After    int64  // balance or stock after a charge, restock, payment or cancel; 0 after a replay of an order
	Cart     []Line // after a change without a key
	Answer   string // of a change of a cart under a key
}

// PlaceOp is what Place queues.
func (e *Engine) PlaceOp(r PlaceRequest) *Op {
	lines, err := mergeLines(r.Lines)
	if err != nil {
		panic(err)
	}
	route := "POST /order"
	if r.Later {
		route = "POST /order later"
	}
	return e.saleOp(placeOp{
		user: r.UserID, key: r.Key, lines: lines, order: e.ids.next(),
		fingerprint: fingerprintLines(route, r.UserID, r.Lines),
	}, r.Later)
}

func (e *Engine) saleOp(op placeOp, later bool) *Op {
	if later {
		return &Op{newDirect(reserveKind, &reserveOp{placeOp: op, hold: e.cfg.Hold}), e.keys.OfUser(op.user)}
	}
	return &Op{newDirect(placeKind, &op), e.keys.OfUser(op.user)}
}

// CartOrderOp is what OrderCart queues after it has read the lines of the cart.
func (e *Engine) CartOrderOp(r CartOrderRequest, lines []Line) *Op {
	payment := "now"
	if r.Later {
		payment = "later"
	}
	return e.saleOp(placeOp{
		user: r.UserID, key: r.Key, cart: true, lines: lines, order: e.ids.next(),
		fingerprint: fingerprint("POST /cart/order", r.UserID, payment),
	}, r.Later)
}

// PayOp is what Pay queues after it has read the items of the order.
func (e *Engine) PayOp(r PayRequest, items []Item) *Op {
	return &Op{newDirect(debitKind, &debitOp{
		user: r.UserID, order: r.OrderID, key: r.Key, items: items,
		fingerprint: fingerprint("POST /order/{id}/payment", r.UserID, strconv.FormatInt(r.OrderID, 10)),
	}), e.keys.OfUser(r.UserID)}
}

// CancelOp is what Cancel queues after it has read the order: from Redis, or, with archived, from the books.
func (e *Engine) CancelOp(r CancelRequest, read Order, archived *Archived) *Op {
	scope, within := r.UserID, e.cfg.RefundWindow
	if r.Admin {
		scope, within = adminScope, -1
	}
	op := &rollbackOp{
		user: r.UserID, order: r.OrderID, key: r.Key, scope: scope, within: within, reason: r.Reason,
		fingerprint: fingerprint("POST /order/{id}/cancel", scope,
			strconv.FormatInt(r.OrderID, 10), strconv.FormatInt(r.UserID, 10), r.Reason),
		items: read.Items, soldAt: read.PaidAt(),
	}
	if archived != nil {
		op.archived, op.events = string(encodeOrder(&archived.Order)), archived.Events
	}
	return &Op{newDirect(cancelKind, op), e.keys.OfUser(r.UserID)}
}

// ExpireOp is what the sweeper queues after it has read the order.
func (e *Engine) ExpireOp(read Order) *Op {
	return &Op{newDirect(expireKind, &rollbackOp{
		user: read.UserID, order: read.ID, scope: read.UserID, reason: "not paid by its deadline",
		items: read.Items, soldAt: read.PaidAt(),
	}), e.keys.OfUser(read.UserID)}
}

// CartOp is what AddToCart queues: under a key after it has read the products of the cart and their units elsewhere.
// Quantity 0 without a key is what RemoveFromCart queues.
func (e *Engine) CartOp(r CartAddRequest, products, elsewhere []int64) *Op {
	op := &cartOp{user: r.UserID, product: r.ProductID, quantity: r.Quantity}
	k := cartKind
	if r.Key != "" {
		k = keyedCartKind
		op.key, op.products, op.elsewhere = r.Key, products, elsewhere
		op.fingerprint = fingerprint("POST /cart/add", r.UserID,
			strconv.FormatInt(r.ProductID, 10), strconv.FormatInt(r.Quantity, 10))
	}
	return &Op{newDirect(k, op), e.keys.OfUser(r.UserID)}
}

// ChargeOp is what Charge queues.
func (e *Engine) ChargeOp(r ChargeRequest) *Op {
	return &Op{newDirect(chargeKind, &chargeOp{
		user: r.UserID, amount: r.Amount, key: r.Key, charge: e.ids.next(),
		fingerprint: fingerprint("POST /balance/charge", r.UserID, strconv.FormatInt(r.Amount, 10)),
	}), e.keys.OfUser(r.UserID)}
}

// RestockOp is what Restock queues.
func (e *Engine) RestockOp(r RestockRequest) *Op {
	return &Op{newDirect(restockKind, &restockOp{
		product: r.ProductID, delta: r.Delta, reason: r.Reason, key: r.Key,
		fingerprint: fingerprint("POST /products/{id}/stock", adminScope,
			strconv.FormatInt(r.ProductID, 10), strconv.FormatInt(r.Delta, 10), r.Reason),
	}), e.keys.Home(r.ProductID)}
}

// SetID gives a place, a reserve or a charge another id than the next one.
func (o *Op) SetID(id int64) {
	switch b := o.op.body.(type) {
	case *placeOp:
		b.order = id
	case *reserveOp:
		b.order = id
	case *chargeOp:
		b.charge = id
	}
}

// Send makes one call of operations of one kind and partition, in the given epoch, and waits for their ends.
func (e *Engine) Send(epoch int64, ops ...*Op) []Outcome {
	p := e.partitions[ops[0].partition]
	batch := make([]*operation, len(ops))
	for i, o := range ops {
		batch[i] = o.op
	}
	p.send(&call{}, batch[0].kind, header{epoch: epoch}, batch)
	outcomes := make([]Outcome, len(ops))
	for i, o := range ops {
		outcomes[i] = o.outcome()
	}
	return outcomes
}

func (o *Op) outcome() Outcome {
	if err := <-o.op.done; err != nil {
		return Outcome{Err: err}
	}
	switch b := o.op.body.(type) {
	case *placeOp:
		return b.outcome(b.result)
	case *reserveOp:
		return b.outcome(b.result)
	case *debitOp:
		if b.replayed {
			return Outcome{RefID: b.order, Replayed: true, Status: b.status, After: b.balance}
		}
		return stepOutcome(b.order, b.record, b.balance)
	case *rollbackOp:
		if b.replayed {
			return Outcome{RefID: b.order, Replayed: true, Status: b.status}
		}
		return stepOutcome(b.order, b.record, b.balance)
	case *cartOp:
		lines, err := DecodeCart(b.record)
		return Outcome{Err: err, Replayed: b.replayed, Cart: lines, Answer: b.answer}
	case *chargeOp:
		return Outcome{RefID: b.charge, Replayed: b.replayed, After: b.balance}
	case *restockOp:
		return Outcome{Replayed: b.replayed, After: b.stock}
	case *rollOp, *listOp:
		return Outcome{}
	}
	panic(fmt.Sprintf("no outcome of %T", o.op.body))
}

func (o *placeOp) outcome(result func() Order) Outcome {
	if o.replayed != 0 {
		return Outcome{RefID: o.replayed, Replayed: true}
	}
	order := result()
	return Outcome{RefID: o.order, Order: order, Status: order.Status}
}

func stepOutcome(id int64, record string, balance int64) Outcome {
	order, err := DecodeOrder(id, record)
	return Outcome{Err: err, RefID: id, Order: order, Status: order.Status, After: balance}
}

// Enqueue queues operations together, so that a worker finds them as one batch, and does not wait.
func (e *Engine) Enqueue(ops ...*Op) error {
	q := e.partitions[ops[0].partition].queue
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed || len(q.queue)-q.head+len(ops) > q.max {
		return errors.New("no room")
	}
	for _, o := range ops {
		o.op.deadline = time.Now().Add(q.timeout)
		q.queue = append(q.queue, o.op)
	}
	q.ready.Signal()
	return nil
}

// Wait waits for the end of an operation that was queued.
func (o *Op) Wait(ctx context.Context) (Outcome, error) {
	select {
	case err := <-o.op.done:
		o.op.done <- err
		return o.outcome(), nil
	case <-ctx.Done():
		return Outcome{}, ctx.Err()
	}
}

// KnownEpoch is the epoch in which this engine believes a partition to stand open; 0 where shut.
func (e *Engine) KnownEpoch(partition int) int64 {
	if s := e.partitions[partition].door.state.Load(); s.open {
		return s.epoch
	}
	return 0
}

// KnownMinute is the minute that a partition's next call expects.
func (e *Engine) KnownMinute(partition int) int64 { return e.partitions[partition].expectedMinute() }

// Queued is how many operations wait in a partition's queue.
func (e *Engine) Queued(partition int) int { return e.partitions[partition].queue.depth() }

// Roll takes minutes that have left the window out of a partition's totals, as the sweeper does.
func (e *Engine) Roll(ctx context.Context, partition int) error {
	return e.rollPartition(ctx, e.partitions[partition])
}

// TopMember is how a product stands in the sorted set of units sold.
func TopMember(product int64) string { return topMember(product) }

// What callers never see, and tests of calls do.
// TopPage is how many products a reader of best sellers gets at a time.
const TopPage = topPage

var (
	ErrCartChanged  = errCartChanged
	ErrHoldNotDue   = errHoldNotDue
	ErrOrderChanged = errOrderChanged
)

// MustDecodeCart reads a cart's record; it panics where that is none.
func MustDecodeCart(record string) []Line {
	lines, err := DecodeCart(record)
	if err != nil {
		panic(err)
	}
	return lines
}

// ListOp is what List queues for a partition.
func (e *Engine) ListOp(l Listing, partition int) *Op {
	op := &listOp{product: l.Product}
	if e.keys.Home(l.ID) == partition {
		op.initial = l.InitialStock
	}
	return &Op{newDirect(listKind, op), partition}
}

// KeysOf are the KEYS of a call with one operation.
func (e *Engine) KeysOf(o *Op) []string {
	c := &call{}
	e.partitions[o.partition].encode(c, o.op.kind, header{epoch: 1}, []*operation{o.op})
	keys := make([]string, len(c.key))
	for i, key := range c.key {
		keys[i] = key.(string)
	}
	return keys
}

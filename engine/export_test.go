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
	RefID    int64 // order or charge; of the earlier call after a replay
	Order    Order // of a place that is no replay
	After    int64 // balance or stock after a charge or restock
}

// PlaceOp is what Place queues.
func (e *Engine) PlaceOp(r PlaceRequest) *Op {
	lines, err := mergeLines(r.Lines)
	if err != nil {
		panic(err)
	}
	return &Op{newDirect(placeKind, &placeOp{
		user: r.UserID, key: r.Key, lines: lines, order: e.ids.next(),
		fingerprint: fingerprintLines("POST /order", r.UserID, r.Lines),
	}), e.keys.OfUser(r.UserID)}
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

// SetOrderID gives a place another order id than the next one.
func (o *Op) SetOrderID(id int64) { o.op.body.(*placeOp).order = id }

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
		if b.replayed != 0 {
			return Outcome{RefID: b.replayed, Replayed: true}
		}
		return Outcome{RefID: b.order, Order: b.result()}
	case *chargeOp:
		return Outcome{RefID: b.charge, Replayed: b.replayed, After: b.balance}
	case *restockOp:
		return Outcome{Replayed: b.replayed, After: b.stock}
	}
	panic(fmt.Sprintf("no outcome of %T", o.op.body))
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

// Assignment is one of those that a repair hands to lua/replay.lua.
type Assignment struct {
	Key   string
	Value string // set
	TTL   int64  // set for so many seconds; 0: for good
	Field string // of a hash, to add Delta to
	Delta int64
}

// Fold is what a repair would write for the entries.
func (e *Engine) Fold(partition int, entries []Entry) ([]Assignment, error) {
	set, err := e.fold(partition, entries)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, len(set.keys))
	for i, key := range set.keys {
		d := &decoder{b: []byte(set.args[i].(string))}
		a := Assignment{Key: key}
		switch kind := d.int(); kind {
		case assignSet:
			a.Value = d.string()
		case assignSetFor:
			a.Value, a.TTL = d.string(), d.int()
		case assignAdd:
			a.Field, a.Delta = d.string(), d.int()
		default:
			return nil, fmt.Errorf("unknown assignment %d", kind)
		}
		if d.err != nil || len(d.b) > 0 {
			return nil, fmt.Errorf("assignment to %s: %d bytes left, %w", key, len(d.b), d.err)
		}
		all[i] = a
	}
	return all, nil
}

package persist

import (
	"context"
	"fmt"

	"stampede/engine"
)

// recordsOf looks in Redis for the orders that ended in a run of the journal: behind the mark up to which Redis has let
// ended orders go they must stand, before it they must be gone, unless they took a step since. What the records say is
// compared by records. before is how many events precede the run. With a new layout all orders that had ended were let go.
func (a *audit) recordsOf(ctx context.Context, ended []endedOrder, before int64) error {
	byPartition := map[int][]endedOrder{}
	for _, o := range ended {
		p := a.keys.OfUser(o.buyer)
		byPartition[p] = append(byPartition[p], o)
	}
	for p, part := range byPartition {
		if err := a.recordsIn(ctx, p, part, before); err != nil {
			return err
		}
	}
	return nil
}

// recordsIn is recordsOf for the orders of buyers who are in a partition.
func (a *audit) recordsIn(ctx context.Context, p int, ended []endedOrder, before int64) error {
	if a.doors[p].skip {
		return nil
	}
	for from := 0; from < len(ended); from += a.chunk {
		chunk := ended[from:min(from+a.chunk, len(ended))]
		keys := make([]string, len(chunk))
		for i, o := range chunk {
			keys[i] = a.keys.Order(p, o.OrderID)
		}
		found, at, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		a.looked(checkROrders, int64(len(chunk)))
		for i, o := range chunk {
			record, stands := found[i].(string)
			number := before + o.nth
			gone := number <= at.letGo || o.at.Epoch < a.layouts.now().first
			if !stands && !gone {
				a.violated(checkROrders, keys[i], "is missing: event %v, number %d, ended it, and Redis let go those up to number %d", o.at, number, at.letGo)
			}
			if stands && gone {
				if order, err := engine.DecodeOrder(o.OrderID, record); err == nil && order.Status == o.Status {
					a.violated(checkROrders, keys[i], "still stands: event %v, number %d, ended it, and Redis let go those up to number %d", o.at, number, at.letGo)
				}
			}
		}
	}
	return nil
}

// An order takes at most two steps after the first: Redis cannot be found behind the books more often.
const auditRounds = 4

// records compares orders that stand in Redis with the books. Where they differ the books are asked again once they hold
// what Redis held; an order that has taken a step meanwhile is looked at again.
func (a *audit) records(ctx context.Context, p int, ids []int64) error {
	for round := 1; len(ids) > 0; round++ {
		keys := make([]string, len(ids))
		for i, id := range ids {
			keys[i] = a.keys.Order(p, id)
		}
		found, at, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		if round == 1 {
			a.looked(checkROrders, int64(len(ids)))
		}
		held := map[int64]engine.Order{}
		for i, id := range ids {
			record, stands := found[i].(string)
			if !stands {
				continue // it was let go meanwhile; recordsOf finds those that are missing
			}
			if held[id], err = engine.DecodeOrder(id, record); err != nil {
				a.violated(checkROrders, keys[i], "%v", err)
				delete(held, id)
			}
		}
		if ids, err = a.recordsDiffer(ctx, p, held, at, round); err != nil {
			return err
		}
	}
	return nil
}

// recordsDiffer reports the orders that are not as the books have them, and returns those of which that cannot be told.
func (a *audit) recordsDiffer(ctx context.Context, p int, held map[int64]engine.Order, at meta, round int) (again []int64, err error) {
	for _, waited := range []bool{false, true} {
		if len(held) == 0 {
			return nil, nil
		}
		if waited {
			if err := a.passed(ctx, p, at.Mark); err != nil {
				return nil, err
			}
		}
		ids := make([]int64, 0, len(held))
		for id := range held {
			ids = append(ids, id)
		}
		// Outside the snapshot, which may be older than what Redis held.
		orders, err := collectOrders(ctx, a.books.pool, " WHERE o.id = ANY($1)", ids)
		if err != nil {
			return nil, fmt.Errorf("reading orders: %w", err)
		}
		again = again[:0]
		known := map[int64]bool{}
		for i := range orders {
			booked := &orders[i]
			known[booked.ID] = true
			record := held[booked.ID]
			switch {
			case record.Equal(booked) && a.keys.OfUser(booked.UserID) == p:
				delete(held, booked.ID)
			case waited && round < auditRounds && len(booked.History) > len(record.History) && record.Equal(upTo(booked, len(record.History))):
				again = append(again, booked.ID)
			case waited:
				a.violated(checkROrders, a.keys.Order(p, booked.ID), "is %+v, the books say %+v", record, *booked)
			}
		}
		for id := range held {
			if waited && !known[id] {
				a.violated(checkROrders, a.keys.Order(p, id), "stands there, the books know no such order")
			}
		}
	}
	return again, nil
}

// upTo is an order as it was after some steps.
func upTo(o *engine.Order, steps int) *engine.Order {
	before := *o
	before.History = o.History[:steps]
	if steps > 0 {
		before.Status = before.History[steps-1].Status
	}
	return &before
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stampede/lua"
)

const (
	sweepEvery = 200 * time.Millisecond // between looks for holds past their deadline
	sweepMax   = 512                    // holds a look
	rollEvery  = 10 * time.Second       // between looks for minutes that left the window
	moveEvery  = time.Second            // between looks for transfers that were left open
)

// sweep ends the holds whose deadline has come and the transfers that others left open, and takes minutes that have left the
// window out of the top sellers, until ctx ends. Several processes may do so at once: the scripts do each thing once.
func (p *partition) sweep(ctx context.Context) {
	rolled, moved, before, logged := time.Time{}, time.Time{}, "", ""
	for {
		err := p.expireHolds(ctx)
		if err == nil && time.Since(moved) >= moveEvery && p.door.state.Load().open {
			moved = time.Now()
			err = p.engine.sweepTransfers(ctx, p)
		}
		if err == nil && time.Since(rolled) >= rollEvery {
			if err = p.engine.rollPartition(ctx, p); err == nil {
				rolled = time.Now()
			}
		}
		text := ""
		// A shut door says so itself, and a full queue to many.
		if err != nil && ctx.Err() == nil && !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrOverloaded) {
			text = err.Error()
		}
		// Once may be chance: an order that another process has ended in between.
		if text != "" && text == before && text != logged {
			p.engine.cfg.Log.Warn("not swept", "partition", p.number, "error", err)
			logged = text
		}
		before = text
		timer := time.NewTimer(sweepEvery)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// expireHolds ends every hold that is due now.
func (p *partition) expireHolds(ctx context.Context) error {
	for p.door.state.Load().open && ctx.Err() == nil {
		due, err := p.due(ctx)
		if err != nil || len(due) == 0 {
			return err
		}
		ended, err := p.expireOrders(ctx, due)
		if err != nil || len(due) < sweepMax || ended == 0 {
			return err
		}
	}
	return nil
}

// due returns orders whose deadline has come by the partition's clock.
func (p *partition) due(ctx context.Context) ([]int64, error) {
	e := p.engine
	reply, err := e.upkeep(ctx, lua.Due, []string{e.keys.Meta(p.number), e.keys.Holds(p.number)}, e.clockOffset.Load(), sweepMax, 0)
	if err != nil {
		return nil, err
	}
	members, _ := reply.([]any)
	ids := make([]int64, 0, len(members))
	for _, m := range members {
		text, _ := m.(string)
		id, err := readID([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("%w: a hold of partition %d: %v", ErrCorrupt, p.number, err) //nolint:errorlint // for the log
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// expireOrders expires orders and returns how many ended.
func (p *partition) expireOrders(ctx context.Context, ids []int64) (ended int, err error) {
	e := p.engine
	keys := make([]string, len(ids))
	for i, id := range ids {
		keys[i] = e.keys.Order(p.number, id)
	}
	records, err := e.get(ctx, p, keys...)
	if err != nil {
		return 0, err
	}
	var ops []*operation
	var errs []error
	for i, id := range ids {
		record, _ := records[i].(string)
		order, err := DecodeOrder(id, record)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		op := p.queue.start(expireKind, &rollbackOp{
			user: order.UserID, order: id, scope: order.UserID, reason: "not paid by its deadline",
			items: order.Items, soldAt: order.PaidAt(),
		}, len(order.Items))
		if op == nil {
			errs = append(errs, ErrOverloaded)
			break
		}
		ops = append(ops, op)
	}
	for _, op := range ops {
		err := op.wait(ctx)
		switch {
		case err == nil:
			ended++
		case !errors.Is(err, errHoldNotDue): // another process was faster
			errs = append(errs, err)
		}
	}
	e.metrics.expired.Add(float64(ended))
	return ended, errors.Join(errs...)
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Redis that was left behind by a failover keeps its door open: its epoch and its node are what they were. What it
// lacks is the lead of the books, where a later epoch has begun. So each engine looks there, one query for all
// partitions, as often as at its doors.

// keepFences looks at the books until ctx ends, and at once when a repair asks who sells. Without Postgres nothing is known, and
// the sale goes on: no other Redis can be opened meanwhile either.
func (e *Engine) keepFences(ctx context.Context) {
	tick := time.NewTicker(doorEvery)
	defer tick.Stop()
	for {
		_, _ = e.beat(ctx) // ditto
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.asked:
		}
	}
}

// fenced notes the epoch in which the books believe a partition to sell.
func (d *door) fenced(fence int64) {
	if !d.raise(fence) {
		return
	}
	for s := d.state.Load(); s.open && s.epoch < fence; s = d.state.Load() {
		if d.state.CompareAndSwap(s, &doorState{reason: fmt.Sprintf("in the books epoch %d has begun", fence)}) {
			d.doubt()
		}
	}
}

// raise notes that nothing sells in earlier epochs any more; false: that was known.
func (d *door) raise(fence int64) bool {
	for old := d.fence.Load(); fence > old; old = d.fence.Load() {
		if d.fence.CompareAndSwap(old, fence) {
			return true
		}
	}
	return false
}

// errEnded says of a call that it was carried out in an epoch that has ended by now: what became of it stands in the
// books.
var errEnded = fmt.Errorf("%w: Redis was replaced while it answered", ErrUnknown)

// errLeftBehind says that the Redis at hand is not the one that sells.
var errLeftBehind = errors.New("this Redis was left behind by a failover: let the Redis URL name the one that sells, " +
	"or restart this one where it is the one that should")

// enter opens this process's copy of the door in an epoch in which Redis stands open.
func (p *partition) enter(ctx context.Context, at Position) error {
	d, epoch := &p.door, at.Epoch
	if s := d.state.Load(); !s.open || s.epoch != epoch {
		if err := p.engine.confirmPartitions(ctx); err != nil {
			return err
		}
		// Before the first sale in an epoch this Redis must be known to be the one that sells. Later on it may be that Postgres is
		// away, and the sale goes on.
		if _, err := p.engine.beat(ctx); err != nil && d.sold.Load() != epoch {
			return unproven(err)
		}
		d.raise(epoch)
		d.retire()
		if err := d.mayEnter(epoch); err != nil {
			return err
		}
		if d.acks == nil {
			d.acks = newAcks(at, p.engine.durability(ctx, p.number))
		}
		d.sold.Store(epoch)
		d.state.Store(&doorState{open: true, epoch: epoch, acks: d.acks})
	}
	// Behind the store: either this sees a fence that came meanwhile, or who noted it sees the open door.
	if err := d.mayEnter(epoch); err != nil {
		return err
	}
	d.acks.alive()
	return nil
}

func unproven(err error) error {
	return fmt.Errorf("%w: Postgres does not confirm that this Redis is the one to sell from: %w", ErrUnavailable, err)
}

// confirmPartitions makes sure that Redis is divided as this process knows it: where it was restored with another number
// of partitions, one of them may bear the name of one that this process knows.
func (e *Engine) confirmPartitions(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	d, found, err := FindDeployment(ctx, e.redis)
	if err != nil {
		return err
	}
	if found && d.Partitions != len(e.partitions) {
		return Outgrown(d.Partitions)
	}
	return nil
}

// Outgrown is the error of a process that was started when the shop had another number of partitions.
func Outgrown(partitions int) error {
	return fmt.Errorf("restart this process: the shop has %d partition(s) now", partitions)
}

// mayEnter refuses an epoch that has ended in the books, and a copy.
func (d *door) mayEnter(epoch int64) error {
	if d.copy.Load() == epoch {
		return errCopied
	}
	if fence := d.fence.Load(); epoch < fence {
		return fmt.Errorf("%w (it stands in epoch %d, in the books epoch %d has begun)", errLeftBehind, epoch, fence)
	}
	return nil
}

// LeftBehind reports whether the Redis at hand is not the one to sell from, as far as this process knows: left behind by a
// failover, emptied, refused by a repair, or a replica. There is nothing to be written down from it.
func (e *Engine) LeftBehind(partition int) bool { return e.partitions[partition].door.left.Load() }

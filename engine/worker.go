package engine

import (
	"fmt"
	"sync/atomic"
	"time"
)

// partition is one of P: its queue, its door, its workers.
type partition struct {
	engine     *Engine
	number     int
	queue      *batcher // of what changes something
	reads      *batcher
	door       door
	minuteSkew atomic.Int64 // minutes Redis is ahead of this process
	minuteSeen atomic.Int64 // last minute a script corrected us to
	lead       atomic.Int64 // of the partition's clock over Redis' TIME when it was last looked at, in ns
	late       atomic.Int64 // operations whose deadline passed in a queue, since the start
	crowd      crowd
	pace       pace
}

// work takes batches until the queue is closed and empty. Two workers a partition let one prepare while Redis runs
// the other's call. Where processors are few there is no such while: one worker then makes larger and fewer calls.
func (p *partition) work() {
	c := &call{}
	var batch, group, rest []*operation
	for {
		batch = p.queue.take(batch[:0], p.engine.cfg.BatchMax, p.engine.cfg.BatchLinesMax)
		if len(batch) == 0 {
			return
		}
		p.crowd.note(len(batch))
		// All that waits together is concurrent, so calls by kind break no order; within a kind it is kept.
		for len(batch) > 0 {
			group, rest = group[:0], rest[:0]
			for _, op := range batch {
				if op.kind == batch[0].kind {
					group = append(group, op)
				} else {
					rest = append(rest, op)
				}
			}
			// Again for each kind: the call before may have taken long.
			if group = p.expire(group); len(group) > 0 {
				p.sendOpen(c, group[0].kind, group)
			}
			batch, rest = append(batch[:0], rest...), rest[:0]
		}
	}
}

// sendOpen sends where the door stands open, and otherwise refuses without asking Redis.
func (p *partition) sendOpen(c *call, k *kind, ops []*operation) {
	state := p.door.state.Load()
	if !state.open {
		fail(ops, fmt.Errorf("%w: %s", ErrUnavailable, state.reason))
		return
	}
	p.send(c, k, header{epoch: state.epoch, acks: state.acks}, ops)
}

// expire ends the operations whose deadline has passed; they were not sent. Those of a repair have none.
func (p *partition) expire(ops []*operation) []*operation {
	now := time.Now()
	kept := ops[:0]
	for _, op := range ops {
		if !op.deadline.IsZero() && now.After(op.deadline) {
			p.late.Add(1)
			op.done <- fmt.Errorf("%w: waited too long in the queue", ErrOverloaded)
			continue
		}
		kept = append(kept, op)
	}
	return kept
}

package engine

import (
	"context"
	"time"
)

// SendNoting is SendAt of one operation, and returns up to which event it then counts as acknowledged.
func (e *Engine) SendNoting(epoch int64, at time.Time, o *Op) (Outcome, int64) {
	was := e.clockOffset.Swap(at.UnixMilli())
	defer e.clockOffset.Store(was)
	if s, runs := still[o.op.kind]; runs {
		o.op.kind = s
	}
	p, noted := e.partitions[o.partition], newAcks(Position{Epoch: epoch}, DurabilityFsync)
	p.send(&call{}, o.op.kind, header{epoch: epoch, acks: noted}, []*operation{o.op})
	return o.outcome(), noted.seq.Load()
}

// Durability asks Redis how it keeps its data.
func (e *Engine) Durability(ctx context.Context) string { return e.durability(ctx, 0) }

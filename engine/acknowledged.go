package engine

import (
	"context"
	"sync/atomic"
	"time"
)

// Acknowledged is what an engine told its callers of an epoch that has ended.
type Acknowledged struct {
	Position          // the last event whose effect was answered
	Settled    int64  // seq up to which the durability had promised to keep everything; 0: it promised nothing
	Durability string // see the constants
	Copy       bool   // on a copy of the Redis that sells: what came after Agreed is lost
	Agreed     int64  // seq up to which the original has the same events
}

const (
	ackEvery = 100 * time.Millisecond // between samples
	acksKept = 50                     // samples: the last 5 s, longer where less happens
	// everysecWindow is what Redis may lose with appendfsync everysec: a second until it syncs, and one in which the
	// disk may keep it waiting.
	everysecWindow = 2 * time.Second
)

// acks notes what one partition acknowledged in one epoch. Workers note, the keeper of the door reads.
type acks struct {
	epoch      int64
	durability string
	agreed     atomic.Int64  // seq up to which a copy made by now has the same events
	copy       bool          // of a copy; the keeper's
	began      time.Time     // times below count from it, in ns, by a clock that nobody can set
	seq        atomic.Int64  // the highest
	at         atomic.Int64  // when Redis last answered
	sampled    atomic.Int64  // samples ever
	samples    [acksKept]ack // the latest, in a ring
}

// ack is a sample: at that time seq had been acknowledged.
type ack struct{ at, seq atomic.Int64 }

func newAcks(from Position, durability string) *acks {
	a := &acks{epoch: from.Epoch, durability: durability, began: time.Now()}
	a.agreed.Store(from.Seq)
	return a
}

// agree takes down up to which seq a copy, where there is one, has the same events.
func (a *acks) agree(seq int64) {
	for old := a.agreed.Load(); seq > old && !a.agreed.CompareAndSwap(old, seq); {
		old = a.agreed.Load()
	}
}

// note takes down the last seq that a reply named.
func (a *acks) note(seq int64) {
	for old := a.seq.Load(); seq > old && !a.seq.CompareAndSwap(old, seq); {
		old = a.seq.Load()
	}
	now := int64(time.Since(a.began))
	a.at.Store(now)
	n := a.sampled.Load()
	if n > 0 && now-a.samples[(n-1)%acksKept].at.Load() < int64(ackEvery) {
		return
	}
	if a.sampled.CompareAndSwap(n, n+1) {
		s := &a.samples[n%acksKept]
		s.seq.Store(seq)
		s.at.Store(now)
	}
}

// alive takes down that Redis answered, and had lost nothing.
func (a *acks) alive() { a.at.Store(int64(time.Since(a.began))) }

// summary says what was acknowledged, and up to where Redis should have kept it.
func (a *acks) summary() Acknowledged {
	s := Acknowledged{Position: Position{Epoch: a.epoch, Seq: a.seq.Load()}, Durability: a.durability, Copy: a.copy, Agreed: a.agreed.Load()}
	switch a.durability {
	case DurabilityFsync, DurabilityReplica:
		s.Settled = s.Seq
	case DurabilityEverySec:
		s.Settled = a.before(a.at.Load() - int64(everysecWindow))
	}
	return s
}

// before returns up to which seq was acknowledged at a time, by the last sample until then.
func (a *acks) before(at int64) (seq int64) {
	for i := range min(a.sampled.Load(), acksKept) {
		if s := &a.samples[i]; s.at.Load() <= at {
			seq = max(seq, s.seq.Load())
		}
	}
	return seq
}

// endedMax bounds the epochs that wait to be compared with the books.
const endedMax = 16

// retire hands over what was acknowledged in an epoch that is no more: the keeper compares it with the books.
func (d *door) retire() {
	if d.acks == nil || d.acks.epoch >= d.fence.Load() {
		return
	}
	if d.copy.Load() == d.acks.epoch && d.here <= d.acks.epoch {
		return // whether this Redis goes on in the next epoch is not known yet
	}
	d.end()
}

// strayed hands over what was acknowledged on a Redis that is a copy for certain: another process sells from the original.
func (d *door) strayed() {
	if d.acks != nil && d.copy.Load() == d.acks.epoch {
		d.acks.copy = true
		d.end()
	}
}

func (d *door) end() {
	if d.acks.seq.Load() > 0 && len(d.ended) < endedMax {
		d.ended = append(d.ended, d.acks)
	}
	d.acks = nil
}

// settle compares with the books what was acknowledged in epochs that have ended. What cannot be compared now is tried
// again at the next look.
func (p *partition) settle(ctx context.Context) {
	p.door.retire()
	for len(p.door.ended) > 0 {
		if ended := p.engine.cfg.Ended; ended != nil {
			bounded, cancel := context.WithTimeout(ctx, p.engine.cfg.OperationTimeout)
			err := ended(bounded, p.number, p.door.ended[0].summary())
			cancel()
			if err != nil {
				if ctx.Err() == nil {
					p.engine.cfg.Log.Warn("what was acknowledged is not compared with the books yet", "partition", p.number, "error", err)
				}
				return
			}
		}
		p.door.ended = p.door.ended[1:]
	}
}

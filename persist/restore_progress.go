package persist

import "sync/atomic"

// RestorePhase is a kind of what a restore brings into Redis.
type RestorePhase int

// The phases run side by side.
const (
	RestoredProducts RestorePhase = iota
	RestoredUsers
	RestoredCarts
	RestoredUnpaid  // orders
	RestoredEvents  // of the journal, for the idempotency records in them
	RestoredMinutes // in which units were sold
	restorePhases
)

// RestoreProgress tells how far a restore is, also while it runs. The zero value is ready for use.
type RestoreProgress struct {
	phases [restorePhases]struct{ done, total atomic.Int64 }
	keys   atomic.Int64
}

// Phase returns what was read of a phase, and how much there is; 0 where that is not known yet.
func (p *RestoreProgress) Phase(n RestorePhase) (done, total int64) {
	return p.phases[n].done.Load(), p.phases[n].total.Load()
}

// Keys counts what Redis holds by now: keys, and fields and members of those that hold many.
func (p *RestoreProgress) Keys() int64 { return p.keys.Load() }

func (p *RestoreProgress) sent(keys int64) { p.keys.Add(keys) }

func (p *RestoreProgress) read(n RestorePhase, more int64) { p.phases[n].done.Add(more) }

func (p *RestoreProgress) expect(n RestorePhase, more int64) { p.phases[n].total.Add(more) }

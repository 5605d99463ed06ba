package limit

import "time"

// Len returns how many buckets are held.
func (b *Buckets[K]) Len() int {
	n := 0
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}

// Limits of the package, for tests.
const (
	SkewMax     = skewMax
	RefusersMax = refusersMax
	DrainMax    = drainMax
	HopsMax     = hopsMax
)

// Leaving returns how many connections are being turned away.
func (l *Listener) Leaving() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.leaving)
}

// SetLeave gives those that are turned away another time to go.
func (l *Listener) SetLeave(d time.Duration) { l.leave = d }

// Addresses returns how many addresses are counted.
func (l *Listener) Addresses() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.perIP)
}

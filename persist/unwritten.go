package persist

import (
	"context"
	"sync"
	"time"
)

const (
	watchEvery = time.Second // between looks at the lag
	// LagLate is the age of the lag from which on something is wrong, or a sale is larger than the machine. A writer that
	// yields to a rush pauses for 2 s, and a lead changes hands within a few seconds.
	LagLate = 10 * time.Second
	// seenMax bounds what is remembered of a partition. Beyond it every second one is dropped.
	seenMax = 128
)

// unwritten is what this process has seen of events that wait for Postgres. It knows the age of the oldest by its own clock,
// which is never set, and also while Redis or Postgres does not answer.
type unwritten struct {
	mu         sync.Mutex
	partitions []waiting
}

// waiting is what was seen of a partition.
type waiting struct {
	written int64 // events that Postgres has; -1 until that is known
	seen    []seen
	since   time.Time // then Redis had no event that Postgres lacks now; zero: not seen yet
}

// seen is how many events Redis held at a time: they may be older.
type seen struct {
	events int64
	at     time.Time
}

func newUnwritten(partitions int) *unwritten {
	u := &unwritten{partitions: make([]waiting, partitions)}
	for p := range u.partitions {
		u.partitions[p].written = -1
	}
	return u
}

// holds notes how many events a partition of Redis has.
func (u *unwritten) holds(partition int, events int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w, now := &u.partitions[partition], time.Now()
	for i := range w.seen {
		if w.seen[i].events > events { // a Redis that lost some: what it still has has waited as long
			w.seen[i].events = events
			w.seen = w.seen[:i+1]
			break
		}
	}
	n := len(w.seen)
	if events <= w.written {
		w.since = now
	}
	if events <= w.written || n > 0 && (w.seen[n-1].events == events || now.Sub(w.seen[n-1].at) < watchEvery/2) {
		return
	}
	if n == seenMax {
		for i := range n / 2 {
			w.seen[i] = w.seen[2*i]
		}
		w.seen = w.seen[:n/2]
	}
	w.seen = append(w.seen, seen{events, now})
}

// wrote notes how many events Postgres has of a partition.
func (u *unwritten) wrote(partition int, events int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w := &u.partitions[partition]
	w.written = events
	passed := 0
	for passed < len(w.seen) && w.seen[passed].events <= events {
		w.since = w.seen[passed].at
		passed++
	}
	w.seen = append(w.seen[:0], w.seen[passed:]...)
}

// age is how long the oldest event has waited at least; 0 if none is known to wait.
func (u *unwritten) age() (oldest time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for p := range u.partitions {
		if seen := u.partitions[p].seen; len(seen) > 0 {
			oldest = max(oldest, time.Since(seen[0].at))
		}
	}
	return oldest
}

// atMost limits the age of a partition's oldest event: it is no older than what this process has seen leaves room for.
func (u *unwritten) atMost(partition int, age time.Duration) time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	if since := u.partitions[partition].since; !since.IsZero() {
		return min(age, time.Since(since))
	}
	return age
}

// LagAge is the age of the oldest event that Postgres lacks, as far as this process has seen. It asks no server.
func (b *Books) LagAge() time.Duration { return b.unwritten.age() }

// WatchLag looks until ctx ends how long events wait, so that it is known when nothing can be measured, and logs when they
// wait for too long.
func (b *Books) WatchLag(ctx context.Context) {
	for late := false; ctx.Err() == nil; pause(ctx, watchEvery) {
		err := b.observe(ctx)
		switch age := b.LagAge(); {
		case ctx.Err() != nil:
		case age >= LagLate && !late:
			late = true
			b.log.Warn("Postgres is late: see GET /readyz", "lag_seconds", age.Seconds(), "error", err)
		case age < LagLate && late:
			late = false
			b.log.Info("Postgres is not late any more", "lag_seconds", age.Seconds())
		}
	}
}

// observe asks Redis and Postgres side by side what they hold, so that what one has is known while the other hangs. The error is
// that of Postgres.
func (b *Books) observe(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, lagMax)
	defer cancel()
	var asked sync.WaitGroup
	asked.Go(func() {
		_ = b.engine.Each(func(p int) error { // of a cluster, some may answer
			v, err := b.engine.Look(ctx, p)
			if err == nil {
				b.unwritten.holds(p, v.Events())
			}
			return err
		})
	})
	asked.Go(func() {
		var written []checkpoint
		written, err = b.checkpoints(ctx)
		for p := range written {
			b.unwritten.wrote(p, written[p].events)
		}
	})
	asked.Wait()
	return err
}

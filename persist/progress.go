package persist

import (
	"context"
	"fmt"
	"sync"
	"time"

	"stampede/engine"
)

const (
	progressWait    = 2 * time.Second // for the writer to pass what Redis held when a reader came
	progressPause   = 2 * time.Millisecond
	progressPauseMx = 50 * time.Millisecond
)

// progress tells readers of the tables when these hold everything that was answered before the readers came. However
// many wait, one read of each kind is on its way, and no connection is held while waiting. Progress is counted in
// events of all epochs: an epoch that has none yet has no position that a checkpoint could reach.
type progress struct {
	books       *Books
	doors       []fresh[int64]
	checkpoints fresh[[]int64]
}

func newProgress(b *Books) *progress {
	p := &progress{books: b, doors: make([]fresh[int64], b.engine.Keys().Partitions())}
	for n := range p.doors {
		p.doors[n].read = func(ctx context.Context) (int64, error) {
			v, err := b.engine.Look(ctx, n)
			return v.Events(), err
		}
	}
	p.checkpoints.read = p.readCheckpoints
	return p
}

func (p *progress) readCheckpoints(ctx context.Context) (events []int64, err error) {
	err = p.books.pool.QueryRow(ctx, "SELECT array_agg(events ORDER BY partition) FROM checkpoints").Scan(&events)
	if err == nil && len(events) != len(p.doors) {
		err = fmt.Errorf("%d checkpoints of %d partitions", len(events), len(p.doors))
	}
	if err != nil {
		return nil, unavailable("reading the checkpoints", err)
	}
	return events, nil
}

// await returns once the tables hold every event of a partition that Redis held when it was called.
func (p *progress) await(ctx context.Context, partition int) error {
	ctx, cancel := context.WithTimeout(ctx, progressWait)
	defer cancel()
	until, err := p.doors[partition].get(ctx)
	if err != nil {
		return err
	}
	for wait := progressPause; ; wait = min(2*wait, progressPauseMx) {
		events, err := p.checkpoints.get(ctx)
		if err == nil && events[partition] >= until {
			return nil
		}
		if ctx.Err() == nil {
			if err != nil {
				return err
			}
			pause(ctx, wait)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: the writer is behind: what was answered just now is not in Postgres yet", engine.ErrOverloaded)
		}
	}
}

// fresh lets callers share a read that began after each of them came.
type fresh[T any] struct {
	read func(ctx context.Context) (T, error)

	mu   sync.Mutex
	next *flight[T] // waits for the one that is on its way
	busy bool
}

type flight[T any] struct {
	done  chan struct{}
	value T
	err   error
}

func (f *fresh[T]) get(ctx context.Context) (value T, err error) {
	f.mu.Lock()
	if f.next == nil {
		f.next = &flight[T]{done: make(chan struct{})}
	}
	mine := f.next
	if !f.busy {
		f.busy = true
		go f.fly()
	}
	f.mu.Unlock()
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		return value, unavailable("waiting for a read", ctx.Err())
	}
}

// fly reads as long as callers wait. It has a context of its own: no caller's end may fail the others.
func (f *fresh[T]) fly() {
	for {
		f.mu.Lock()
		now := f.next
		f.next = nil
		if now == nil {
			f.busy = false
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), progressWait)
		now.value, now.err = f.read(ctx)
		cancel()
		close(now.done)
	}
}

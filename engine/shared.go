package engine

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Shared lets callers that wait together share one run of something that began after each of them arrived.
type Shared[T any] struct {
	// Pause lies between two runs, so that callers who always ask again do not keep busy what the runs need.
	Pause time.Duration

	mu      sync.Mutex
	next    *sharedRun[T]
	running bool
	ended   time.Time // the last run
}

type sharedRun[T any] struct {
	done  chan struct{}
	value T
	err   error
}

// Do returns the value of a run that began after the call. run gets a context of its own, bounded by timeout: it
// outlives its callers, and no caller's end may fail the others. All callers give the same run.
func (s *Shared[T]) Do(ctx context.Context, timeout time.Duration, run func(context.Context) (T, error)) (T, error) {
	s.mu.Lock()
	mine := s.next
	if mine == nil {
		mine = &sharedRun[T]{done: make(chan struct{})}
		s.next = mine
	}
	if !s.running {
		s.running = true
		go s.work(timeout, run)
	}
	s.mu.Unlock()
	select {
	case <-mine.done:
		return mine.value, mine.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%w: the read took too long", ErrUnavailable)
	}
}

// work runs while someone waits.
func (s *Shared[T]) work(timeout time.Duration, run func(context.Context) (T, error)) {
	for {
		time.Sleep(time.Until(s.ended.Add(s.Pause)))
		s.mu.Lock()
		r := s.next
		s.next = nil
		if r == nil {
			s.running = false
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		r.value, r.err = run(ctx)
		cancel()
		s.ended = time.Now()
		close(r.done)
	}
}

package engine

import (
	"context"
	"sync"
	"time"
)

// operation is one request on its way through a partition's queue. It owns all its data: the caller may leave.
type operation struct {
	kind     *kind
	body     any // the kind's own struct, holds the reply too
	weight   int // lines, for the cap on a batch
	deadline time.Time
	done     chan error // receives once
}

// batcher is the bounded queue of a partition: group commit for Lua calls. Workers take what waits; nobody lingers.
type batcher struct {
	mu      sync.Mutex
	ready   sync.Cond
	queue   []*operation
	head    int
	max     int
	closed  bool
	full    int64 // operations refused since the start, for lack of room
	timeout time.Duration
}

func newBatcher(queueMax int, timeout time.Duration) *batcher {
	b := &batcher{max: queueMax, timeout: timeout}
	b.ready.L = &b.mu
	return b
}

// do queues an operation and waits for its end. A full queue refuses at once. When ctx ends first the operation goes
// on without the caller, and the outcome is unknown to it.
func (b *batcher) do(ctx context.Context, k *kind, body any, weight int) error {
	op := b.start(k, body, weight)
	if op == nil {
		return ErrOverloaded
	}
	return op.wait(ctx)
}

// start queues an operation; nil: the queue is full.
func (b *batcher) start(k *kind, body any, weight int) *operation {
	op := &operation{
		kind: k, body: body, weight: weight,
		deadline: time.Now().Add(b.timeout),
		done:     make(chan error, 1),
	}
	if !b.push(op) {
		return nil
	}
	return op
}

// wait returns how the operation ended.
func (op *operation) wait(ctx context.Context) error {
	select {
	case err := <-op.done:
		return err
	case <-ctx.Done():
		return ErrUnknown
	}
}

func (b *batcher) push(op *operation) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return false
	}
	if len(b.queue)-b.head >= b.max {
		b.full++
		return false
	}
	b.queue = append(b.queue, op)
	b.ready.Signal()
	return true
}

// take appends to batch what waits, in order, up to count operations and about weight lines (at least one
// operation). It blocks while nothing waits and returns nothing once the batcher is closed and empty.
func (b *batcher) take(batch []*operation, count, weight int) []*operation {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.head == len(b.queue) && !b.closed {
		b.ready.Wait()
	}
	for b.head < len(b.queue) && len(batch) < count {
		op := b.queue[b.head]
		weight -= op.weight
		if weight < 0 && len(batch) > 0 {
			break
		}
		batch = append(batch, op)
		b.queue[b.head] = nil
		b.head++
	}
	if b.head == len(b.queue) {
		b.queue, b.head = b.queue[:0], 0
	} else if b.head >= 1024 && b.head*2 >= len(b.queue) {
		n := copy(b.queue, b.queue[b.head:])
		clear(b.queue[n:])
		b.queue, b.head = b.queue[:n], 0
	}
	if b.head < len(b.queue) {
		b.ready.Signal() // more than one batch waits: the other worker too
	}
	return batch
}

// depth returns how many operations wait.
func (b *batcher) depth() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.queue) - b.head
}

// refused returns how many operations found the queue full.
func (b *batcher) refused() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.full
}

// close refuses new operations; what waits is still taken.
func (b *batcher) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.ready.Broadcast()
}

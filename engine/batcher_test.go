package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

func operations(weights ...int) []*operation {
	ops := make([]*operation, len(weights))
	for i, w := range weights {
		ops[i] = &operation{weight: w, done: make(chan error, 1)}
	}
	return ops
}

func pushAll(t *testing.T, b *batcher, ops []*operation) {
	t.Helper()
	for i, op := range ops {
		if !b.push(op) {
			t.Fatalf("operation %d was refused", i)
		}
	}
}

func TestBatcher_GivesInOrderUpToTheCaps(t *testing.T) {
	for _, c := range []struct {
		name          string
		weights       []int
		count, weight int
		batches       []int // their lengths
	}{
		{"all that waits", []int{1, 1, 1}, 256, 1024, []int{3}},
		{"so many operations", []int{1, 1, 1, 1, 1}, 2, 1024, []int{2, 2, 1}},
		{"so many lines", []int{3, 3, 4, 1}, 256, 10, []int{3, 1}},
		{"one that is too heavy comes alone", []int{100, 1, 1, 100}, 256, 10, []int{1, 2, 1}},
		{"a heavy one is not passed by a light one", []int{1, 10, 1}, 256, 10, []int{1, 1, 1}},
	} {
		b := newBatcher(100, time.Second)
		ops := operations(c.weights...)
		pushAll(t, b, ops)
		var all []*operation
		var lengths []int
		for b.depth() > 0 {
			batch := b.take(nil, c.count, c.weight)
			lengths = append(lengths, len(batch))
			all = append(all, batch...)
		}
		if !slices.Equal(lengths, c.batches) || !slices.Equal(all, ops) {
			t.Errorf("%s: batches of %v, want %v; in order: %t", c.name, lengths, c.batches, slices.Equal(all, ops))
		}
	}
}

func TestBatcher_KeepsOrderWhileItsQueueIsReused(t *testing.T) {
	b := newBatcher(1<<20, time.Second)
	ops := operations(slices.Repeat([]int{1}, 10_000)...)
	var got []*operation
	for part := range slices.Chunk(ops, 700) {
		pushAll(t, b, part)
		got = b.take(got, len(got)+500, 1<<20) // leaves ever more behind
	}
	for b.depth() > 0 {
		got = b.take(got, len(got)+500, 1<<20)
	}
	if !slices.Equal(got, ops) {
		t.Error("operations were lost, doubled or reordered")
	}
	if b.head != 0 || len(b.queue) != 0 {
		t.Errorf("empty, but head %d and length %d", b.head, len(b.queue))
	}
}

func TestBatcher_FullRefusesAtOnceAndTakesAgainWhenThereIsRoom(t *testing.T) {
	b := newBatcher(3, time.Second)
	pushAll(t, b, operations(1, 1, 1))
	// Not at once would be never: nobody takes anything.
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := b.do(ctx, nil, nil, 1); !errors.Is(err, ErrOverloaded) {
		t.Errorf("a full queue: %v", err)
	}
	b.take(nil, 1, 100)
	pushAll(t, b, operations(1))
	if b.push(operations(1)[0]) {
		t.Error("took a fourth operation")
	}
}

func TestBatcher_ClosedRefusesAndGivesOutWhatWaits(t *testing.T) {
	b := newBatcher(100, time.Second)
	ops := operations(1, 1, 1)
	pushAll(t, b, ops)
	b.close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := b.do(ctx, nil, nil, 1); !errors.Is(err, ErrOverloaded) {
		t.Errorf("a closed queue: %v", err)
	}
	if got := b.take(nil, 2, 100); !slices.Equal(got, ops[:2]) {
		t.Errorf("%d operations, want the first two", len(got))
	}
	if got := b.take(nil, 2, 100); !slices.Equal(got, ops[2:]) {
		t.Errorf("%d operations, want the last", len(got))
	}
	if got := b.take(nil, 2, 100); len(got) != 0 {
		t.Errorf("%d operations of an empty closed queue", len(got))
	}
}

func TestBatcher_ClosingWakesEveryWorkerThatWaits(t *testing.T) {
	b := newBatcher(100, time.Second)
	var workers sync.WaitGroup
	for range 4 {
		workers.Go(func() {
			if got := b.take(nil, 10, 10); len(got) != 0 {
				t.Errorf("%d operations", len(got))
			}
		})
	}
	b.close()
	workers.Wait()
}

func TestBatcher_ManyCallersAndWorkersLoseNothing(t *testing.T) {
	b := newBatcher(1<<20, time.Second)
	var callers, workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for {
				batch := b.take(nil, 16, 64)
				if len(batch) == 0 {
					return
				}
				fail(batch, errTaken)
			}
		})
	}
	for range 50 {
		callers.Go(func() {
			for i := range 100 {
				if err := b.do(context.Background(), nil, nil, 1+i%5); !errors.Is(err, errTaken) {
					t.Errorf("%v", err)
				}
			}
		})
	}
	callers.Wait()
	b.close()
	workers.Wait()
	if n := b.depth(); n != 0 {
		t.Errorf("%d operations left", n)
	}
}

var errTaken = errors.New("taken")

func TestBatcher_CallerThatLeavesDoesNotTakeItsOperationAlong(t *testing.T) {
	b := newBatcher(10, time.Second)
	ctx, leave := context.WithCancel(context.Background())
	leave()
	if err := b.do(ctx, nil, nil, 1); !errors.Is(err, ErrUnknown) {
		t.Errorf("a caller that left: %v", err)
	}
	batch := b.take(nil, 10, 10)
	if len(batch) != 1 {
		t.Fatalf("%d operations, want the one whose caller left", len(batch))
	}
	batch[0].done <- nil // nobody listens, and nobody waits for that
}

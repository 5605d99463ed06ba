package persist

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

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
	doors       []engine.Shared[int64]
	checkpoints engine.Shared[[]checkpoint]
	epochs      []engine.Shared[map[int64]int64] // by partition: ends of epochs, see durable.go
	hurried     []hurry
	written     []written // what a writer of this process has committed last
}

func newProgress(b *Books) *progress {
	n := b.engine.Keys().Partitions()
	p := &progress{
		books: b, doors: make([]engine.Shared[int64], n), epochs: make([]engine.Shared[map[int64]int64], n), hurried: make([]hurry, n),
		written: make([]written, n),
	}
	for i := range p.hurried {
		p.hurried[i].come = make(chan struct{}, 1)
	}
	return p
}

// held returns how many events a partition of Redis has.
func (p *progress) held(ctx context.Context, partition int) (int64, error) {
	return p.doors[partition].Do(ctx, progressWait, func(ctx context.Context) (int64, error) {
		v, err := p.books.engine.Look(ctx, partition)
		return v.Events(), err
	})
}

// await returns once the tables hold every event of a partition that Redis held when it was called.
func (p *progress) await(ctx context.Context, partition int) error {
	return p.awaitEach(ctx, partition)
}

// awaitAll is await for all partitions.
func (p *progress) awaitAll(ctx context.Context) error {
	all := make([]int, len(p.doors))
	for i := range all {
		all[i] = i
	}
	return p.awaitEach(ctx, all...)
}

func (p *progress) awaitEach(ctx context.Context, partitions ...int) error {
	ctx, cancel := context.WithTimeout(ctx, progressWait)
	defer cancel()
	until := make([]int64, len(partitions))
	looks, looking := errgroup.WithContext(ctx)
	for i, partition := range partitions {
		looks.Go(func() (err error) {
			until[i], err = p.held(looking, partition)
			return err
		})
	}
	if err := looks.Wait(); err != nil {
		return err
	}
	for wait := progressPause; ; wait = min(2*wait, progressPauseMx) {
		found, err := p.checkpoints.Do(ctx, progressWait, p.books.checkpoints)
		if err == nil && reached(found, partitions, until) {
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

// reached tells whether each of some partitions has as many events as it should.
func reached(found []checkpoint, partitions []int, until []int64) bool {
	for i, partition := range partitions {
		if found[partition].events < until[i] {
			return false
		}
	}
	return true
}

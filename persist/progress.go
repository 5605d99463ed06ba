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
	checkpoints engine.Shared[[]int64]
}

func newProgress(b *Books) *progress {
	return &progress{books: b, doors: make([]engine.Shared[int64], b.engine.Keys().Partitions())}
}

// held returns how many events a partition of Redis has.
func (p *progress) held(ctx context.Context, partition int) (int64, error) {
	return p.doors[partition].Do(ctx, progressWait, func(ctx context.Context) (int64, error) {
		v, err := p.books.engine.Look(ctx, partition)
		return v.Events(), err
	})
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
		events, err := p.checkpoints.Do(ctx, progressWait, p.readCheckpoints)
		if err == nil && reached(events, partitions, until) {
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
func reached(events []int64, partitions []int, until []int64) bool {
	for i, partition := range partitions {
		if events[partition] < until[i] {
			return false
		}
	}
	return true
}

package persist

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"stampede/engine"
)

// Durable returns once the books hold an event of a partition: from then on no failure of Redis takes it back. The error is
// engine.ErrLost where the epoch ended before the event, so that they never will, and engine.ErrOverloaded where the writer
// is behind for longer than progressWait. However many wait, one read of each kind is on its way.
func (b *Books) Durable(ctx context.Context, partition int, at engine.Position) error {
	return b.progress.durable(ctx, partition, at)
}

func (p *progress) durable(ctx context.Context, partition int, at engine.Position) error {
	ctx, cancel := context.WithTimeout(ctx, progressWait)
	defer cancel()
	h := &p.hurried[partition]
	h.enter()
	defer h.leave()
	for wait := progressPause; ; wait = min(2*wait, progressPauseMx) {
		reached, more := p.written[partition].seen()
		if reached.Epoch == at.Epoch && reached.Seq >= at.Seq {
			return nil
		}
		done, err := p.holds(ctx, partition, at)
		if done || err != nil && ctx.Err() == nil {
			return err
		}
		if await(ctx, wait, more); ctx.Err() != nil {
			return fmt.Errorf("%w: the writer is behind: event %v of partition %d is not in Postgres yet", engine.ErrOverloaded, at, partition)
		}
	}
}

// written is up to where the writer of this process has committed events, where it leads: who waits need not ask Postgres.
type written struct {
	mu   sync.Mutex
	at   engine.Position
	more chan struct{} // closed by the next commit; nil while nobody waits
}

// note takes a commit.
func (w *written) note(at engine.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at = at
	if w.more != nil {
		close(w.more)
		w.more = nil
	}
}

// seen returns what was committed last, and what tells of the next commit.
func (w *written) seen() (engine.Position, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.more == nil {
		w.more = make(chan struct{})
	}
	return w.at, w.more
}

// await waits for a commit, but no longer than d: another process may be the writer.
func await(ctx context.Context, d time.Duration, more <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-more:
	}
}

// holds tells whether the books hold an event, or the error for which they never will. The end of its epoch alone says
// that it was in Redis when the next began, not that the writer has come so far. Of an epoch that has no event yet the
// position is the end of all epochs before it, so what counts is the number of events.
func (p *progress) holds(ctx context.Context, partition int, at engine.Position) (bool, error) {
	found, err := p.checkpoints.Do(ctx, progressWait, p.books.checkpoints)
	if err != nil {
		return false, err
	}
	c := found[partition]
	if c.Epoch == at.Epoch && (c.Seq >= at.Seq || c.fence == at.Epoch) {
		return c.Seq >= at.Seq, nil
	}
	ends, err := p.epochs[partition].Do(ctx, progressWait, func(ctx context.Context) (map[int64]int64, error) {
		return p.readEnds(ctx, partition)
	})
	if err != nil {
		return false, err
	}
	if end, ended := ends[at.Epoch]; ended && end < at.Seq {
		return false, fmt.Errorf("%w: event %v of partition %d, whose epoch ended at seq %d", engine.ErrLost, at, partition, end)
	}
	events := at.Seq
	for epoch, end := range ends {
		if epoch < at.Epoch {
			events += end
		}
	}
	return c.events >= events, nil
}

// readEnds reads where the epochs of a partition ended.
func (p *progress) readEnds(ctx context.Context, partition int) (map[int64]int64, error) {
	var epochs, ends []int64
	err := p.books.pool.QueryRow(ctx, `SELECT array_agg(epoch), array_agg(last_seq) FROM epochs
		WHERE partition = $1 AND last_seq IS NOT NULL`, partition).Scan(&epochs, &ends)
	if err != nil {
		return nil, unavailable("reading epochs", err)
	}
	of := make(map[int64]int64, len(epochs))
	for i, epoch := range epochs {
		of[epoch] = ends[i]
	}
	return of, nil
}

// hurry tells a writer that yields to a rush that somebody waits for what it has not written: see yield.go.
type hurry struct {
	waiting atomic.Int32
	come    chan struct{} // one came
}

func (h *hurry) enter() {
	h.waiting.Add(1)
	select {
	case h.come <- struct{}{}:
	default:
	}
}

func (h *hurry) leave() { h.waiting.Add(-1) }

// rest pauses, until somebody waits.
func (h *hurry) rest(ctx context.Context, d time.Duration) (hurried bool) {
	if h.waiting.Load() > 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-h.come:
	}
	return h.waiting.Load() > 0
}

package persist

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// Lag is what Redis holds and Postgres does not, over all partitions.
type Lag struct {
	Events int64
	// Age is how long the oldest of them has waited: by the clock of its partition, which stamped it, or as this process has seen it
	// wait, whichever is longer. A clock that was set, or an event that cannot be read, so hides nothing.
	Age time.Duration
	// Backlog is the share of the backlog's cap that is used, in the partition that is closest to it: from 1 on, that
	// partition refuses what would add to it.
	Backlog float64
	// Quarantined counts the events of which nothing could be derived.
	Quarantined int64
}

// lagMax bounds a measurement.
const lagMax = time.Second

// Lag is measured now: no events mean that every change answered before the call is in the tables. Callers that wait
// together share a measurement that began after each of them came.
func (b *Books) Lag(ctx context.Context) (Lag, error) { return b.lag.Do(ctx, lagMax, b.measureLag) }

func (b *Books) measureLag(ctx context.Context) (lag Lag, err error) {
	views := make([]engine.DoorView, b.engine.Keys().Partitions())
	err = b.engine.Each(func(p int) (err error) {
		views[p], err = b.engine.Look(ctx, p)
		return err
	})
	if err != nil {
		return Lag{}, err
	}
	for p := range views {
		b.unwritten.holds(p, views[p].Events())
	}
	// Read later, so that they may have passed what Redis said.
	written, err := b.checkpoints(ctx)
	if err != nil {
		return Lag{}, err
	}
	for p := range views {
		b.unwritten.wrote(p, written[p].events)
		lag.Events += max(0, views[p].Events()-written[p].events)
		lag.Backlog = max(lag.Backlog, b.engine.Backlog(&views[p]))
	}
	lag.Age = max(b.oldest(ctx, views, written), b.unwritten.age())
	if err := b.pool.QueryRow(ctx, "SELECT count(*) FROM quarantine").Scan(&lag.Quarantined); err != nil {
		return Lag{}, unavailable("reading the quarantine", err)
	}
	return lag, nil
}

// oldest returns the age of the oldest event that is not written, by the clock of its partition, as far as it can be read. A clock
// that was set ahead since makes no event older than this process knows it to be.
func (b *Books) oldest(ctx context.Context, views []engine.DoorView, written []checkpoint) (oldest time.Duration) {
	var mu sync.Mutex
	_ = b.engine.Each(func(p int) error {
		if views[p].Events() <= written[p].events {
			return nil
		}
		age, _, err := b.engine.Waiting(ctx, p, written[p].Position)
		mu.Lock()
		defer mu.Unlock()
		oldest = max(oldest, b.unwritten.atMost(p, age))
		return err
	})
	return oldest
}

// checkpoints returns those of all partitions.
func (b *Books) checkpoints(ctx context.Context) ([]checkpoint, error) {
	rows, _ := b.pool.Query(ctx, "SELECT epoch, seq, events, bytes, fence FROM checkpoints WHERE partition < $1 ORDER BY partition",
		b.engine.Keys().Partitions()) // CollectRows tells the error
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c checkpoint, err error) {
		err = row.Scan(&c.Epoch, &c.Seq, &c.events, &c.bytes, &c.fence)
		return c, err
	})
	if partitions := b.engine.Keys().Partitions(); err == nil && len(all) != partitions {
		err = fmt.Errorf("%d checkpoints of %d partitions", len(all), partitions)
	}
	if err != nil {
		return nil, unavailable("reading the checkpoints", err)
	}
	return all, nil
}

package persist

import (
	"context"
	"sort"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// clockSlack is how far the times of a partition's events may run back. By the partition's clock they never do; those that
// the release before wrote may, within a minute, and further after a failover.
const clockSlack = time.Hour

// tail returns a position in a partition's journal before all events of a time or later, and how many follow it up to
// another position. It looks for two neighbours of which one was early and the next was not, by the clock less its slack:
// no later event runs back further than that.
func (b *Books) tail(ctx context.Context, partition int, upTo engine.Position, since time.Time) (from engine.Position, events int64, err error) {
	since = since.Add(-clockSlack)
	early := func(after engine.Position) (engine.Position, bool) {
		if err != nil || after.Compare(upTo) >= 0 {
			return after, false
		}
		var entries []engine.Entry
		if entries, err = journal(ctx, b.pool, partition, after, 1); err != nil || len(entries) == 0 {
			return after, false
		}
		var first []engine.Event
		if first, err = entries[0].Events(); err != nil {
			err = refused("partition %d: %v", partition, err)
			return after, false
		}
		return entries[0].Last, first[0].At.Before(since)
	}
	epochs, err := b.epochEnds(ctx, partition, upTo)
	if err != nil {
		return from, 0, err
	}
	n := sort.Search(len(epochs), func(i int) bool {
		_, is := early(engine.Position{Epoch: epochs[i].Epoch})
		return !is
	})
	for _, e := range epochs[n:] {
		events += e.Seq
	}
	if err != nil || n == 0 {
		return from, events, err
	}
	from = epochs[n-1]
	low, high := int64(0), from.Seq
	for low < high && err == nil {
		middle := low + (high-low)/2
		if last, is := early(engine.Position{Epoch: from.Epoch, Seq: middle}); is && last.Epoch == from.Epoch {
			low = last.Seq
		} else {
			high = middle
		}
	}
	events += from.Seq - low
	from.Seq = low
	return from, events, err
}

// epochEnds are the ends of the epochs that have events, up to a position.
func (b *Books) epochEnds(ctx context.Context, partition int, upTo engine.Position) ([]engine.Position, error) {
	rows, err := b.pool.Query(ctx, `SELECT epoch, last_seq FROM epochs WHERE partition = $1 AND epoch < $2 AND last_seq > 0
		ORDER BY epoch`, partition, upTo.Epoch)
	if err != nil {
		return nil, unavailable("reading epochs", err)
	}
	ends, err := pgx.CollectRows(rows, pgx.RowToStructByPos[engine.Position])
	if err != nil {
		return nil, unavailable("reading epochs", err)
	}
	if upTo.Seq > 0 {
		ends = append(ends, upTo)
	}
	return ends, nil
}

// lastEvent returns the position of a partition's last event up to another position; the zero one where it has none.
func (b *Books) lastEvent(ctx context.Context, partition int, upTo engine.Position) (engine.Position, error) {
	ends, err := b.epochEnds(ctx, partition, upTo)
	if err != nil || len(ends) == 0 {
		return engine.Position{}, err
	}
	return ends[len(ends)-1], nil
}

package persist

import (
	"context"

	"golang.org/x/sync/errgroup"

	"stampede/engine"
)

const (
	recordsRead  = 64 // journal entries a read
	recordsAhead = 4  // reads that wait to be loaded
)

// records loads the idempotency records that still live, out of the end of a partition's journal: each to where its user or
// product is now.
func (r *restore) records(ctx context.Context, partition int) error {
	since := r.books.engine.RememberedSince()
	to, err := r.books.lastEvent(ctx, partition, r.endOf(partition))
	if err != nil || to.Seq == 0 {
		return err
	}
	from, events, err := r.books.tail(ctx, partition, to, since)
	if err != nil {
		return err
	}
	r.watch.expect(RestoredEvents, events)
	group, ctx := errgroup.WithContext(ctx)
	read := make(chan []engine.Entry, recordsAhead)
	group.Go(func() error {
		defer close(read)
		return r.journal(ctx, partition, from, to, read)
	})
	group.Go(func() error {
		loads := map[int]*engine.Load{}
		for entries := range read {
			for i := range entries {
				events, err := entries[i].Events()
				if err != nil {
					return refused("partition %d: %v", partition, err)
				}
				earlier := entries[i].Last.Epoch < r.layouts.now().first
				for j := range events {
					r.latest[partition].note(events[j].At, earlier)
					if l := r.loadOf(loads, r.books.engine.Keys().OfEvent(&events[j])); l != nil {
						r.books.engine.Record(l, &events[j], since, earlier)
					}
				}
				r.watch.read(RestoredEvents, int64(len(events)))
				if err := r.putFull(ctx, loads); err != nil {
					return err
				}
			}
		}
		return r.putAll(ctx, loads)
	})
	return group.Wait()
}

// loadOf returns the load of a partition among some, nil where it is not restored here.
func (r *restore) loadOf(loads map[int]*engine.Load, partition int) *engine.Load {
	if r.mine[partition] == nil {
		return nil
	}
	if loads[partition] == nil {
		loads[partition] = r.books.engine.NewLoad(partition)
	}
	return loads[partition]
}

// putFull hands on those of some loads that are full.
func (r *restore) putFull(ctx context.Context, loads map[int]*engine.Load) (err error) {
	for n, l := range loads {
		if l.Full() {
			if loads[n], err = r.put(ctx, l); err != nil {
				return err
			}
		}
	}
	return nil
}

// putAll hands on some loads.
func (r *restore) putAll(ctx context.Context, loads map[int]*engine.Load) error {
	for _, l := range loads {
		if _, err := r.put(ctx, l); err != nil {
			return err
		}
	}
	return nil
}

// journal reads a partition's entries behind a position up to another.
func (r *restore) journal(ctx context.Context, partition int, after, upTo engine.Position, to chan<- []engine.Entry) error {
	for after.Compare(upTo) < 0 {
		entries, err := journal(ctx, r.books.pool, partition, after, recordsRead)
		if err != nil {
			return unavailable("restoring from the journal", err)
		}
		for len(entries) > 0 && entries[len(entries)-1].Last.Compare(upTo) > 0 {
			entries = entries[:len(entries)-1] // of a partition that sells already
		}
		if len(entries) == 0 {
			return refused("the journal of partition %d ends at %v, before %v: rows were deleted", partition, after, upTo)
		}
		after = entries[len(entries)-1].Last
		select {
		case to <- entries:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

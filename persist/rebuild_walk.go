package persist

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"stampede/engine"
)

// starter begins a transaction, or a savepoint within one.
type starter interface {
	Begin(ctx context.Context) (pgx.Tx, error)
}

// piece is a run of a partition's journal, to be inserted.
type piece struct {
	partition int
	run       *run
}

// walk derives the journal behind what was walked, up to its end. While one piece is inserted the next is read.
func (r *rebuild) walk(ctx context.Context, in starter) error {
	group, reading := errgroup.WithContext(ctx)
	pieces := make(chan piece)
	group.Go(func() error {
		defer close(pieces)
		return r.read(reading, pieces)
	})
	group.Go(func() error {
		for p := range pieces {
			// Not the group's context: to end a transaction in order the connection must live.
			if err := r.insert(ctx, in, p); err != nil {
				return err
			}
			r.done.Events += p.run.size()
			r.progress(RebuildDerives, r.done.Events, max(r.total, r.done.Events))
		}
		return nil
	})
	return group.Wait()
}

// read takes layout by layout: from one to the next an order may have moved to any other partition.
func (r *rebuild) read(ctx context.Context, to chan<- piece) error {
	layouts, err := readLayouts(ctx, r.books.pool)
	if err != nil {
		return err
	}
	for _, until := range layouts.ends() {
		if err := r.readUntil(ctx, until, to); err != nil {
			return err
		}
	}
	return nil
}

// readUntil takes a piece of each partition in turn, until none has more before an epoch: on a busy shop all are then close
// to their ends.
func (r *rebuild) readUntil(ctx context.Context, until int64, to chan<- piece) error {
	for more := true; more; {
		more = false
		for p := range r.walked {
			entries, full, err := r.readPiece(ctx, p, until)
			if err != nil {
				return err
			}
			more = more || full
			for len(entries) > 0 {
				n := cut(entries)
				derived, err := newRun(entries[:n], nil)
				if err != nil {
					return err
				}
				entries = entries[n:]
				select {
				case to <- piece{p, derived}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
	}
	return nil
}

// readPiece reads about as many events of a partition as a writer takes, and reports whether there may be more.
func (r *rebuild) readPiece(ctx context.Context, p int, until int64) (entries []engine.Entry, full bool, err error) {
	at := &r.walked[p]
	for start := at.events; at.events-start < writerEventsMax; {
		page, err := journal(ctx, r.books.pool, p, at.Position, writerEntries)
		if err != nil {
			return nil, false, err
		}
		some := before(page, until)
		for i := range some {
			e := &some[i]
			if e.First != at.Seq+1 && (e.Last.Epoch == at.Epoch || e.First != 1) {
				return nil, false, refused("the journal of partition %d lacks events between %v and seq %d of epoch %d: rows of the table events "+
					"were deleted; nothing was changed, bring them back from a backup first", p, at.Position, e.First, e.Last.Epoch)
			}
			*at = at.behind(some[i : i+1])
		}
		entries = append(entries, some...)
		if len(some) < writerEntries {
			return entries, false, nil
		}
	}
	return entries, true, nil
}

// insert writes a piece into the shadows; what they refuse goes into quarantine.
func (r *rebuild) insert(ctx context.Context, in starter, p piece) error {
	insert := func(tx pgx.Tx, derived *rows) error {
		if err := derived.openAccounts(ctx, tx); err != nil {
			return err
		}
		return derived.insert(ctx, tx, p.partition)
	}
	commit := func(tx pgx.Tx) error {
		if err := insert(tx, p.run.rows); err != nil {
			return err
		}
		return putInQuarantine(ctx, tx, p.partition, p.run.poison)
	}
	err := pgx.BeginFunc(ctx, in, commit)
	if isPoison(err) {
		err = p.run.sift(func(derived *rows) error {
			tx, err := in.Begin(ctx)
			if err != nil {
				return err
			}
			err = insert(tx, derived)
			return errors.Join(err, tx.Rollback(ctx))
		})
		if err == nil {
			err = pgx.BeginFunc(ctx, in, commit)
		}
	}
	return err
}

// openAccounts makes the rows that the insertion updates: the shadows of users and products begin empty.
func (r *rows) openAccounts(ctx context.Context, tx pgx.Tx) error {
	b := &pgx.Batch{}
	if len(r.balanceOf) > 0 {
		b.Queue("INSERT INTO users (id, name, email) SELECT id, '', '' FROM unnest($1::bigint[]) AS id ON CONFLICT DO NOTHING",
			keysAndValues(r.balanceOf)[0])
	}
	if len(r.deltaOf) > 0 {
		b.Queue("INSERT INTO products (id, name, price) SELECT id, '', 0 FROM unnest($1::bigint[]) AS id ON CONFLICT DO NOTHING",
			keysAndValues(r.deltaOf)[0])
	}
	return tx.SendBatch(ctx, b).Close()
}

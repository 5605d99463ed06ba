package persist

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"stampede/engine"
)

const (
	lapseEventsMax = 4000                  // events a call, unless one entry has more
	lapseRead      = 16                    // journal entries a read
	lapseTurn      = 20 * time.Millisecond // how long the writer may spend on it before it looks for new events again
	lapseRetry     = time.Minute           // after an error: it costs memory, and nothing else
)

// lapseEvery is how long a record that is over may stand, so that there are enough of them for a call. Tests set it.
var lapseEvery = 10 * time.Minute

// lapse drops idempotency records from Redis whose time has passed. The journal has them in their order: it is read once
// more, a day behind. It belongs to the goroutine that leads the partition. It does not wait for a rush to end: one that never
// ends would fill Redis.
type lapse struct {
	writer    *Writer
	partition int
	noted     *engine.Position // as Redis has it; nil: not known
	upto      engine.Position  // all records of events up to here have gone
	due       time.Time        // when to look again
}

// turn drops what is over, for a bounded time. Redis refuses in another epoch than the one of the checkpoint, which must
// then be read again: errMoved.
func (l *lapse) turn(ctx context.Context, conn *pgxpool.Conn, at checkpoint) error {
	for start := time.Now(); time.Since(start) < lapseTurn; {
		if time.Now().Before(l.due) {
			return nil
		}
		if err := l.step(ctx, conn, at); err != nil {
			if errors.Is(err, errMoved) {
				return err
			}
			if ctx.Err() == nil {
				l.writer.books.log.Warn("idempotency records stay in Redis for now", "partition", l.partition, "error", err)
			}
			l.due = time.Now().Add(lapseRetry)
		}
	}
	return nil
}

// step drops the records of some entries, or finds when there will be some to drop.
func (l *lapse) step(ctx context.Context, conn *pgxpool.Conn, at checkpoint) error {
	books := l.writer.books
	if l.noted == nil {
		if err := l.begin(ctx, at); err != nil {
			return err
		}
	}
	entries, err := journal(ctx, conn, l.partition, l.upto, lapseRead)
	if err != nil {
		return err
	}
	over := books.engine.RememberedSince()
	to, gone := l.upto, []engine.Event(nil)
	l.due = time.Now().Add(books.keep.lapsed)
	for i := range entries {
		events, err := entries[i].Events()
		if errors.Is(err, engine.ErrNewer) {
			return err
		}
		// What else cannot be read is in quarantine, and its records stay.
		last := time.Time{}
		for j := range events {
			if events[j].At.After(last) {
				last = events[j].At
			}
		}
		if !last.Before(over) || entries[i].Last.Compare(at.Position) > 0 {
			break
		}
		if len(gone) > 0 && len(gone)+len(events) > lapseEventsMax {
			l.due = time.Time{}
			break
		}
		to, gone = entries[i].Last, append(gone, events...)
		if i == lapseRead-1 {
			l.due = time.Time{}
		}
	}
	if to == l.upto {
		return nil
	}
	done, err := books.engine.Lapse(ctx, l.partition, at.fence, *l.noted, to, gone)
	if err == nil && !done {
		err = errMoved
	}
	if err != nil {
		l.noted = nil
		return err
	}
	l.noted, l.upto = &to, to
	l.writer.metrics.lapsed.Add(float64(len(gone)))
	return nil
}

// begin reads how far Redis is. One that has noted nothing was just filled, or is of a version whose records ended by
// themselves: what is old need not be looked for.
func (l *lapse) begin(ctx context.Context, at checkpoint) error {
	books := l.writer.books
	v, err := books.engine.Look(ctx, l.partition)
	if err != nil {
		return err
	}
	l.upto = v.Lapsed
	if v.Lapsed == (engine.Position{}) {
		if l.upto, _, err = books.tail(ctx, l.partition, at.Position, books.engine.RememberedSince()); err != nil {
			return err
		}
	}
	l.noted = &v.Lapsed
	return nil
}

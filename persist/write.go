package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"stampede/engine"
)

// write commits a run in one transaction with the checkpoint, and returns the new checkpoint. What the tables refuse
// leaves the run for the quarantine.
func (w *Writer) write(ctx context.Context, conn *pgxpool.Conn, p int, at checkpoint, r *run) (checkpoint, error) {
	start := time.Now()
	if err := w.belongs(ctx, conn, p, at, r.entries); err != nil {
		return at, err
	}
	if err := w.continues(ctx, conn, p, at.Position, r.entries); err != nil {
		return at, err
	}
	next := at.behind(r.entries)
	err := w.commit(ctx, conn, p, at, next, r)
	if isPoison(err) {
		err = r.sift(func(rows *rows) error {
			return rollBack(ctx, conn.Conn(), func(tx pgx.Tx) error { return rows.insert(ctx, tx, p) })
		})
		if err == nil {
			err = w.commit(ctx, conn, p, at, next, r)
		}
	}
	var pg *pgconn.PgError
	switch {
	case err == nil:
		w.metrics.wrote(next.events-at.events, len(r.poison), time.Since(start))
		for _, bad := range r.poison {
			w.books.log.Error("nothing can be derived of an event, it is in quarantine", "partition", p, "event", bad.at.String(), "reason", bad.reason)
		}
		return next, nil
	case errors.As(err, &pg) && pg.Code == uniqueViolation:
		return w.passKnown(ctx, conn, p, at, r.entries, pg)
	case errors.Is(err, errMoved), errors.Is(err, ErrAlarm):
		return at, err
	}
	return at, unavailable("writing events", err)
}

// commit writes the journal, what is derived of it, and the checkpoint.
func (w *Writer) commit(ctx context.Context, conn *pgxpool.Conn, p int, from, to checkpoint, r *run) error {
	if len(r.poison) > quarantineMax {
		return fmt.Errorf("%w: nothing can be derived of %d events from %v on, the first because of: %s; see whether this program is older than the events",
			ErrAlarm, len(r.poison), from.Position, r.poison[0].reason)
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := moveCheckpoint(ctx, tx, p, from, to); err != nil {
			return err
		}
		if err := copyJournal(ctx, tx.Conn(), p, r.entries); err != nil {
			return err
		}
		if err := r.rows.insert(ctx, tx, p); err != nil {
			return err
		}
		return putInQuarantine(ctx, tx, p, r.poison)
	})
}

// behind is the checkpoint after some entries.
func (c checkpoint) behind(entries []engine.Entry) checkpoint {
	for i := range entries {
		c.events += entries[i].Last.Seq - entries[i].First + 1
		c.bytes += entries[i].Bytes()
	}
	c.Position = entries[len(entries)-1].Last
	return c
}

func (c checkpoint) mark() engine.Mark { return engine.Mark{Position: c.Position, Events: c.events} }

// moveCheckpoint is the guard: it moves the row from where this writer believes it to be, or nothing is committed.
func moveCheckpoint(ctx context.Context, tx pgx.Tx, p int, from, to checkpoint) error {
	tag, err := tx.Exec(ctx, `UPDATE checkpoints SET epoch = $1, seq = $2, events = $3, bytes = $4, updated_at = now()
		WHERE partition = $5 AND epoch = $6 AND seq = $7 AND fence = $8`,
		to.Epoch, to.Seq, to.events, to.bytes, p, from.Epoch, from.Seq, from.fence)
	if err != nil {
		return err
	}
	if tag.RowsAffected() != 1 {
		return errMoved
	}
	return nil
}

// continues makes sure that the entries follow the checkpoint without a gap.
func (w *Writer) continues(ctx context.Context, conn *pgxpool.Conn, p int, at engine.Position, entries []engine.Entry) error {
	for i := range entries {
		e := &entries[i]
		if e.Last.Epoch != at.Epoch {
			if err := w.crosses(ctx, conn, p, at, e.Last.Epoch); err != nil {
				return err
			}
			at = engine.Position{Epoch: e.Last.Epoch}
		}
		if e.First != at.Seq+1 {
			return fmt.Errorf("%w: partition %d lacks events between %v and seq %d: they were trimmed or deleted before they were written; restore the stream, or rebuild Redis with `stampede restore`",
				ErrAlarm, p, at, e.First)
		}
		at = e.Last
	}
	return nil
}

// belongs makes sure that the entries, which are of one epoch, do not lie beyond its end: those are of a Redis that another one was
// opened in place of, and never became part of the books.
func (w *Writer) belongs(ctx context.Context, conn *pgxpool.Conn, p int, at checkpoint, entries []engine.Entry) error {
	last := entries[len(entries)-1].Last
	if last.Epoch >= at.fence {
		return nil
	}
	var end *int64
	err := conn.QueryRow(ctx, "SELECT last_seq FROM epochs WHERE partition = $1 AND epoch = $2", p, last.Epoch).Scan(&end)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return unavailable("reading the end of an epoch", err)
	}
	if end == nil || last.Seq <= *end {
		return nil
	}
	w.books.engine.FenceBefore(p, at.fence)
	return unavailable("writing events", fmt.Errorf("this Redis holds events of epoch %d up to seq %d, and that epoch ended at seq %d: it was "+
		"left behind; correct the Redis URL", last.Epoch, last.Seq, *end))
}

// crosses makes sure that the epochs before to are at their ends: the one of the checkpoint where it stands, those
// between empty.
func (w *Writer) crosses(ctx context.Context, conn *pgxpool.Conn, p int, at engine.Position, to int64) error {
	var ended, opened int64
	err := conn.QueryRow(ctx, `SELECT count(*) FILTER (WHERE last_seq = CASE WHEN epoch = $2 THEN $3::bigint ELSE 0 END), count(*)
		FROM epochs WHERE partition = $1 AND epoch >= $2 AND epoch < $4`, p, at.Epoch, at.Seq, to).Scan(&ended, &opened)
	if err != nil {
		return unavailable("reading epochs", err)
	}
	// Epochs follow each other by one. Before the first event the checkpoint stands in epoch 0, which has no row.
	if ended != opened || opened != to-max(at.Epoch, 1) {
		return fmt.Errorf("%w: partition %d goes on in epoch %d, but epoch %d did not end at seq %d: events in between are missing",
			ErrAlarm, p, to, at.Epoch, at.Seq)
	}
	return nil
}

// passKnown handles a checkpoint that stands behind the journal (it was set back by hand, or restored from an older
// backup): entries that the journal holds with the same content are passed, anything else is an alarm.
func (w *Writer) passKnown(ctx context.Context, conn *pgxpool.Conn, p int, at checkpoint, entries []engine.Entry, clash *pgconn.PgError) (checkpoint, error) {
	known, err := journal(ctx, conn, p, at.Position, len(entries))
	if err != nil {
		return at, unavailable("comparing with the journal", err)
	}
	same := 0
	for same < len(known) && known[same].Equal(&entries[same]) {
		same++
	}
	if same == 0 {
		return at, fmt.Errorf("%w: events after %v clash with rows of table %s (%s) and are not the ones the journal holds",
			ErrAlarm, at.Position, clash.TableName, clash.Detail)
	}
	next := at.behind(entries[:same])
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return moveCheckpoint(ctx, tx, p, at, next) })
	if err != nil {
		return at, err
	}
	w.books.log.Warn("checkpoint stood behind the journal", "partition", p, "from", at.String(), "to", next.String())
	// The rest is read again behind the new checkpoint.
	return next, errMoved
}

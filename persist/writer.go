package persist

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

const (
	writerEntries   = 256                    // stream entries a read
	writerEventsMax = 8192                   // events a transaction, unless one entry has more
	writerBlock     = 250 * time.Millisecond // wait for new entries
	writerRetry     = 250 * time.Millisecond
	writerRetryMax  = 2 * time.Second
	leadEvery       = 500 * time.Millisecond // between tries to become a partition's writer
)

// Writer brings events from Redis into Postgres, one goroutine a partition. Several processes may run one: for each
// partition one of them writes.
type Writer struct {
	books   *Books
	stream  redis.UniversalClient
	alarms  []atomic.Pointer[string]
	broken  []atomic.Pointer[string] // how the last write failed, until one is done
	metrics *writerMetrics
}

// NewWriter returns a writer that reads through a client of its own, which it closes.
func NewWriter(b *Books, stream redis.UniversalClient) *Writer {
	partitions := b.engine.Keys().Partitions()
	return &Writer{
		books: b, stream: stream, metrics: newWriterMetrics(stream),
		alarms: make([]atomic.Pointer[string], partitions), broken: make([]atomic.Pointer[string], partitions),
	}
}

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	var all sync.WaitGroup
	for p := range w.alarms {
		all.Go(func() { w.partition(ctx, p) })
	}
	all.Wait()
	_ = w.stream.Close()
}

func (w *Writer) partition(ctx context.Context, p int) {
	wait := writerRetry
	for ctx.Err() == nil {
		start := time.Now()
		err := w.lead(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if time.Since(start) > writerRetryMax {
			wait = writerRetry
		}
		if err != nil {
			w.metrics.interruptions.Inc()
			text := err.Error()
			if errors.Is(err, ErrAlarm) {
				w.alarms[p].Store(&text)
				w.broken[p].Store(nil)
				w.books.log.Error("writer stopped", "partition", p, "error", err)
			} else {
				w.broken[p].Store(&text)
				w.books.log.Warn("writer interrupted", "partition", p, "error", err)
			}
		}
		pause(ctx, wait)
		wait = min(2*wait, writerRetryMax)
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// lead waits until this process is the partition's writer, and writes until something fails. The lock only chooses
// who tries; the checkpoint row guards.
func (w *Writer) lead(ctx context.Context, p int) error {
	conn, err := w.books.pool.Acquire(ctx)
	if err != nil {
		return unavailable("connecting", err)
	}
	defer conn.Release()
	for {
		var leads bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockWriter, p).Scan(&leads); err != nil {
			return unavailable("asking for the lead", err)
		}
		if leads {
			break
		}
		w.alarms[p].Store(nil) // whoever leads now tells how it goes
		w.broken[p].Store(nil)
		if pause(ctx, leadEvery); ctx.Err() != nil {
			return ctx.Err()
		}
	}
	defer unlock(conn, lockWriter, p)
	w.metrics.leads.Inc()
	defer w.metrics.leads.Dec()
	for ctx.Err() == nil {
		if err := w.follow(ctx, conn, p); err != nil && !errors.Is(err, errMoved) {
			return err
		}
	}
	return ctx.Err()
}

// errMoved says that the checkpoint is not where this writer left it.
var errMoved = errors.New("the checkpoint moved")

// checkpoint is a row of checkpoints.
type checkpoint struct {
	engine.Position
	events int64
	bytes  int64
	fence  int64
}

const selectCheckpoint = "SELECT epoch, seq, events, bytes, fence FROM checkpoints WHERE partition = $1"

func readCheckpoint(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}, partition int, suffix string,
) (c checkpoint, err error) {
	err = q.QueryRow(ctx, selectCheckpoint+suffix, partition).Scan(&c.Epoch, &c.Seq, &c.events, &c.bytes, &c.fence)
	if err != nil {
		return c, unavailable("reading the checkpoint", err)
	}
	return c, nil
}

// follow reads the checkpoint and writes on from it until it moves under us or something fails.
func (w *Writer) follow(ctx context.Context, conn *pgxpool.Conn, p int) error {
	at, err := readCheckpoint(ctx, conn, p, "")
	if err != nil {
		return err
	}
	// The mark in Redis may be behind, after a crash between commit and trim.
	w.trim(ctx, p, at)
	l := &letGo{writer: w, partition: p}
	for ctx.Err() == nil {
		entries, err := w.read(ctx, p, at.Position)
		if err != nil {
			return err
		}
		for len(entries) > 0 {
			n := cut(entries)
			next, ended, err := w.write(ctx, conn, p, at, entries[:n])
			if err != nil {
				return err
			}
			l.wrote(at, next, ended)
			at, entries = next, entries[n:]
			w.alarms[p].Store(nil)
			w.trim(ctx, p, at)
		}
		w.broken[p].Store(nil)
		if err := l.turn(ctx, conn, at); err != nil {
			return err
		}
	}
	return nil
}

// cut returns how many entries go into one transaction: of one epoch, and not too many events.
func cut(entries []engine.Entry) int {
	events := int64(0)
	for i := range entries {
		e := &entries[i]
		events += e.Last.Seq - e.First + 1
		if i > 0 && (events > writerEventsMax || e.Last.Epoch != entries[0].Last.Epoch) {
			return i
		}
	}
	return len(entries)
}

func (w *Writer) read(ctx context.Context, p int, after engine.Position) ([]engine.Entry, error) {
	streams, err := w.stream.XRead(ctx, &redis.XReadArgs{
		Streams: []string{w.books.engine.Keys().Events(p), after.String()}, Count: writerEntries, Block: writerBlock,
	}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, unavailable("reading events", err)
	}
	messages := streams[0].Messages
	entries := make([]engine.Entry, len(messages))
	for i, m := range messages {
		if entries[i], err = engine.ParseEntry(m.ID, m.Values); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrAlarm, err)
		}
	}
	return entries, nil
}

// write commits journal rows, derived rows and checkpoint in one transaction, and returns the new checkpoint and the
// orders that ended.
func (w *Writer) write(ctx context.Context, conn *pgxpool.Conn, p int, at checkpoint, entries []engine.Entry) (checkpoint, []endedOrder, error) {
	start := time.Now()
	if err := w.continues(ctx, conn, p, at.Position, entries); err != nil {
		return at, nil, err
	}
	derived, err := derive(entries)
	if err != nil {
		return at, nil, fmt.Errorf("%w: %w", ErrAlarm, err)
	}
	next := at.behind(entries)
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := moveCheckpoint(ctx, tx, p, at, next); err != nil {
			return err
		}
		b := &pgx.Batch{}
		insertJournal(b, p, entries)
		derived.queue(b, p)
		return tx.SendBatch(ctx, b).Close()
	})
	var pg *pgconn.PgError
	switch {
	case err == nil:
		w.metrics.wrote(next.events-at.events, time.Since(start))
		return next, derived.ended, nil
	case errors.As(err, &pg) && pg.Code == uniqueViolation:
		next, err = w.passKnown(ctx, conn, p, at, entries, pg)
		return next, nil, err
	case errors.As(err, &pg) && pg.Code[:2] == "23":
		return at, nil, fmt.Errorf("%w: events from %v break a rule of table %s: %s", ErrAlarm, at.Position, pg.TableName, pg.Message)
	case errors.Is(err, errMoved), errors.Is(err, ErrAlarm):
		return at, nil, err
	}
	return at, nil, unavailable("writing events", err)
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

// trim notes the checkpoint in Redis and drops what lies well behind it. A failure costs memory for a while.
func (w *Writer) trim(ctx context.Context, p int, at checkpoint) {
	var keep engine.Position
	if at.Seq > w.books.keep.events {
		keep = engine.Position{Epoch: at.Epoch, Seq: at.Seq - w.books.keep.events}
	}
	if err := w.books.engine.Trim(ctx, p, at.Position, at.bytes, keep); err != nil && ctx.Err() == nil {
		w.books.log.Warn("stream not trimmed", "partition", p, "error", err)
	}
}

package persist

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

const (
	writerEntries   = 256                    // stream entries a read
	writerEventsMax = 8192                   // events a transaction, unless one entry has more
	writerBlock     = 250 * time.Millisecond // wait for new entries
	writerRetry     = 250 * time.Millisecond
	writerRetryMax  = time.Second
	writerReadMax   = 3 * time.Second        // for Redis to answer beyond that wait
	leadEvery       = 500 * time.Millisecond // between tries to become a partition's writer
	leadBeat        = time.Second            // between signs of life to Postgres
	acquireMax      = 5 * time.Second        // for a connection from the pool
)

// A writer that shows no sign of life loses its session, and with it the lead: a process that is frozen, or whose machine
// is gone, would else keep it as long as its connection seems to stand. One that is killed loses it at once. One that is frozen
// in the middle of a COPY is idle to neither of these: statement_timeout, which all connections of a shop have, ends the COPY,
// and after that its transaction is idle.
const (
	holdLead = "SET idle_session_timeout = '10s'; SET idle_in_transaction_session_timeout = '5s'"
	dropLead = "RESET idle_session_timeout; RESET idle_in_transaction_session_timeout; RESET lock_timeout"
)

// Writer brings events from Redis into Postgres, one goroutine a partition. Several processes may run one: for each
// partition one of them writes.
type Writer struct {
	books   *Books
	stream  redis.UniversalClient
	alarms  []atomic.Pointer[string]
	broken  []atomic.Pointer[string] // how the last write failed, until one is done
	session []uint32                 // of Postgres, in which this process led the partition last; of its goroutine
	metrics *writerMetrics
	yields  bool
	led     atomic.Int64 // partitions that this process writes
	share   atomic.Int64 // how many of them it should: see spread.go
}

// NewWriter returns a writer that reads through a client of its own, which it closes.
func NewWriter(b *Books, stream redis.UniversalClient) *Writer {
	partitions := b.engine.Keys().Partitions()
	w := &Writer{
		books: b, stream: stream, metrics: newWriterMetrics(stream),
		alarms: make([]atomic.Pointer[string], partitions), broken: make([]atomic.Pointer[string], partitions),
		session: make([]uint32, partitions),
	}
	w.share.Store(int64(partitions))
	return w
}

// YieldToSales has the writer hold back in a rush, where Postgres shares a machine with Redis: see yield. It is called
// before Run.
func (w *Writer) YieldToSales() { w.yields = true }

// Run writes until ctx ends.
func (w *Writer) Run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.spread(ctx) })
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

// acquire takes a connection from the pool, within a bound of its own.
func (b *Books) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, acquireMax)
	defer cancel()
	return b.pool.Acquire(ctx)
}

// lead waits until this process is the partition's writer, and writes until something fails. The lock only chooses
// who tries; the checkpoint row guards.
func (w *Writer) lead(ctx context.Context, p int) error {
	conn, err := w.books.acquire(ctx)
	if err != nil {
		return unavailable("connecting", err)
	}
	defer conn.Release()
	if err := w.awaitLead(ctx, conn, p); err != nil {
		return err
	}
	defer unlock(conn, lockWriter, p)
	if _, err := conn.Exec(ctx, holdLead); err != nil {
		return unavailable("taking the lead", err)
	}
	defer resetSession(conn)
	w.session[p] = conn.Conn().PgConn().PID()
	// Only a beat that began after the lock was taken proves that this Redis is the one that sells.
	if err := w.books.engine.InStep(ctx, p, true); err != nil {
		return err
	}
	w.metrics.leads.Inc()
	defer w.metrics.leads.Dec()
	w.led.Add(1)
	for ctx.Err() == nil {
		switch err := w.follow(ctx, conn, p); {
		case errors.Is(err, errSurplus):
			return nil
		case err != nil && !errors.Is(err, errMoved):
			w.led.Add(-1)
			return err
		}
	}
	w.led.Add(-1)
	return ctx.Err()
}

// awaitLead returns when the connection holds the lock of a partition that this process is to write.
func (w *Writer) awaitLead(ctx context.Context, conn *pgxpool.Conn, p int) error {
	for first := true; ; first = false {
		if first && w.led.Load() >= w.share.Load() { // another process writes it by now, or is about to
			if err := conn.Ping(ctx); err != nil {
				return unavailable("connecting", err)
			}
			w.broken[p].Store(nil)
		}
		if !first || w.led.Load() >= w.share.Load() {
			if w.wait(ctx); ctx.Err() != nil {
				return ctx.Err()
			}
		}
		leads := false
		// The stream of a Redis that was left behind never goes on: its reader would keep the other processes out.
		if !w.books.engine.LeftBehind(p) {
			if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockWriter, p).Scan(&leads); err != nil {
				return unavailable("asking for the lead", err)
			}
		}
		if leads {
			return nil
		}
		if err := w.endSession(ctx, conn, p); err != nil {
			return err
		}
	}
}

// endSession ends the session in which this process led the partition before, if that still holds the lead: its
// connection was given up, and Postgres does not know yet. If the lead is another process's, that one reports on it.
func (w *Writer) endSession(ctx context.Context, conn *pgxpool.Conn, p int) error {
	own := false
	if w.session[p] != 0 {
		err := conn.QueryRow(ctx, `SELECT coalesce(bool_or(pg_terminate_backend(pid)), false) FROM pg_locks WHERE locktype = 'advisory' AND granted
			AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND objsubid = 2 AND pid = $3
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, lockWriter, p, w.session[p]).Scan(&own)
		if err != nil {
			return unavailable("ending the session of the lead before", err)
		}
	}
	if own {
		text := fmt.Sprintf("the lead is still held by process %d of PostgreSQL, whose connection was given up: if it does not end by itself, "+
			"see whether it is frozen", w.session[p])
		w.broken[p].Store(&text)
		return nil
	}
	w.session[p] = 0
	w.alarms[p].Store(nil)
	w.broken[p].Store(nil)
	return nil
}

// resetSession makes the connection one like the others again.
func resetSession(conn *pgxpool.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	if _, err := conn.Exec(ctx, dropLead); err != nil {
		_ = conn.Conn().Close(ctx) // the pool opens another
	}
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

// follow reads the checkpoint and writes on from it until it moves under us or something fails. The next run is read and
// derived while Postgres takes the one before.
func (w *Writer) follow(ctx context.Context, conn *pgxpool.Conn, p int) error {
	at, err := readCheckpoint(ctx, conn, p, "")
	if err != nil {
		return err
	}
	// The mark in Redis may be behind, after a crash between commit and trim.
	w.trim(ctx, p, at)
	l, old := &letGo{writer: w, partition: p}, &lapse{writer: w, partition: p}
	beat := time.Now()
	ctx, stop := context.WithCancel(ctx)
	ahead := make(chan read, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(ahead)
		w.readAhead(ctx, p, at.Position, ahead)
	})
	defer reader.Wait()
	defer stop()
	for next := range ahead {
		if next.err != nil {
			return next.err
		}
		if w.books.engine.LeftBehind(p) {
			return unavailable("reading events", errors.New("this Redis is not the one to sell from: see why its door is shut"))
		}
		if time.Since(beat) > leadBeat {
			if err := conn.Ping(ctx); err != nil {
				return unavailable("keeping the lead", err)
			}
			beat = time.Now()
		}
		start := time.Now()
		if next.run != nil {
			if err := w.books.engine.InStep(ctx, p, false); err != nil {
				return err
			}
			to, err := w.write(ctx, conn, p, at, next.run)
			if err != nil {
				return err
			}
			l.wrote(at, to, next.run.rows.ended)
			at = to
			w.books.progress.written[p].note(at.Position)
			w.books.unwritten.wrote(p, at.events)
			w.alarms[p].Store(nil)
			w.trim(ctx, p, at)
		}
		w.broken[p].Store(nil)
		if w.surplus() {
			return errSurplus
		}
		if err := l.turn(ctx, conn, at); err != nil {
			return err
		}
		if err := old.turn(ctx, conn, at); err != nil {
			return err
		}
		if next.run != nil && w.yields {
			w.yield(ctx, p, time.Since(start))
		}
	}
	return nil
}

// read is what a look for new events found: nothing, a run, or why there will be none.
type read struct {
	run *run
	err error
}

// readAhead reads runs behind a position until ctx ends or one cannot be read.
func (w *Writer) readAhead(ctx context.Context, p int, after engine.Position, to chan<- read) {
	give := func(r read) bool {
		select {
		case to <- r:
			return r.err == nil
		case <-ctx.Done():
			return false
		}
	}
	for ctx.Err() == nil {
		entries, err := w.read(ctx, p, after)
		if len(entries) == 0 && !give(read{err: err}) {
			return
		}
		for len(entries) > 0 {
			n := cut(entries)
			r, err := newRun(entries[:n:n], nil)
			if err != nil {
				err = fmt.Errorf("%w: %w", ErrAlarm, err)
			}
			if !give(read{r, err}) {
				return
			}
			after, entries = entries[n-1].Last, entries[n:]
		}
	}
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
	ctx, cancel := context.WithTimeout(ctx, writerBlock+writerReadMax)
	defer cancel()
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

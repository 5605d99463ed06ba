package persist

import (
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"stampede/engine"
)

const (
	restoreSenders = 3 // calls on their way to Redis
	restoreReaders = 4 // of tables and journals
	restoreWaiting = 2 * restoreSenders
)

// Restore fills an empty Redis, bound for it, from the books, and opens its doors. What an earlier one that was cut short
// has left is taken up: every value is a final one and is set again, and a partition that is open already stays as it
// is. Until the end the doors are shut, for repairs too, and no writer moves a checkpoint.
//
// Balances, stocks, carts and unpaid orders come from the tables, units sold in the window from the ledger, and
// idempotency records from the end of the journal, which alone knows them. Orders that have ended stay in the books, as if
// they had been let go. So it takes as long as there are users and recent orders, however long the journal is.
//
// The tables are what the journal says, row by row, but for events in quarantine, whose effect they lack: partitions that
// have any are replayed from the whole journal, as the scripts went through it.
func (b *Books) Restore(ctx context.Context, watch *RestoreProgress) error {
	r := &restore{books: b, watch: watch}
	if err := r.build(ctx); err != nil {
		return err
	}
	for _, p := range r.others {
		if err := b.repair(ctx, p, true); err != nil {
			return err
		}
	}
	return b.engine.EndRestore(ctx)
}

// restore is one on its way.
type restore struct {
	books    *Books
	watch    *RestoreProgress
	conn     *pgxpool.Conn // holds the locks
	parts    []*part
	mine     []*part // by partition; nil: none of this restore
	others   []int   // partitions that a repair opens
	layouts  layouts
	ends     []checkpoint // of all journals, also of partitions that only earlier layouts had
	before   time.Time    // of the last event of earlier layouts, once it is asked for
	latest   []latest     // events of each journal
	unlisted bool         // there are products that Redis never listed
	loads    chan *engine.Load
}

// latest are the times of the latest events of a journal that a restore reads, of the layout that the books have and of
// earlier ones. They are not those of the last events if the release before wrote while TIME was set back.
type latest struct{ now, earlier time.Time }

// note takes a time of an event into account.
func (l *latest) note(at time.Time, earlier bool) {
	of := &l.now
	if earlier {
		of = &l.earlier
	}
	if at.After(*of) {
		*of = at
	}
}

// part is a partition that a restore fills.
type part struct {
	repair
	at    checkpoint
	first int64 // minute from which units sold count
	load  *engine.Load
}

// build fills and opens the partitions that are empty.
func (r *restore) build(ctx context.Context) (err error) {
	if r.conn, err = r.books.pool.Acquire(ctx); err != nil {
		return unavailable("Postgres cannot be reached for the restore", err)
	}
	defer r.conn.Release()
	defer r.unlock()
	if err := r.claim(ctx); err != nil {
		return err
	}
	err = pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if err := r.begin(ctx, tx); err != nil {
			return err
		}
		if err := r.fill(ctx); err != nil {
			return err
		}
		for _, p := range r.parts {
			if err := p.enterEpoch(ctx, tx, p.at.Position); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range r.parts {
		if err := r.open(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// claim locks every partition and claims the doors of those that are empty.
func (r *restore) claim(ctx context.Context) error {
	e := r.books.engine
	r.mine = make([]*part, e.Keys().Partitions())
	for n := range r.mine {
		if err := awaitRepairs(ctx, r.conn, n); err != nil {
			return err
		}
		found, err := e.Look(ctx, n)
		switch {
		case err != nil:
			return err
		case found.Standing: // an earlier restore got as far as that
			continue
		case found.Replica:
			return refused("this Redis is a replica: name its master")
		case found.Epoch > 0: // it was open, or a replay of the whole journal was cut short: a repair goes on from there
			r.others = append(r.others, n)
			continue
		}
		p := &part{repair: repair{books: r.books, conn: r.conn, partition: n, restoring: true, token: rand.Text()}, load: e.NewLoad(n)}
		if p.found, err = p.claim(ctx, found); err != nil {
			return err
		}
		r.mine[n] = p
	}
	return nil
}

const doorPause = 20 * time.Millisecond

func (r *restore) unlock() {
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	if _, err := r.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()"); err != nil {
		_ = r.conn.Conn().Close(ctx) // it is broken already, and the locks end with it
	}
}

// begin stops the writers of the partitions and notes in Redis what is restored.
func (r *restore) begin(ctx context.Context, tx pgx.Tx) error {
	// It stands idle while other connections read.
	if _, err := tx.Exec(ctx, "SET LOCAL idle_in_transaction_session_timeout = 0"); err != nil {
		return unavailable("beginning the restore", err)
	}
	var err error
	if r.layouts, err = readLayouts(ctx, tx); err != nil {
		return unavailable("beginning the restore", err)
	}
	for n, p := range r.mine {
		if p == nil {
			continue
		}
		if p.at, err = readCheckpoint(ctx, tx, n, " FOR UPDATE"); err != nil {
			return err
		}
	}
	if r.ends, err = readCheckpoints(ctx, tx); err != nil {
		return unavailable("reading the checkpoints", err)
	}
	quarantined, err := poisoned(ctx, tx)
	if err != nil {
		return err
	}
	for n, p := range r.mine {
		switch {
		case p == nil:
			continue
		case quarantined[n] && len(r.layouts) > 1:
			// What its journal says of earlier layouts is of users and products that live elsewhere by now.
			r.books.log.Warn("events in quarantine: Redis lacks their effect as the tables do, until `stampede rebuild-reports` can derive them and Redis is restored again", "partition", n)
		case quarantined[n]:
			r.mine[n], r.others = nil, append(r.others, n)
			r.books.log.Warn("events in quarantine: replaying the whole journal, which takes its time", "partition", n)
			continue
		}
		if err := r.beginPart(ctx, p); err != nil {
			return err
		}
		r.parts = append(r.parts, p)
	}
	return nil
}

// poisoned returns the partitions that have events in quarantine.
func poisoned(ctx context.Context, q querier) (map[int]bool, error) {
	rows, err := q.Query(ctx, "SELECT DISTINCT partition FROM quarantine")
	if err != nil {
		return nil, unavailable("reading the quarantine", err)
	}
	var n int
	all := map[int]bool{}
	if _, err = pgx.ForEachRow(rows, []any{&n}, func() error { all[n] = true; return nil }); err != nil {
		return nil, unavailable("reading the quarantine", err)
	}
	return all, nil
}

func (r *restore) beginPart(ctx context.Context, p *part) error {
	last, err := r.lastTime(ctx, p.partition)
	if err != nil {
		return err
	}
	p.latest = last
	p.first, err = r.books.engine.BeginRestore(ctx, p.partition, p.token, p.at.mark(), p.at.bytes, last)
	if errors.Is(err, engine.ErrOtherBooks) {
		return refused("%v: this Redis has never sold, and holds nothing but what that restore brought; empty it (redis-cli FLUSHALL) and restore again", err)
	}
	p.base, p.epoch = p.at.events, p.at.fence+1
	return err
}

// lastTime returns the time of the last event of a partition, or, where it has none in its layout, of all before.
func (r *restore) lastTime(ctx context.Context, partition int) (time.Time, error) {
	if at := r.ends[partition]; at.Seq > 0 || len(r.layouts) == 1 {
		return r.timeOf(ctx, partition, at.Position)
	}
	if r.before.IsZero() {
		r.before = time.Unix(0, 0)
		for n := range r.ends {
			at, err := r.books.lastEvent(ctx, n, engine.Position{Epoch: r.layouts.now().first})
			if err != nil {
				return r.before, err
			}
			last, err := r.timeOf(ctx, n, at)
			if err != nil {
				return r.before, err
			}
			if last.After(r.before) {
				r.before = last
			}
		}
	}
	return r.before, nil
}

// timeOf returns the time of an event that ends an entry; long ago for the zero position.
func (r *restore) timeOf(ctx context.Context, partition int, at engine.Position) (time.Time, error) {
	if at.Seq == 0 {
		return time.Unix(0, 0), nil
	}
	entries, err := journal(ctx, r.conn, partition, engine.Position{Epoch: at.Epoch, Seq: at.Seq - 1}, 1)
	if err != nil {
		return time.Time{}, unavailable("reading the last event", err)
	}
	if len(entries) == 0 || entries[0].Last != at {
		return time.Time{}, refused("the journal of partition %d ends before its checkpoint %v: rows were deleted", partition, at)
	}
	events, err := entries[0].Events()
	if err != nil {
		return time.Time{}, refused("the last event of partition %d: %v", partition, err)
	}
	return events[len(events)-1].At, nil
}

// endOf returns up to where a partition's journal is restored: to the checkpoint where the partition is, and else, where it
// is open already or is no more, what other partitions have taken over by now.
func (r *restore) endOf(partition int) engine.Position {
	if partition < len(r.mine) && r.mine[partition] != nil {
		return r.ends[partition].Position
	}
	return engine.Position{Epoch: r.layouts.now().first}
}

// open opens a partition that is filled. Redis must be the process that was found at the beginning: one that was started
// anew in the meantime may have lost some of what it was given.
func (r *restore) open(ctx context.Context, p *part) error {
	p.tellLost()
	if r.unlisted {
		return p.reopen(ctx)
	}
	if err := p.move(ctx, p.found, p.epoch, p.base, true); err != nil {
		return err
	}
	r.books.log.Info("opened", "partition", p.partition, "epoch", p.epoch, "reason", p.reason())
	return nil
}

// fill reads the books and sends them to Redis, all at once: while one piece is on its way the next is prepared.
func (r *restore) fill(ctx context.Context) error {
	if len(r.parts) == 0 {
		return nil
	}
	r.books.log.Info("restoring", "partitions", len(r.parts))
	r.latest = make([]latest, len(r.ends))
	r.loads = make(chan *engine.Load, restoreWaiting)
	group, ctx := errgroup.WithContext(ctx)
	for range restoreSenders {
		group.Go(func() error { return r.send(ctx) })
	}
	group.Go(func() error {
		readers, ctx := errgroup.WithContext(ctx)
		readers.SetLimit(restoreReaders)
		readers.Go(func() error { return r.tables(ctx) })
		for n := range r.ends {
			readers.Go(func() error { return r.records(ctx, n) })
		}
		readers.Go(func() error { return r.sales(ctx, readers) })
		if err := readers.Wait(); err != nil {
			return err
		}
		close(r.loads)
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	r.startClocks()
	return nil
}

// startClocks says from when on the clock of each partition runs. What happened in earlier layouts may have happened to
// users of any.
func (r *restore) startClocks() {
	for _, p := range r.parts {
		for n := range r.latest {
			times := []time.Time{p.latest, r.latest[n].earlier}
			if n == p.partition {
				times = append(times, r.latest[n].now)
			}
			p.latest = slices.MaxFunc(times, time.Time.Compare)
		}
	}
}

func (r *restore) send(ctx context.Context) error {
	for {
		select {
		case l, open := <-r.loads:
			if !open {
				return nil
			}
			if err := r.books.engine.SendLoad(ctx, r.mine[l.Partition()].token, l); err != nil {
				return err
			}
			r.watch.sent(l.Keys())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// put hands a load on, and returns an empty one in its place.
func (r *restore) put(ctx context.Context, l *engine.Load) (*engine.Load, error) {
	if l.Keys() == 0 {
		return l, nil
	}
	select {
	case r.loads <- l:
		return r.books.engine.NewLoad(l.Partition()), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

package persist

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"stampede/engine"
)

// Repair compares a partition of Redis with the books and opens its door: after it, Redis holds everything that the
// journal holds, and sells in an epoch of its own. A Redis that is merely known under a new name is opened as it
// stands. One process repairs at a time.
//
// The order matters. The door is claimed first, which keeps out what a repair that lost its lock still has on its way.
// The books learn of the new epoch before Redis does, and the door opens last: a repair that dies anywhere leaves the
// door shut and is begun anew by the next.
func (b *Books) Repair(ctx context.Context, partition int) error {
	return b.repair(ctx, partition, false)
}

func (b *Books) repair(ctx context.Context, partition int, restoring bool) error {
	conn, err := b.acquire(ctx)
	if err != nil {
		return unavailable("Postgres cannot be reached for the repair", err)
	}
	defer conn.Release()
	// A stray that asks again and again who sells has the lock now and then.
	for begun := time.Now(); ; pause(ctx, doorPause) {
		var mine bool
		if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockRepair, partition).Scan(&mine); err != nil {
			return unavailable("locking the repair", err)
		}
		if mine {
			break
		}
		if time.Since(begun) > repairWait {
			return fmt.Errorf("%w: another process repairs or moves it", engine.ErrUnavailable)
		}
	}
	defer unlock(conn, lockRepair, partition)
	settings := "SET lock_timeout = '5s'"
	if !restoring { // which has all the time that it needs
		settings += "; " + holdRepair
	}
	if _, err := conn.Exec(ctx, settings); err != nil {
		return unavailable("beginning the repair", err)
	}
	defer resetSession(conn)
	r := repair{books: b, conn: conn, partition: partition, restoring: restoring, token: rand.Text()}
	return r.run(ctx)
}

// holdRepair ends a session that locks a partition and does nothing, as that of a process which is frozen: else no other
// process could repair it. Between two statements a repair waits for Redis, and for each call of it at most 2 s.
const holdRepair = "SET idle_session_timeout = '30s'; SET idle_in_transaction_session_timeout = '30s'"

// repairWait is how long a repair waits for another one.
const repairWait = time.Second

// repairsMax is how long a restore or a move waits for a repair that is under way.
const repairsMax = 30 * time.Second

// awaitRepairs takes a partition's lock as soon as no repair has it: running shops look at their doors now and again.
func awaitRepairs(ctx context.Context, conn *pgxpool.Conn, partition int) error {
	for deadline := time.Now().Add(repairsMax); ; pause(ctx, doorPause) {
		var mine bool
		err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockRepair, partition).Scan(&mine)
		switch {
		case err != nil:
			return unavailable("locking the partition", err)
		case mine:
			return nil
		case time.Now().After(deadline):
			return refused("a restore, a repair or a move of partition %d is under way: wait for it to end", partition)
		}
	}
}

// run repairs under the partition's lock.
func (r *repair) run(ctx context.Context) error {
	if err := r.books.fits(ctx, r.conn); err != nil {
		return err
	}
	found, err := r.books.engine.Look(ctx, r.partition)
	r.copied = r.books.engine.Copied(r.partition, found.Epoch)
	if err != nil || (found.Standing && !r.copied) {
		return err
	}
	if err := r.endFrozenWriter(ctx); err != nil {
		return err
	}
	switch {
	case found.Replica:
		return fmt.Errorf("%w: the server is a replica", engine.ErrUnavailable)
	case found.Gone():
		return fmt.Errorf("%w: it is half-way to another master: run `stampede move --partition %d --to %s` again",
			engine.ErrUnavailable, r.partition, found.Leaving.Addr)
	case !r.restoring:
		if err := r.mayOpen(ctx, found); err != nil {
			return err
		}
	}
	if found.Standing {
		if err := r.leave(ctx, found); err != nil {
			return err
		}
	}
	if found, err = r.claim(ctx, found); err != nil || found.Standing {
		return err
	}
	same, err := r.compare(ctx, found)
	if err != nil {
		return err
	}
	r.tellLost()
	if same {
		return r.move(ctx, found, found.Epoch, found.Base, true)
	}
	return r.reopen(ctx)
}

// repair is one on its way.
type repair struct {
	books     *Books
	conn      *pgxpool.Conn // the only one it takes: repairs that waited for a second would wait for each other
	partition int
	restoring bool
	moved     bool   // to another master, by who repairs now
	copied    bool   // Redis was found to be a copy of the one that sells
	token     string // keeps out what earlier repairs still have on their way to Redis

	lost   []Loss          // what it had to give up of epochs that had ended
	latest time.Time       // of the events that a restore gives the partition, whose clock goes on from there
	found  engine.DoorView // after the replay
	epoch  int64           // the new one
	base   int64           // events before it
}

// leave closes a partition of a copy, after the Redis that sold has stopped: what opens it is an ordinary repair.
func (r *repair) leave(ctx context.Context, found engine.DoorView) error {
	left, err := r.books.engine.Leave(ctx, r.partition, r.token, found.Epoch, engine.Leaving{})
	if err == nil && !left {
		err = fmt.Errorf("%w: Redis changed during the repair", engine.ErrUnavailable)
	}
	return err
}

// claim makes the door this repair's, and looks at it anew: from then on nobody else moves it.
func (r *repair) claim(ctx context.Context, found engine.DoorView) (engine.DoorView, error) {
	if found.Epoch == 0 && !r.restoring {
		if err := r.mayBegin(ctx); err != nil {
			return found, err
		}
	}
	if found.Renewed != found.IsRun {
		if err := r.books.engine.RenewAOF(ctx, r.partition); err != nil {
			return found, err
		}
	}
	if _, err := r.books.engine.ClaimDoor(ctx, r.partition, r.token, found.IsRun); err != nil {
		return found, err
	}
	return r.books.engine.Look(ctx, r.partition)
}

// mayBegin refuses a partition of Redis that is empty although the books know of events, or although it was in use:
// only one that was never opened may begin from nothing. What a restore has begun is for a restore to finish.
func (r *repair) mayBegin(ctx context.Context) error {
	at, err := readCheckpoint(ctx, r.conn, r.partition, "")
	if err != nil {
		return err
	}
	found, founded, err := r.books.engine.Founded(ctx)
	switch {
	case err != nil:
		return err
	case found.Restoring:
		return errHalfRestored
	case at.fence == 0:
		return nil
	}
	if at.events > 0 || at.Epoch > 0 || !founded { // in a later layout it began with what earlier ones had left
		return errEmptyRedis
	}
	return nil
}

// compare holds Redis against the checkpoint, replays what it lacks and writes the new epoch into the books, in one
// transaction that keeps writers out. It reports true when there is nothing to repair.
func (r *repair) compare(ctx context.Context, found engine.DoorView) (same bool, err error) {
	err = pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		at, err := readCheckpoint(ctx, tx, r.partition, " FOR UPDATE")
		if err != nil {
			return err
		}
		var first int64
		if err := tx.QueryRow(ctx, "SELECT max(epoch) FROM layouts").Scan(&first); err != nil {
			return unavailable("reading layouts", err)
		}
		switch {
		case found.Epoch > 0 && found.Epoch < first:
			return refused("partition %d of this Redis is of epoch %d, and from epoch %d on users and products are divided in another way: "+
				"correct the Redis URL; to use this server, keep a copy of its data directory, start it with an empty one and run `stampede restore`",
				r.partition, found.Epoch, first)
		case found.Epoch > at.fence:
			return refused("partition %d of Redis is in epoch %d, these books know %d at most: this Postgres is older than its Redis", r.partition, found.Epoch, at.fence)
		case found.Open && found.Run == found.IsRun && found.Epoch == at.fence:
			// The same process under a new replication id, as when a first replica attaches: nothing was lost.
			same = true
			return nil
		}
		if err := r.wentAstray(ctx, tx, found, at); err != nil {
			return err
		}
		last := found.Position
		r.found, r.base = found, found.Events()
		if found.Position == at.Position {
			r.base = at.events // a replay across epochs that died before the new epoch moved the position, and not the base
		}
		if found.Compare(at.Position) < 0 {
			last, r.base = at.Position, at.events
			if err := r.replay(ctx, tx, at); err != nil {
				return err
			}
		}
		r.epoch = max(found.Epoch, at.fence) + 1
		return r.enterEpoch(ctx, tx, last)
	})
	return same, err
}

// replayEntries is how many journal rows a step of the replay takes.
const replayEntries = 64

// replay brings Redis forward to the checkpoint.
func (r *repair) replay(ctx context.Context, tx pgx.Tx, to checkpoint) error {
	from, letsGo := r.found.Position, r.letsGo()
	replayed := checkpoint{Position: from}
	for replayed.Compare(to.Position) < 0 {
		at := replayed.Position
		entries, err := journal(ctx, tx, r.partition, at, replayEntries)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			return refused("the journal of partition %d ends at %v, before its checkpoint %v: rows were deleted", r.partition, at, to.Position)
		}
		replayed = replayed.behind(entries)
		var mark *engine.Mark
		if events := r.found.LetGo.Events + replayed.events; letsGo && events <= to.events-r.books.keep.events {
			mark = &engine.Mark{Position: replayed.Position, Events: events}
		}
		done, err := r.books.engine.Replay(ctx, r.partition, r.token, at, entries, to.bytes, mark)
		if err != nil {
			return err
		}
		if !done {
			return fmt.Errorf("%w: Redis changed during the repair", engine.ErrUnavailable)
		}
	}
	r.books.log.Warn("replayed the journal", "partition", r.partition, "from", from.String(), "to", to.String(), "events", replayed.events)
	found, err := r.books.engine.Look(ctx, r.partition)
	if err == nil && found.Position != to.Position {
		err = fmt.Errorf("%w: Redis changed during the repair", engine.ErrUnavailable)
	}
	r.found = found
	return err
}

// letsGo reports whether the replay may leave out orders that ended long ago: where an empty Redis is filled, or a
// restore that died goes on and has left out all of them so far. Any other Redis holds orders of its own, and lets them
// go by and by.
func (r *repair) letsGo() bool {
	return r.restoring && r.found.LetGo.Position == r.found.Position
}

// enterEpoch writes the ends of earlier epochs and the new one. An epoch that a repair named and never opened ended
// at 0.
func (r *repair) enterEpoch(ctx context.Context, tx pgx.Tx, last engine.Position) (err error) {
	if r.lost, err = cutBack(ctx, tx, r.partition, last); err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue("UPDATE epochs SET last_seq = $3 WHERE partition = $1 AND epoch = $2", r.partition, last.Epoch, last.Seq)
	b.Queue("UPDATE epochs SET last_seq = 0 WHERE partition = $1 AND epoch > $2", r.partition, last.Epoch)
	b.Queue("INSERT INTO epochs (partition, epoch, reason) VALUES ($1, $2, $3)", r.partition, r.epoch, r.reason())
	b.Queue("UPDATE checkpoints SET fence = $2 WHERE partition = $1", r.partition, r.epoch)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return unavailable("writing the new epoch", err)
	}
	return nil
}

func (r *repair) reason() string {
	switch {
	case r.restoring:
		return "restored from the books"
	case r.found.Epoch == 0:
		return "new"
	case r.moved:
		return "moved to another master"
	case r.copied:
		return "the Redis that sold in its place has stopped"
	case r.found.Run != r.found.IsRun:
		return "Redis restarted or was replaced"
	}
	return "an earlier repair did not finish"
}

// reopen starts the epoch behind the shut door, brings people and catalogue up to date, and opens.
func (r *repair) reopen(ctx context.Context) error {
	if err := r.move(ctx, r.found, r.epoch, r.base, false); err != nil {
		return err
	}
	if err := r.people(ctx); err != nil {
		return err
	}
	if err := r.catalogue(ctx); err != nil {
		return err
	}
	found, err := r.books.engine.Look(ctx, r.partition)
	if err != nil {
		return err
	}
	if err := r.move(ctx, found, r.epoch, found.Base, true); err != nil {
		return err
	}
	r.books.log.Info("opened", "partition", r.partition, "epoch", r.epoch, "reason", r.reason())
	return nil
}

func (r *repair) move(ctx context.Context, found engine.DoorView, epoch, base int64, open bool) error {
	done, err := r.books.engine.MoveDoor(ctx, r.partition, r.token, found, epoch, base, open, r.latest)
	if err == nil && !done {
		err = fmt.Errorf("%w: Redis changed during the repair", engine.ErrUnavailable)
	}
	return err
}

const peopleChunk = 10_000

// people opens accounts that Redis may have lost: opening one leaves no event, so there is no position to go by. Most
// stand: a look at many costs less than opening each again.
func (r *repair) people(ctx context.Context) error {
	e := r.books.engine
	for after := int64(0); ; {
		rows, err := r.conn.Query(ctx, "SELECT id FROM users WHERE id > $1 ORDER BY id LIMIT $2", after, peopleChunk)
		if err != nil {
			return unavailable("reading users", err)
		}
		ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
		if err != nil {
			return unavailable("reading users", err)
		}
		if len(ids) == 0 {
			return nil
		}
		after = ids[len(ids)-1]
		mine := ids[:0]
		for _, id := range ids {
			if e.Keys().OfUser(id) == r.partition {
				mine = append(mine, id)
			}
		}
		enrolled, err := e.Enrolled(ctx, r.partition, mine)
		if err == nil && !enrolled {
			err = e.EnrollBehind(r.partition, r.epoch, mine)
		}
		if err != nil {
			return err
		}
	}
}

func (r *repair) catalogue(ctx context.Context) error {
	for after := int64(0); ; {
		rows, err := r.conn.Query(ctx, selectProducts+" WHERE id > $1 ORDER BY id LIMIT $2", after, peopleChunk)
		if err != nil {
			return unavailable("reading products", err)
		}
		listings, err := pgx.CollectRows(rows, scanListing)
		if err != nil {
			return unavailable("reading products", err)
		}
		if len(listings) == 0 {
			return nil
		}
		after = listings[len(listings)-1].ID
		if err := r.books.engine.ListBehind(r.partition, r.epoch, listings); err != nil {
			return err
		}
	}
}

package persist

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"stampede/engine"
)

// MoveStep is what a move is about to do.
type MoveStep string

// The steps of a move, in their order. Where an earlier one died, some are left out.
const (
	MoveCloses   MoveStep = "closing its door"
	MoveCopies   MoveStep = "copying its keys"
	MoveHandsOn  MoveStep = "handing its slot over"
	MoveOpens    MoveStep = "comparing it with the books and opening its door"
	MoveTidiesUp MoveStep = "deleting what it left elsewhere"
)

// Moved is what a move did.
type Moved struct {
	From, To string        // addresses of the masters
	Already  bool          // it was there
	Keys     int64         // that were copied
	Shut     time.Duration // how long its door was
}

// Move brings a partition to another master of its Redis Cluster, named by its address or id. The partition sells nothing
// meanwhile, the others do. tell is called before each step, and with the number of keys while they are copied.
//
// For the whole move it holds the partition's lock, so that no repair opens the door. Should it die before its note in meta
// says that the partition is about to go, everything is still where it was, and a repair opens it there. From then on only
// the move, made again, brings it to its end; see engine.Leaving. What opens the door at last is an ordinary repair, in a
// new epoch.
func (b *Books) Move(ctx context.Context, partition int, to string, tell func(step MoveStep, keys int64)) (done Moved, err error) {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return done, unavailable("Postgres cannot be reached for the move", err)
	}
	defer conn.Release()
	if err := awaitRepairs(ctx, conn, partition); err != nil {
		return done, err
	}
	defer unlock(conn, lockRepair, partition)
	// A move that is frozen loses its lock, and finds that out before its next step.
	if _, err := conn.Exec(ctx, holdLead); err != nil {
		return done, unavailable("beginning the move", err)
	}
	defer resetSession(conn)
	if err := b.fits(ctx, conn); err != nil {
		return done, err
	}
	plan, err := b.engine.BeginMove(ctx, partition, to)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, plan.Close()) }()
	m := &move{
		repair: repair{books: b, conn: conn, partition: partition, moved: true, token: rand.Text()},
		plan:   plan, tell: tell, done: Moved{From: plan.From(), To: plan.To(), Already: plan.Arrived()},
	}
	err = m.all(ctx)
	return m.done, err
}

// move is one on its way.
type move struct {
	repair
	plan *engine.Move
	tell func(step MoveStep, keys int64)
	done Moved
	shut time.Time
}

func (m *move) all(ctx context.Context) error {
	m.shut = time.Now()
	if m.done.Already {
		if err := m.plan.Announce(ctx); err != nil {
			return err
		}
	} else if err := m.leave(ctx); err != nil {
		return err
	}
	if err := m.open(ctx); err != nil {
		return err
	}
	m.done.Shut = time.Since(m.shut)
	m.tell(MoveTidiesUp, 0)
	return m.plan.Tidy(ctx, m.alive(ctx))
}

// alive tells whether this process still holds the partition's lock.
func (m *move) alive(ctx context.Context) func() error {
	return func() error {
		if err := m.conn.Ping(ctx); err != nil {
			return unavailable("the connection to Postgres was lost, and with it the partition's lock: run the command again", err)
		}
		return nil
	}
}

// leave brings the partition to the other master, shut.
func (m *move) leave(ctx context.Context) error {
	handed, err := m.plan.Handed(ctx)
	if err != nil {
		return err
	}
	if !handed {
		found, err := m.books.engine.Look(ctx, m.partition)
		if err != nil {
			return err
		}
		switch {
		case found.Leaving == engine.Leaving{}:
			if err := m.copy(ctx); err != nil {
				return err
			}
		case !m.plan.Meant(found.Leaving):
			return refused("partition %d is half-way to %s: finish that first, with --to %s; if that master is gone and a replica has taken "+
				"its place, start it again, so that the cluster knows the two belong together, and name the new one",
				m.partition, found.Leaving.Addr, found.Leaving.Addr)
		}
	}
	m.tell(MoveHandsOn, 0)
	return m.plan.HandOver(ctx, m.alive(ctx))
}

// copy shuts the door and copies all keys to the other master.
func (m *move) copy(ctx context.Context) error {
	// A door that stands shut is repaired first: only what is whole is moved.
	if err := m.run(ctx); err != nil {
		return err
	}
	found, err := m.books.engine.Look(ctx, m.partition)
	if err != nil {
		return err
	}
	m.tell(MoveCloses, 0)
	m.shut = time.Now()
	left, err := m.books.engine.Leave(ctx, m.partition, m.token, found.Epoch, engine.Leaving{})
	if err == nil && !left {
		err = errMoveLost
	}
	if err != nil {
		return err
	}
	m.tell(MoveCopies, 0)
	alive := m.alive(ctx)
	if err := m.plan.Prepare(ctx, alive); err != nil {
		return err
	}
	err = m.plan.Copy(ctx, alive, func(keys int64) {
		m.done.Keys = keys
		m.tell(MoveCopies, keys)
	})
	if err != nil {
		return err
	}
	left, err = m.plan.Note(ctx, m.token, found.Epoch)
	if err == nil && !left {
		err = errMoveLost
	}
	return err
}

var errMoveLost = fmt.Errorf("%w: the partition was repaired by another process meanwhile: run the command again", engine.ErrUnavailable)

// open opens the door where it does not stand open, on the other master.
func (m *move) open(ctx context.Context) error {
	found, err := m.books.engine.Look(ctx, m.partition)
	if err != nil || found.Standing {
		return err
	}
	if found.Gone() { // the master was started again: it has all that it had when it took the slot
		left, err := m.books.engine.Leave(ctx, m.partition, m.token, found.Epoch, engine.Leaving{})
		if err == nil && !left {
			err = errMoveLost
		}
		if err != nil {
			return err
		}
	}
	m.tell(MoveOpens, 0)
	return m.run(ctx)
}

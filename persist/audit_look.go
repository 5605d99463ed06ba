package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

const (
	auditChunk  = 1000 // rows or keys that an audit looks at together
	sampleChunk = 200  // that a sample does: so many keys fit into one read of Redis, which is then done with them at once
)

// How long an audit waits for the writer to pass a position, and for a door to stand open. Tests set both.
var (
	auditPatience = 30 * time.Second
	doorPatience  = 5 * time.Second
)

// errTurned says that a partition of Redis was repaired while the audit looked at it: what it had read may be no more.
var errTurned = errors.New("a partition was repaired, or its Redis restarted, while it was looked at: audit again")

// door is what the audit knows of a partition's door.
type door struct {
	skip  bool  // Redis cannot be compared
	epoch int64 // 0: not looked at yet
	seen  int64 // events that Redis had when it was last looked at
}

// meta is what the audit needs to know of a partition of Redis, at the instant at which it read something else there.
type meta struct {
	engine.Mark       // of the last event
	open        bool  // the door
	base        int64 // events of earlier epochs
	bytes, done int64 // of all events; of those that the writer has noted
	letGo       int64 // events up to the mark behind which ended orders must stand
	minute      int64 // of the last event
	rolled      int64 // first minute that may still count in the top five; 0: the shop is older than the top five
}

// metaFields are those of meta in which the fields of an audit stand, in their order.
var metaFields = []string{"epoch", "seq", "base", "bytes", "open", "let_go", "minute", "rolled", "done"}

// look reads from a partition, together with its meta, at one instant.
func (a *audit) look(ctx context.Context, p int, read func(redis.Pipeliner)) (meta, error) {
	if a.optimistic {
		return a.lookBetween(ctx, p, read)
	}
	var found *redis.SliceCmd
	_, err := a.redis.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		found = pipe.HMGet(ctx, a.keys.Meta(p), metaFields...)
		if read != nil {
			read(pipe)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return meta{}, fmt.Errorf("reading from Redis: %w", err)
	}
	return metaOf(p, found)
}

// lookTries is how often lookBetween reads.
const lookTries = 20

// lookBetween is look without a transaction, which the user of a selling process has no right to: nothing has changed where
// meta is the same before and after.
func (a *audit) lookBetween(ctx context.Context, p int, read func(redis.Pipeliner)) (meta, error) {
	for range lookTries {
		var before, after *redis.SliceCmd
		_, err := a.redis.Pipelined(ctx, func(pipe redis.Pipeliner) error {
			before = pipe.HMGet(ctx, a.keys.Meta(p), metaFields...)
			if read != nil {
				read(pipe)
			}
			after = pipe.HMGet(ctx, a.keys.Meta(p), metaFields...)
			return nil
		})
		if err != nil && !errors.Is(err, redis.Nil) {
			return meta{}, fmt.Errorf("reading from Redis: %w", err)
		}
		first, err := metaOf(p, before)
		if err != nil {
			return first, err
		}
		second, err := metaOf(p, after)
		if second.done = first.done; err != nil || first == second {
			return first, err
		}
	}
	return meta{}, fmt.Errorf("partition %d changes too fast to be looked at", p)
}

func metaOf(p int, found *redis.SliceCmd) (meta, error) {
	var at struct {
		Epoch  int64  `redis:"epoch"`
		Seq    int64  `redis:"seq"`
		Base   int64  `redis:"base"`
		Bytes  int64  `redis:"bytes"`
		Done   int64  `redis:"done"`
		Open   string `redis:"open"`
		LetGo  int64  `redis:"let_go"`
		Minute int64  `redis:"minute"`
		Rolled int64  `redis:"rolled"`
	}
	if err := found.Scan(&at); err != nil {
		return meta{}, fmt.Errorf("reading the door of partition %d: %w", p, err)
	}
	return meta{
		Mark: engine.Mark{Position: engine.Position{Epoch: at.Epoch, Seq: at.Seq}, Events: at.Base + at.Seq},
		open: at.Open == "1", base: at.Base, bytes: at.Bytes, done: at.Done,
		letGo: at.LetGo, minute: at.Minute, rolled: at.Rolled,
	}, nil
}

// at is look, and makes sure that Redis still is the one that was looked at first: with its door open in the same epoch,
// and without a step back.
func (a *audit) at(ctx context.Context, p int, read func(redis.Pipeliner)) (meta, error) {
	m, err := a.look(ctx, p, read)
	if err != nil {
		return m, err
	}
	d := &a.doors[p]
	if !m.open || m.Epoch != d.epoch || m.Events < d.seen {
		return m, errTurned
	}
	d.seen = m.Events
	return m, nil
}

// held reads string keys of a partition at one instant; a key that is missing is nil.
func (a *audit) held(ctx context.Context, p int, keys []string) (values []any, at meta, err error) {
	var found *redis.SliceCmd
	at, err = a.at(ctx, p, func(pipe redis.Pipeliner) { found = pipe.MGet(ctx, keys...) })
	if err != nil {
		return nil, at, err
	}
	return found.Val(), at, nil
}

// passed waits until the books hold what Redis held at a mark: it can then be told from the books.
func (a *audit) passed(ctx context.Context, partition int, m engine.Mark) error {
	ctx, cancel := context.WithTimeout(ctx, a.patience)
	defer cancel()
	for wait := progressPause; ; wait = min(2*wait, progressPauseMx) {
		at, err := readCheckpoint(ctx, a.books.pool, partition, "")
		switch {
		case err == nil && at.Epoch > m.Epoch:
			return errTurned // perhaps without the last events before the mark
		case err == nil && at.events >= m.Events:
			return nil
		}
		if pause(ctx, wait); ctx.Err() != nil {
			return fmt.Errorf("the writer of partition %d did not pass %v: is one running? %w", partition, m.Position, ctx.Err())
		}
	}
}

// lookAtDoors compares every door with the books. A partition whose door does not stand open where the books know it to
// be is not looked at any further.
func (a *audit) lookAtDoors(ctx context.Context) error {
	for p := range a.doors {
		wrong, err := a.lookAtDoor(ctx, p)
		for until := time.Now().Add(doorPatience); err == nil && wrong != "" && time.Now().Before(until); {
			pause(ctx, progressPauseMx)
			wrong, err = a.lookAtDoor(ctx, p)
		}
		if err != nil {
			return err
		}
		a.looked(checkDoors, 1)
		if wrong != "" {
			a.doors[p].skip = true
			a.violated(checkDoors, a.keys.Meta(p), "%s; nothing else in this partition of Redis was compared", wrong)
		}
	}
	return nil
}

// lookAtDoor says what is wrong with a door just now.
func (a *audit) lookAtDoor(ctx context.Context, p int) (wrong string, err error) {
	books, err := readCheckpoint(ctx, a.books.pool, p, "")
	if err != nil {
		return "", err
	}
	m, err := a.look(ctx, p, nil)
	if err != nil {
		return "", err
	}
	switch {
	case books.fence == 0 && m.Epoch == 0:
		a.doors[p].skip = true // nothing was ever sold
		return "", nil
	case m.Epoch != books.fence:
		return fmt.Sprintf("stands in epoch %d, the books sell in epoch %d", m.Epoch, books.fence), nil
	case !m.open:
		return fmt.Sprintf("is shut in epoch %d: a repair is under way, or did not finish", m.Epoch), nil
	case m.Events < books.events:
		return fmt.Sprintf("stands at %v with %d events, the books hold %d: Redis lost some, which a repair brings back when Stampede starts",
			m.Position, m.Events, books.events), nil
	}
	a.doors[p].epoch, a.doors[p].seen = m.Epoch, m.Events
	return "", nil
}

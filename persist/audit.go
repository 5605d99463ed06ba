package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// Violation is a row or a figure that breaks an invariant.
type Violation struct {
	Check   string `json:"check"`   // the invariant, as a short name
	Subject string `json:"subject"` // the row: table and key, or the key in Redis
	Detail  string `json:"detail"`  // what stands there and what should
}

// Summary is what an audit looked at.
type Summary struct {
	Users      int64 `json:"users"`
	Products   int64 `json:"products"`
	Orders     int64 `json:"orders"`
	Events     int64 `json:"events"`
	Violations int64 `json:"violations"`
}

// ErrNotAudited wraps why an audit could not look at everything.
var ErrNotAudited = errors.New("could not audit")

// audit is one on its way. Postgres is read in one snapshot, so that a running writer changes nothing under it;
// Redis is read piece by piece, each piece together with the position of the events it reflects.
type audit struct {
	books    *Books
	redis    redis.UniversalClient
	keys     *engine.Keys
	report   func(Violation)
	snapshot pgx.Tx
	sum      Summary
	expected counts

	open        idSet   // users whose cart, as far as the walk has come, holds something that no row shows
	minutesSeen []idSet // by partition: minutes of sales that were compared
}

// Audit proves the books: the journal is dense and readable, the tables are what it says, money and stock add up, and
// Redis holds the same. It reports each violation, on a running shop as on a quiet one.
func (b *Books) Audit(ctx context.Context, client redis.UniversalClient, report func(Violation)) (Summary, error) {
	a := &audit{books: b, redis: client, keys: b.engine.Keys(), open: idSet{}}
	for range a.keys.Partitions() {
		a.minutesSeen = append(a.minutesSeen, idSet{})
	}
	a.report = func(v Violation) {
		a.sum.Violations++
		report(v)
	}
	tx, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return a.sum, fmt.Errorf("%w: %w", ErrNotAudited, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only read
	a.snapshot = tx
	steps := []func(context.Context) error{a.journals, a.tables, a.balances, a.stocks, a.holds, a.carts, a.sales, a.redisKeys}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return a.sum, fmt.Errorf("%w: %w", ErrNotAudited, err)
		}
	}
	return a.sum, nil
}

func (a *audit) violated(check, subject, format string, args ...any) {
	a.report(Violation{Check: check, Subject: subject, Detail: fmt.Sprintf(format, args...)})
}

const (
	auditChunk    = 1000             // rows or keys looked at together
	auditPatience = 30 * time.Second // for the writer to pass a position
)

// passed waits until the books hold what Redis held at a mark: it can then be told from the books.
func (a *audit) passed(ctx context.Context, partition int, m engine.Mark) error {
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	for {
		at, err := readCheckpoint(ctx, a.books.pool, partition, "")
		if err == nil && at.events >= m.Events {
			return nil
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("the writer of partition %d did not pass %v: is one running? %w", partition, m.Position, ctx.Err())
		}
	}
}

// meta is what the audit needs to know of a partition of Redis, at the instant at which it read something else there.
type meta struct {
	engine.Mark       // of the last event
	letGo       int64 // events up to the mark behind which ended orders must stand
	minute      int64 // of the last event
	rolled      int64 // first minute that may still count in the top five; 0: the shop is older than the top five
}

// at reads from a partition, together with its meta, at one instant.
func (a *audit) at(ctx context.Context, p int, read func(redis.Pipeliner)) (meta, error) {
	var found *redis.SliceCmd
	_, err := a.redis.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		found = pipe.HMGet(ctx, a.keys.Meta(p), "epoch", "seq", "base", "let_go", "minute", "rolled")
		read(pipe)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return meta{}, fmt.Errorf("reading from Redis: %w", err)
	}
	var at struct {
		Epoch  int64 `redis:"epoch"`
		Seq    int64 `redis:"seq"`
		Base   int64 `redis:"base"`
		LetGo  int64 `redis:"let_go"`
		Minute int64 `redis:"minute"`
		Rolled int64 `redis:"rolled"`
	}
	if err := found.Scan(&at); err != nil {
		return meta{}, fmt.Errorf("reading the door of partition %d: %w", p, err)
	}
	return meta{
		Mark:  engine.Mark{Position: engine.Position{Epoch: at.Epoch, Seq: at.Seq}, Events: at.Base + at.Seq},
		letGo: at.LetGo, minute: at.Minute, rolled: at.Rolled,
	}, nil
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

// idSet is a set of ids, which lie close together: about a bit each.
type idSet map[int64]uint64

func (s idSet) add(id int64) { s[id>>6] |= 1 << (id & 63) }

func (s idSet) has(id int64) bool { return s[id>>6]&(1<<(id&63)) != 0 }

func (s idSet) remove(id int64) {
	if s[id>>6] &^= 1 << (id & 63); s[id>>6] == 0 {
		delete(s, id>>6)
	}
}

func (s idSet) each(visit func(id int64)) {
	for word, bits := range s {
		for bit := range int64(64) {
			if bits&(1<<bit) != 0 {
				visit(word<<6 | bit)
			}
		}
	}
}

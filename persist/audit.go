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
}

// Audit proves the books: the journal is dense and readable, the tables are what it says, money and stock add up, and
// Redis holds the same. It reports each violation, on a running shop as on a quiet one.
func (b *Books) Audit(ctx context.Context, client redis.UniversalClient, report func(Violation)) (Summary, error) {
	a := &audit{books: b, redis: client, keys: b.engine.Keys()}
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
	steps := []func(context.Context) error{a.journals, a.tables, a.balances, a.stocks}
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

// passed waits until the checkpoint has passed a position: what Redis held there can then be told from the books.
func (a *audit) passed(ctx context.Context, partition int, position engine.Position) error {
	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	for {
		at, err := readCheckpoint(ctx, a.books.pool, partition, "")
		if err == nil && at.Compare(position) >= 0 {
			return nil
		}
		pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("the writer of partition %d did not pass %v: is one running? %w", partition, position, ctx.Err())
		}
	}
}

// held reads string keys of a partition together with the position of the last event, at one instant.
func (a *audit) held(ctx context.Context, partition int, keys []string) ([]any, engine.Position, error) {
	var position *redis.SliceCmd
	var values *redis.SliceCmd
	_, err := a.redis.TxPipelined(ctx, func(p redis.Pipeliner) error {
		position = p.HMGet(ctx, a.keys.Meta(partition), "epoch", "seq")
		values = p.MGet(ctx, keys...)
		return nil
	})
	if err != nil {
		return nil, engine.Position{}, fmt.Errorf("reading from Redis: %w", err)
	}
	var at struct {
		Epoch int64 `redis:"epoch"`
		Seq   int64 `redis:"seq"`
	}
	if err := position.Scan(&at); err != nil {
		return nil, engine.Position{}, fmt.Errorf("reading the position of partition %d: %w", partition, err)
	}
	return values.Val(), engine.Position{Epoch: at.Epoch, Seq: at.Seq}, nil
}

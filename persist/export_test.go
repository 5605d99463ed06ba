package persist

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// KeepEvents has books that are opened from now on keep fewer events in Redis, until the test ends, and let a single
// order go.
func KeepEvents(t *testing.T, n int64) {
	t.Helper()
	events, orders := keepEvents, letGoMin
	keepEvents, letGoMin = n, 1
	t.Cleanup(func() { keepEvents, letGoMin = events, orders })
}

// LapseEvery has books that are opened from now on look for idempotency records that are over in another rhythm, until the
// test ends.
func LapseEvery(t *testing.T, d time.Duration) {
	t.Helper()
	was := lapseEvery
	lapseEvery = d
	t.Cleanup(func() { lapseEvery = was })
}

// Exec lets a test change the tables by as many connections as it needs.
func (b *Books) Exec(ctx context.Context, sql string) error {
	_, err := b.pool.Exec(ctx, sql)
	return err
}

// MoveFrom moves the checkpoint of partition 0 to where it stands, as a writer that knows a fence.
func (b *Books) MoveFrom(ctx context.Context, fence int64) (moved bool, err error) {
	at, err := readCheckpoint(ctx, b.pool, 0, "")
	if err != nil {
		return false, err
	}
	at.fence = fence
	err = pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error { return moveCheckpoint(ctx, tx, 0, at, at) })
	if errors.Is(err, errMoved) {
		return false, nil
	}
	return err == nil, err
}

// CountRows counts the rows that the writer only adds.
func (b *Books) CountRows(ctx context.Context) (rows int64, err error) {
	for _, table := range bareTables {
		var n int64
		if err := b.pool.QueryRow(ctx, "SELECT count(*) FROM "+table).Scan(&n); err != nil {
			return 0, err
		}
		rows += n
	}
	return rows, nil
}

var bareTables = []string{"events", "orders", "order_items", "order_history", "balance_ledger", "stock_ledger"}

// LoadBare loads the rows of partition 0 once more, into empty copies of the tables with the same indexes: by unnest
// inserts alone, of about as many events at a time as the writer takes, each load committed. Only the loads are timed.
func (b *Books) LoadBare(ctx context.Context) (rows int64, took time.Duration, err error) {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer conn.Release()
	copies := "DROP SCHEMA IF EXISTS bare CASCADE; CREATE SCHEMA bare;"
	for _, table := range bareTables {
		copies += fmt.Sprintf("CREATE TABLE bare.%s (LIKE %[1]s INCLUDING ALL);", table)
	}
	if _, err := conn.Exec(ctx, copies); err != nil {
		return 0, 0, err
	}
	for at := (engine.Position{}); ; {
		entries, err := journal(ctx, conn, 0, at, 32)
		if err != nil || len(entries) == 0 {
			return rows, took, err
		}
		at = entries[len(entries)-1].Last
		derived, _, err := derive(entries, nil)
		if err != nil {
			return 0, 0, err
		}
		load := derived.bare(entries)
		start := time.Now()
		done := conn.SendBatch(ctx, load)
		for range load.Len() {
			tag, err := done.Exec()
			if err != nil {
				return 0, 0, err
			}
			rows += tag.RowsAffected()
		}
		if err := done.Close(); err != nil {
			return 0, 0, err
		}
		took += time.Since(start)
	}
}

func (r *rows) bare(entries []engine.Entry) *pgx.Batch {
	var epochs, firsts, lasts []int64
	var versions []int16
	var payloads [][]byte
	for _, e := range entries {
		epochs, firsts, lasts = append(epochs, e.Last.Epoch), append(firsts, e.First), append(lasts, e.Last.Seq)
		versions, payloads = append(versions, int16(e.Version)), append(payloads, e.Payload)
	}
	b := &pgx.Batch{}
	b.Queue(`INSERT INTO bare.events (partition, epoch, first_seq, last_seq, version, payload)
		SELECT 0, * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::smallint[], $5::bytea[])`, epochs, firsts, lasts, versions, payloads)
	o, i, h, l, s := &r.orders, &r.items, &r.history, &r.balances, &r.stocks
	b.Queue(`INSERT INTO bare.orders (id, user_id, total_price, status, created_at, updated_at, expires_at)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[])`,
		o.id, o.user, o.total, o.status, o.created, o.updated, o.expires)
	b.Queue(`INSERT INTO bare.order_items (order_id, product_id, quantity, price, line)
		SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[])`, i.order, i.product, i.quantity, i.price, i.line)
	b.Queue(`INSERT INTO bare.order_history (order_id, step, status, reason, at)
		SELECT * FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[])`, h.order, h.step, h.status, h.reason, h.at)
	b.Queue(`INSERT INTO bare.balance_ledger (partition, epoch, seq, user_id, amount, balance_after, ref_id, kind, at)
		SELECT 0, * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::timestamptz[])`,
		l.epoch, l.seq, l.user, l.amount, l.after, l.ref, l.kind, l.at)
	b.Queue(`INSERT INTO bare.stock_ledger (partition, epoch, seq, product_id, delta, held, stock_after, order_id, kind, reason, at)
		SELECT 0, * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
			$8::text[], $9::text[], $10::timestamptz[])`,
		s.epoch, s.seq, s.product, s.delta, s.held, s.after, s.order, s.kind, s.reason, s.at)
	return b
}

func init() { holdOff = 2 * time.Second } // for all tests, which wait for that

// Waiting is how many wait for events of a partition.
func Waiting(b *Books, partition int) int32 { return b.progress.hurried[partition].waiting.Load() }

// Rest pauses as a writer of a partition that yields does, and returns for how long.
func Rest(ctx context.Context, b *Books, partition int, d time.Duration) time.Duration {
	begun := time.Now()
	for end := begun.Add(d); time.Now().Before(end) && !b.progress.hurried[partition].rest(ctx, d); {
		continue
	}
	return time.Since(begun)
}

// Leads is how many partitions a writer writes.
func Leads(w *Writer) int64 { return w.led.Load() }

// HoldBeats keeps a process from moving the pulse, as one that hangs, until release is called.
func HoldBeats(b *Books) (release func()) {
	b.attendance.mu.Lock()
	return b.attendance.mu.Unlock
}

// WriteOnce writes what the stream of partition 0 holds after the checkpoint, as a writer that has the lead.
func (b *Books) WriteOnce(ctx context.Context, stream redis.UniversalClient) error {
	conn, err := b.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	w := NewWriter(b, stream)
	at, err := readCheckpoint(ctx, conn, 0, "")
	if err != nil {
		return err
	}
	entries, err := w.read(ctx, 0, at.Position)
	if err != nil {
		return err
	}
	r, err := newRun(entries[:cut(entries)], nil)
	if err != nil {
		return err
	}
	_, err = w.write(ctx, conn, 0, at, r)
	return err
}

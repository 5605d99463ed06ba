package persist

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// selectUnderWay reads what was sent and has not come, by receiver, with what the receiver has.
const selectUnderWay = `WITH away AS (SELECT s.peer, s.product_id, s.partition, s.epoch, s.seq, -s.delta AS units` + openTransfers + `),
	shares AS (
		SELECT DISTINCT ON (l.partition, l.product_id) l.partition, l.product_id, l.stock_after FROM stock_ledger l
		JOIN (SELECT DISTINCT peer, product_id FROM away) a ON a.peer = l.partition AND a.product_id = l.product_id
		WHERE l.stock_after IS NOT NULL AND l.` + thisLayout + `
		ORDER BY l.partition, l.product_id, l.epoch DESC, l.seq DESC)
	SELECT a.peer, a.product_id, a.partition, a.epoch, a.seq, a.units, coalesce(s.stock_after, 0)
	FROM away a LEFT JOIN shares s ON s.partition = a.peer AND s.product_id = a.product_id ORDER BY a.peer, a.product_id, a.epoch, a.seq`

// endTransfers brings all units that are under way to where they were sent. The partitions of that time will not do it any
// more: so the journals of the receivers get the events by which they would have, in an epoch of their own.
func endTransfers(ctx context.Context, tx pgx.Tx) error {
	rows, err := tx.Query(ctx, selectUnderWay)
	if err != nil {
		return unavailable("reading transfers", err)
	}
	came, now := map[int][]engine.Event{}, time.Now()
	var receiver int
	e := engine.Event{Kind: engine.Moved, At: now}
	_, err = pgx.ForEachRow(rows, []any{&receiver, &e.ProductID, &e.Peer, &e.Sent.Epoch, &e.Sent.Seq, &e.Delta, &e.Stock}, func() error {
		e.Stock += e.Delta
		if n := len(came[receiver]); n > 0 && came[receiver][n-1].ProductID == e.ProductID {
			e.Stock = came[receiver][n-1].Stock + e.Delta
		}
		came[receiver] = append(came[receiver], e)
		return nil
	})
	if err != nil {
		return unavailable("reading transfers", err)
	}
	for receiver, moved := range came {
		if err := arrive(ctx, tx, receiver, moved); err != nil {
			return unavailable("writing down what has come", err)
		}
	}
	return nil
}

// arrive writes events of units that came into a partition's journal, and what follows from them.
func arrive(ctx context.Context, tx pgx.Tx, partition int, moved []engine.Event) error {
	var epoch int64
	err := tx.QueryRow(ctx, "SELECT coalesce(max(epoch), 0) + 1 FROM epochs WHERE partition = $1", partition).Scan(&epoch)
	if err != nil {
		return err
	}
	entries := []engine.Entry{engine.Arrivals(epoch, moved)}
	derived, err := newRun(entries, nil)
	if err != nil {
		return err
	}
	if err := copyJournal(ctx, tx.Conn(), partition, entries); err != nil {
		return err
	}
	if err := derived.rows.insert(ctx, tx, partition); err != nil {
		return err
	}
	b := &pgx.Batch{}
	b.Queue("INSERT INTO epochs (partition, epoch, last_seq, reason) VALUES ($1, $2, $3, 'units that were under way have come')",
		partition, epoch, len(moved))
	b.Queue("UPDATE checkpoints SET events = events + $2, bytes = bytes + $3 WHERE partition = $1", partition, len(moved), entries[0].Bytes())
	return tx.SendBatch(ctx, b).Close()
}

package persist

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// layout is a number of partitions that the books have, or had. All epochs of a layout, in whatever partition, are greater
// than those of the layouts before: so positions order what happened to a user or a product, though both may have moved to
// other partitions.
type layout struct {
	first      int64 // epoch, which has no events; 0: as the books were founded
	partitions int
	begun      time.Time
}

// layouts are all that the books went through, the one they have last.
type layouts []layout

func readLayouts(ctx context.Context, q querier) (layouts, error) {
	rows, _ := q.Query(ctx, "SELECT epoch, partitions, begun_at FROM layouts ORDER BY epoch") // CollectRows tells the error
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l layout, err error) {
		err = row.Scan(&l.first, &l.partitions, &l.begun)
		return l, err
	})
	if err == nil && len(all) == 0 {
		err = errors.New("the table layouts is empty")
	}
	if err != nil {
		return nil, fmt.Errorf("reading layouts: %w", err)
	}
	return all, nil
}

// now is the layout that the books have.
func (l layouts) now() layout { return l[len(l)-1] }

// begins reports whether a layout that is not the first begins in an epoch.
func (l layouts) begins(epoch int64) bool {
	for _, next := range l[1:] {
		if next.first == epoch {
			return true
		}
	}
	return false
}

// ends are, of each layout, the epoch in which the next one begins.
func (l layouts) ends() []int64 {
	ends := make([]int64, 0, len(l))
	for _, next := range l[1:] {
		ends = append(ends, next.first)
	}
	return append(ends, endOfJournal.Epoch)
}

// within reports whether a time that is so long ago may lie in an earlier layout than the one that the books have.
func (l layouts) within(ago time.Duration) bool {
	return len(l) > 1 && time.Since(l.now().begun) < ago+clockSlack
}

// layOut gives the books another number of partitions. From then on no process sells or writes that knows the number
// before: its epochs have ended. What the journal lacks of them is given up.
func (b *Books) layOut(ctx context.Context, partitions int) error {
	if err := b.nobodySells(ctx); err != nil {
		return err
	}
	var given []Loss
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) (err error) {
		if err := mayLayOut(ctx, tx); err != nil {
			return err
		}
		if given, err = endEpochs(ctx, tx); err != nil {
			return err
		}
		if err := endTransfers(ctx, tx); err != nil {
			return err
		}
		return beginLayout(ctx, tx, partitions)
	})
	if err != nil {
		return err
	}
	for _, l := range given {
		b.tell(l, l.Events)
	}
	b.log.Info("the books have another number of partitions", "partitions", partitions)
	return nil
}

// nobodySells makes sure that no process sells by these books: the Redis at hand is empty, so it would be from another one,
// and the books perhaps lack its last events.
func (b *Books) nobodySells(ctx context.Context) error {
	var alive bool
	if err := b.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM nodes WHERE leased_until > now())").Scan(&alive); err != nil {
		return unavailable("looking for other processes", err)
	}
	if !alive {
		return nil
	}
	token := rand.Text()
	if _, err := b.pool.Exec(ctx, "UPDATE checkpoints SET challenge = $1", token); err != nil {
		return unavailable("asking other processes", err)
	}
	for asked := time.Now(); time.Since(asked) < oldAnswerMax; pause(ctx, challengePause) {
		var answered bool
		err := b.pool.QueryRow(ctx, "SELECT EXISTS (SELECT FROM checkpoints WHERE challenge IS DISTINCT FROM $1)", token).Scan(&answered)
		if err != nil {
			return unavailable("asking other processes", err)
		}
		if answered {
			return refused("other processes sell by these books at this moment, from another Redis: stop them, see to it that " +
				"PostgreSQL has everything (writer lag 0), and restore again")
		}
	}
	return nil
}

// mayLayOut refuses books of which something is not settled that only the layout which they have can settle.
func mayLayOut(ctx context.Context, tx pgx.Tx) error {
	var poisoned, product int64
	err := tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM quarantine), coalesce((SELECT min(p.id) FROM products p JOIN (
			SELECT product_id, sum(delta) AS units FROM stock_ledger WHERE kind = 'restock' AND reason = 'initial stock'
				AND product_id IN (SELECT id FROM products WHERE NOT in_redis) GROUP BY product_id) s ON s.product_id = p.id
		WHERE s.units < p.initial_stock), 0)`).Scan(&poisoned, &product)
	switch {
	case err != nil:
		return unavailable("reading the quarantine", err)
	case poisoned > 0:
		return refused("%d event(s) are in quarantine, and what they did would be left behind: run `stampede rebuild-reports` with a "+
			"version that can derive them, or restore with the number of partitions that the books have", poisoned)
	case product > 0:
		return refused("product %d was created in some partitions only: restore with the number of partitions that the books have, start "+
			"Stampede, which finishes it, and begin again", product)
	}
	return nil
}

// endEpochs ends all epochs where the checkpoints stand, and returns what is lost by that of epochs that had ended further on.
func endEpochs(ctx context.Context, tx pgx.Tx) (lost []Loss, err error) {
	rows, _ := tx.Query(ctx, "SELECT epoch, seq FROM checkpoints ORDER BY partition FOR UPDATE") // CollectRows tells the error
	ends, err := pgx.CollectRows(rows, pgx.RowToStructByPos[engine.Position])
	if err != nil {
		return nil, unavailable("reading the checkpoints", err)
	}
	for partition, at := range ends {
		more, err := cutBack(ctx, tx, partition, at)
		if err != nil {
			return nil, err
		}
		lost = append(lost, more...)
	}
	_, err = tx.Exec(ctx, `UPDATE epochs e SET last_seq = CASE WHEN e.epoch = c.epoch THEN c.seq ELSE 0 END
		FROM checkpoints c WHERE c.partition = e.partition AND e.epoch >= c.epoch`)
	if err != nil {
		return nil, unavailable("ending epochs", err)
	}
	return lost, nil
}

// beginLayout begins one in the epoch behind all others.
func beginLayout(ctx context.Context, tx pgx.Tx, partitions int) error {
	var first int64
	err := tx.QueryRow(ctx, `SELECT 1 + greatest((SELECT max(fence) FROM checkpoints), (SELECT max(epoch) FROM epochs),
		(SELECT max(epoch) FROM layouts))`).Scan(&first)
	if err != nil {
		return unavailable("reading epochs", err)
	}
	b := &pgx.Batch{}
	b.Queue("INSERT INTO checkpoints (partition) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING", partitions)
	b.Queue("INSERT INTO epochs (partition, epoch, last_seq, reason) SELECT partition, $1, 0, $2 FROM checkpoints",
		first, fmt.Sprintf("laid out anew, in %d partition(s)", partitions))
	b.Queue("UPDATE checkpoints SET epoch = $1, seq = 0, fence = $1, challenge = NULL", first)
	// Its orders are later than those of the layouts before, also if a clock of theirs was ahead of the one here.
	b.Queue("INSERT INTO layouts (epoch, partitions, begun_at) SELECT $1, $2, greatest(now(), (SELECT max(updated_at) FROM orders))", first, partitions)
	b.Queue("UPDATE deployment SET partitions = $1", partitions)
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return unavailable("beginning a layout", err)
	}
	return nil
}

// fits refuses a process that was started when the books had another number of partitions.
func (b *Books) fits(ctx context.Context, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
},
) error {
	var partitions int
	if err := q.QueryRow(ctx, selectPartitions).Scan(&partitions); err != nil {
		return unavailable("reading the number of partitions", err)
	}
	if partitions != b.engine.Keys().Partitions() {
		return engine.Outgrown(partitions)
	}
	return nil
}

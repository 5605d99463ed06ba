package persist

import (
	"context"
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
		err = fmt.Errorf("the table layouts is empty")
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
	var given []Loss
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) (err error) {
		given, err = beginLayout(ctx, tx, partitions)
		return err
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

func beginLayout(ctx context.Context, tx pgx.Tx, partitions int) (given []Loss, err error) {
	rows, _ := tx.Query(ctx, "SELECT partition, epoch, seq FROM checkpoints ORDER BY partition FOR UPDATE") // CollectRows tells the error
	type end struct {
		partition int
		at        engine.Position
	}
	ends, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (e end, err error) {
		err = row.Scan(&e.partition, &e.at.Epoch, &e.at.Seq)
		return e, err
	})
	if err != nil {
		return nil, unavailable("reading the checkpoints", err)
	}
	var poisoned, first int64
	err = tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM quarantine), 1 + greatest((SELECT max(fence) FROM checkpoints),
		(SELECT max(epoch) FROM epochs), (SELECT max(epoch) FROM layouts))`).Scan(&poisoned, &first)
	if err != nil {
		return nil, unavailable("reading epochs", err)
	}
	if poisoned > 0 {
		return nil, refused("%d event(s) are in quarantine, and what they did would be left behind: run `stampede rebuild-reports` with a "+
			"version that can derive them, or restore with the number of partitions that the books have", poisoned)
	}
	for _, e := range ends {
		lost, err := cutBack(ctx, tx, e.partition, e.at)
		if err != nil {
			return nil, err
		}
		given = append(given, lost...)
	}
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE epochs e SET last_seq = CASE WHEN e.epoch = c.epoch THEN c.seq ELSE 0 END
		FROM checkpoints c WHERE c.partition = e.partition AND e.epoch >= c.epoch`)
	batch.Queue("INSERT INTO checkpoints (partition) SELECT generate_series(0, $1 - 1) ON CONFLICT DO NOTHING", partitions)
	batch.Queue("INSERT INTO epochs (partition, epoch, last_seq, reason) SELECT partition, $1, 0, $2 FROM checkpoints",
		first, fmt.Sprintf("laid out anew, in %d partition(s)", partitions))
	batch.Queue("UPDATE checkpoints SET epoch = $1, seq = 0, fence = $1, challenge = NULL", first)
	batch.Queue("INSERT INTO layouts (epoch, partitions) VALUES ($1, $2)", first, partitions)
	batch.Queue("UPDATE deployment SET partitions = $1", partitions)
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return nil, unavailable("beginning a layout", err)
	}
	return given, nil
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

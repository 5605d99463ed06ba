package persist

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"stampede/engine"
)

// Loss is a run of events that were acknowledged and are gone for good: neither Redis nor the journal has them.
type Loss struct {
	Partition  int       `json:"partition"`
	Epoch      int64     `json:"epoch"`
	First      int64     `json:"first_seq"`
	Last       int64     `json:"last_seq"`
	Events     int64     `json:"events"`
	Beyond     int64     `json:"beyond_promise"` // of them, those that the durability of that time had promised to keep
	Durability string    `json:"durability"`     // see package engine
	At         time.Time `json:"at"`             // when it was found
	Copy       bool      `json:"copy,omitempty"` // on a copy of the Redis that sold: the seqs are the copy's, and some of the first events may be in the original
}

// String is the loss on a line.
func (l *Loss) String() string {
	if l.Copy {
		return fmt.Sprintf("lost: partition %d, epoch %d: at most %d acknowledged event(s), seq %d to %d of a copy of the Redis that sold, found %s",
			l.Partition, l.Epoch, l.Events, l.First, l.Last, l.At.UTC().Format(time.RFC3339))
	}
	return fmt.Sprintf("lost: partition %d, epoch %d: %d acknowledged event(s), seq %d to %d, found %s; %d of them beyond what durability %s may lose",
		l.Partition, l.Epoch, l.Events, l.First, l.Last, l.At.UTC().Format(time.RFC3339), l.Beyond, l.Durability)
}

func newLostCounter() prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{
		Name: "stampede_lost_events_total",
		Help: "Events that were acknowledged and are gone for good, as this process found out. Worry at any: the log and `stampede audit` name them.",
	})
}

// LostCounter counts the lost events that this process was the first to know of.
func (b *Books) LostCounter() prometheus.Collector { return b.lost }

// The rows are merged: of several engines each knows what it acknowledged itself.
const insertLosses = `INSERT INTO losses (partition, epoch, ended_seq, acknowledged_seq, beyond_seq, durability, holder) `

const mergeLosses = ` ON CONFLICT (partition, epoch) DO UPDATE SET ended_seq = excluded.ended_seq,
	acknowledged_seq = greatest(losses.acknowledged_seq, excluded.acknowledged_seq),
	beyond_seq = greatest(losses.beyond_seq, excluded.beyond_seq)`

// Ended compares where an epoch ended with what an engine, named holder, had acknowledged in it. What lies between is
// lost: it is written down, logged and counted. Safe to repeat.
func (b *Books) Ended(ctx context.Context, partition int, a engine.Acknowledged, holder string) error {
	if a.Copy {
		return b.endedOnCopy(ctx, partition, a, holder)
	}
	var end, fresh int64
	beyond := int64(0)
	err := pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		fresh = 0
		var last *int64
		// Locked, so that of two engines the second sees what the first has written.
		err := tx.QueryRow(ctx, "SELECT last_seq FROM epochs WHERE partition = $1 AND epoch = $2 FOR UPDATE", partition, a.Epoch).Scan(&last)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // of other books
		}
		if err == nil && last == nil {
			err = fmt.Errorf("epoch %d has no end yet", a.Epoch)
		}
		if err != nil || a.Seq <= *last {
			return err
		}
		end = *last
		beyond = max(end, min(a.Settled, a.Seq))
		known := end
		err = tx.QueryRow(ctx, "SELECT coalesce(max(acknowledged_seq), $3) FROM losses WHERE partition = $1 AND epoch = $2", partition, a.Epoch, end).Scan(&known)
		if err != nil {
			return err
		}
		fresh = a.Seq - max(known, end)
		_, err = tx.Exec(ctx, insertLosses+"VALUES ($1, $2, $3, $4, $5, $6, $7)"+mergeLosses,
			partition, a.Epoch, end, a.Seq, beyond, a.Durability, holder)
		return err
	})
	if err != nil {
		return unavailable("comparing what was acknowledged", err)
	}
	if fresh > 0 {
		b.tell(Loss{
			Partition: partition, Epoch: a.Epoch, First: end + 1, Last: a.Seq, Events: a.Seq - end, Beyond: beyond - end, Durability: a.Durability,
		}, fresh)
	}
	return nil
}

// insertCopyLoss merges what is known: a process may find out more than once.
const insertCopyLoss = `INSERT INTO copy_losses (partition, epoch, after_seq, acknowledged_seq, durability, holder) VALUES ($1, $2, $3, $4, $5, $6)
	ON CONFLICT (partition, epoch, holder) DO UPDATE SET after_seq = least(copy_losses.after_seq, excluded.after_seq),
		acknowledged_seq = greatest(copy_losses.acknowledged_seq, excluded.acknowledged_seq)`

// endedOnCopy writes down what an engine acknowledged on a copy of the Redis that sells.
func (b *Books) endedOnCopy(ctx context.Context, partition int, a engine.Acknowledged, holder string) error {
	var err error
	if a.Agreed, err = b.agreed(ctx, partition, a); err != nil || a.Seq <= a.Agreed {
		return err
	}
	if _, err := b.pool.Exec(ctx, insertCopyLoss, partition, a.Epoch, a.Agreed, a.Seq, a.Durability, holder); err != nil {
		return unavailable("writing down what is lost", err)
	}
	b.tell(Loss{
		Partition: partition, Epoch: a.Epoch, First: a.Agreed + 1, Last: a.Seq, Events: a.Seq - a.Agreed, Durability: a.Durability, Copy: true,
	}, a.Seq-a.Agreed)
	return nil
}

// agreed returns up to which seq the books hold the same events as the copy. They may not have come that far yet.
func (b *Books) agreed(ctx context.Context, partition int, a engine.Acknowledged) (int64, error) {
	same := a.Agreed
	for same < a.Seq {
		written, err := journal(ctx, b.pool, partition, engine.Position{Epoch: a.Epoch, Seq: same}, replayEntries)
		if err != nil {
			return 0, unavailable("comparing with the journal", err)
		}
		held, err := b.engine.EntriesFrom(ctx, partition, engine.Position{Epoch: a.Epoch, Seq: same + 1}, replayEntries)
		if err != nil {
			return 0, err
		}
		n := 0
		for n < min(len(written), len(held)) && written[n].Last.Epoch == a.Epoch && written[n].Equal(&held[n]) {
			n++
		}
		if n > 0 {
			same = written[n-1].Last.Seq
		}
		if n < replayEntries {
			break
		}
	}
	return same, nil
}

// tell logs a loss and counts what is new of it.
func (b *Books) tell(l Loss, fresh int64) {
	b.lost.Add(float64(fresh))
	b.log.Error("acknowledged events are lost", "partition", l.Partition, "epoch", l.Epoch, "first_seq", l.First, "last_seq", l.Last,
		"events", l.Events, "beyond_promise", l.Beyond, "durability", l.Durability, "on_a_copy", l.Copy)
}

// tellLost logs and counts what a repair had to give up, once the books have it.
func (r *repair) tellLost() {
	for _, l := range r.lost {
		r.books.tell(l, l.Events)
	}
}

// cutBack writes down what epochs lose that had ended further on, before a Redis came back that was older than they: the
// engines of that time have forgotten what they acknowledged. last is where the epochs end now.
func cutBack(ctx context.Context, tx pgx.Tx, partition int, last engine.Position) ([]Loss, error) {
	rows, _ := tx.Query(ctx, `SELECT partition, epoch, CASE WHEN epoch = $2 THEN $3::bigint ELSE 0 END, last_seq
		FROM epochs WHERE partition = $1 AND epoch >= $2 AND last_seq > CASE WHEN epoch = $2 THEN $3::bigint ELSE 0 END
		ORDER BY epoch`, partition, last.Epoch, last.Seq) // CollectRows tells the error
	lost, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Loss, err error) {
		var end int64
		err = row.Scan(&l.Partition, &l.Epoch, &end, &l.Last)
		l.First, l.Events, l.Durability = end+1, l.Last-end, engine.DurabilityUnknown
		return l, err
	})
	if err != nil {
		return nil, unavailable("reading the ends of epochs", err)
	}
	for _, l := range lost {
		_, err := tx.Exec(ctx, insertLosses+"VALUES ($1, $2, $3, $4, $3, $5, 'the books')"+mergeLosses,
			l.Partition, l.Epoch, l.First-1, l.Last, l.Durability)
		if err != nil {
			return nil, unavailable("writing down what is lost", err)
		}
	}
	return lost, nil
}

// lossesMax bounds what Losses lists.
const lossesMax = 10_000

// Losses lists what was acknowledged and is gone for good, oldest first. What an older Redis brought back is not.
func (b *Books) Losses(ctx context.Context) ([]Loss, error) {
	rows, _ := b.pool.Query(ctx, `SELECT l.partition, l.epoch, e.last_seq, l.acknowledged_seq, l.beyond_seq, l.durability, l.at, false
		FROM losses l JOIN epochs e USING (partition, epoch) WHERE l.acknowledged_seq > e.last_seq
		UNION ALL SELECT partition, epoch, min(after_seq), max(acknowledged_seq), 0, min(durability), min(at), true
		FROM copy_losses GROUP BY partition, epoch ORDER BY 7, 1, 2 LIMIT $1`, lossesMax) // ditto
	lost, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l Loss, err error) {
		var end, beyond int64
		err = row.Scan(&l.Partition, &l.Epoch, &end, &l.Last, &beyond, &l.Durability, &l.At, &l.Copy)
		l.First, l.Events, l.Beyond = end+1, l.Last-end, max(0, beyond-end)
		return l, err
	})
	if err != nil {
		return nil, unavailable("reading losses", err)
	}
	return lost, nil
}

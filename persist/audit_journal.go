package persist

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// counts are the rows that the journal accounts for.
type counts struct {
	orders, items, history, balances, stocks, carts, cartItems int64
}

func (a *audit) journals(ctx context.Context) error {
	for p := range a.keys.Partitions() {
		if err := a.journal(ctx, p); err != nil {
			return err
		}
		if err := a.stream(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// journal walks over a partition's journal: dense, readable, ending at the checkpoint, and the source of every row.
func (a *audit) journal(ctx context.Context, p int) error {
	to, err := readCheckpoint(ctx, a.snapshot, p, "")
	if err != nil {
		return err
	}
	ends, err := a.epochEnds(ctx, p)
	if err != nil {
		return err
	}
	var walked checkpoint
	for {
		entries, err := journal(ctx, a.snapshot, p, walked.Position, auditChunk/4)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		before := walked.events
		for i := range entries {
			a.follows(p, walked.Position, &entries[i], ends)
			walked = walked.behind(entries[i : i+1])
		}
		if err := a.sources(ctx, p, entries, before); err != nil {
			return err
		}
	}
	a.cartsLeftOpen()
	if walked.Position != to.Position || walked.events != to.events || walked.bytes != to.bytes {
		a.violated("checkpoint", fmt.Sprintf("checkpoints partition=%d", p),
			"stands at %v with %d events and %d bytes, the journal ends at %v with %d events and %d bytes",
			to.Position, to.events, to.bytes, walked.Position, walked.events, walked.bytes)
	}
	a.sum.Events += walked.events
	return nil
}

// epochEnds reads where each closed epoch ended.
func (a *audit) epochEnds(ctx context.Context, p int) (map[int64]int64, error) {
	rows, err := a.snapshot.Query(ctx, "SELECT epoch, last_seq FROM epochs WHERE partition = $1 AND last_seq IS NOT NULL", p)
	if err != nil {
		return nil, fmt.Errorf("reading epochs: %w", err)
	}
	ends := map[int64]int64{}
	var epoch, end int64
	_, err = pgx.ForEachRow(rows, []any{&epoch, &end}, func() error {
		ends[epoch] = end
		return nil
	})
	return ends, err
}

// follows holds an entry against the one before it.
func (a *audit) follows(p int, before engine.Position, e *engine.Entry, ends map[int64]int64) {
	row := fmt.Sprintf("events partition=%d epoch=%d last_seq=%d", p, e.Last.Epoch, e.Last.Seq)
	want := before.Seq + 1
	if e.Last.Epoch != before.Epoch {
		want = 1
		for epoch := max(before.Epoch, 1); epoch < e.Last.Epoch; epoch++ {
			end, closed := ends[epoch]
			stood := int64(0)
			if epoch == before.Epoch {
				stood = before.Seq
			}
			if !closed || end != stood {
				a.violated("dense events", row, "epoch %d ends at %d in the journal, at %d by the table epochs", epoch, stood, end)
			}
		}
	}
	if e.First != want {
		a.violated("dense events", row, "begins with seq %d, %d expected after %v", e.First, want, before)
	}
}

// sources compares the rows that entries account for with those that stand in the tables, and looks for the orders in
// Redis. before is how many events of the partition precede the entries.
func (a *audit) sources(ctx context.Context, p int, entries []engine.Entry, before int64) error {
	want, err := derive(entries)
	all := err == nil
	if !all {
		// The walk goes on without those that cannot be read.
		readable := entries[:0:0]
		for i := range entries {
			if _, err := derive(entries[i : i+1]); err != nil {
				a.violated("readable events", fmt.Sprintf("events partition=%d epoch=%d last_seq=%d", p, entries[i].Last.Epoch, entries[i].Last.Seq), "%v", err)
				continue
			}
			readable = append(readable, entries[i])
		}
		if want, err = derive(readable); err != nil {
			return err
		}
	}
	a.expected.orders += int64(len(want.orders.id))
	a.expected.items += int64(len(want.items.order))
	a.expected.history += int64(len(want.history.order))
	a.expected.balances += int64(len(want.balances.seq))
	a.expected.stocks += int64(len(want.stocks.seq))
	first := engine.Position{Epoch: entries[0].Last.Epoch, Seq: entries[0].First}
	last := entries[len(entries)-1].Last
	for _, c := range want.comparisons(p, first, last) {
		if err := a.each(ctx, "tables follow the journal", c.sql, c.args...); err != nil {
			return err
		}
	}
	if err := a.cartRows(ctx, want.cartOf, last); err != nil {
		return err
	}
	if !all {
		return nil // the numbers of events behind the unreadable ones are not known
	}
	return a.recordsOf(ctx, p, want.ended, before)
}

// stream walks over what the stream still holds: dense, and up to the checkpoint the same as the journal.
func (a *audit) stream(ctx context.Context, p int) error {
	to, err := readCheckpoint(ctx, a.snapshot, p, "")
	if err != nil {
		return err
	}
	var before *engine.Entry
	for from := "-"; ; {
		messages, err := a.redis.XRangeN(ctx, a.keys.Events(p), from, "+", auditChunk/4).Result()
		if err != nil {
			return fmt.Errorf("reading the stream: %w", err)
		}
		if len(messages) == 0 {
			return nil
		}
		if before, err = a.streamEntries(ctx, p, to, before, messages); err != nil {
			return err
		}
		from = "(" + messages[len(messages)-1].ID
	}
}

func (a *audit) streamEntries(ctx context.Context, p int, to checkpoint, before *engine.Entry, messages []redis.XMessage) (*engine.Entry, error) {
	for _, m := range messages {
		subject := a.keys.Events(p) + " " + m.ID
		e, err := engine.ParseEntry(m.ID, m.Values)
		if err != nil {
			a.violated("readable events", subject, "%v", err)
			continue
		}
		if before != nil && before.Last.Epoch == e.Last.Epoch && e.First != before.Last.Seq+1 {
			// The writer may have trimmed the stream up to here since the entry before was read.
			left, err := a.redis.XRange(ctx, a.keys.Events(p), before.Last.String(), before.Last.String()).Result()
			if err != nil {
				return nil, fmt.Errorf("reading the stream: %w", err)
			}
			if len(left) > 0 {
				a.violated("dense events", subject, "begins with seq %d, %d expected", e.First, before.Last.Seq+1)
			}
		}
		if e.Last.Compare(to.Position) <= 0 {
			known, err := journal(ctx, a.snapshot, p, engine.Position{Epoch: e.Last.Epoch, Seq: e.Last.Seq - 1}, 1)
			if err != nil {
				return nil, err
			}
			if len(known) == 0 || !known[0].Equal(&e) {
				a.violated("journal = stream", subject, "the journal holds no row or another one for this entry")
			}
		}
		before = &e
	}
	return before, nil
}

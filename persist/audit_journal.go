package persist

import (
	"context"
	"fmt"
	"sort"

	"stampede/engine"
)

// counts are the rows that the journal accounts for, or that the tables have.
type counts struct {
	orders, items, history, balances, stocks, carts, cartItems, hours int64
}

// walkPlans has rows found by key: the planner would rather read a table of some million rows as a whole for some thousand
// of them.
const walkPlans = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"

func (a *audit) journals(ctx context.Context) error {
	if _, err := a.snapshot.Exec(ctx, walkPlans); err != nil {
		return err
	}
	for p := range a.keys.Partitions() {
		if err := a.journal(ctx, p); err != nil {
			return err
		}
		if err := a.stream(ctx, p); err != nil {
			return err
		}
		if err := a.counters(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

const (
	walkEntriesMax = 512  // journal rows read together
	walkEvents     = 4096 // events that are meant to be read together
)

// journal walks over a partition's journal: dense, readable, ending at the checkpoint, and the source of every row.
func (a *audit) journal(ctx context.Context, p int) error {
	to, err := readCheckpoint(ctx, a.snapshot, p, "")
	if err != nil {
		return err
	}
	without, err := a.quarantine(ctx, p)
	if err != nil {
		return err
	}
	var walked checkpoint
	ends := map[int64]int64{} // by epoch
	for n := 64; ; {
		entries, err := journal(ctx, a.snapshot, p, walked.Position, n)
		if err != nil {
			return err
		}
		if len(entries) == 0 {
			break
		}
		before := walked.events
		for i := range entries {
			a.follows(p, walked.Position, &entries[i])
			walked = walked.behind(entries[i : i+1])
			ends[walked.Epoch] = walked.Seq
		}
		n = int(min(walkEntriesMax, max(1, int64(len(entries))*walkEvents/(walked.events-before))))
		for len(entries) > 0 {
			some := cut(entries)
			if before, err = a.sources(ctx, p, entries[:some], without, before); err != nil {
				return err
			}
			entries = entries[some:]
		}
		a.progress(Progress{"journal", walked.events, to.events})
	}
	a.cartsLeftOpen()
	if walked.Position != to.Position || walked.events != to.events || walked.bytes != to.bytes {
		a.violated(checkCheckpoint, fmt.Sprintf("checkpoints partition=%d", p),
			"stands at %v with %d events and %d bytes, the journal ends at %v with %d events and %d bytes",
			to.Position, to.events, to.bytes, walked.Position, walked.events, walked.bytes)
	}
	a.looked(checkCheckpoint, 1)
	a.sum.Events += walked.events
	return a.epochs(ctx, p, to, ends)
}

// quarantine names the events of which nothing was derived, and returns them: their rows are not missed one by one.
func (a *audit) quarantine(ctx context.Context, p int) (positions, error) {
	err := a.each(ctx, checkDerived, `SELECT 'quarantine partition=' || partition || ' epoch=' || epoch || ' seq=' || seq,
		'nothing is derived of this event: ' || reason FROM quarantine WHERE partition = $1 ORDER BY epoch, seq`, p)
	if err != nil {
		return nil, err
	}
	return inQuarantine(ctx, a.snapshot, p)
}

// follows holds an entry against the one before it.
func (a *audit) follows(p int, before engine.Position, e *engine.Entry) {
	want := before.Seq + 1
	if e.Last.Epoch != before.Epoch {
		want = 1
	}
	if e.First != want {
		a.violated(checkDense, fmt.Sprintf("events partition=%d epoch=%d last_seq=%d", p, e.Last.Epoch, e.Last.Seq),
			"begins with seq %d, %d expected after %v", e.First, want, before)
	}
}

// sources compares the rows that entries of an epoch account for with those that stand in the tables, and looks in Redis
// for the orders and the idempotency records. before is how many events of the partition precede the entries; it returns
// how many precede what follows them.
func (a *audit) sources(ctx context.Context, p int, entries []engine.Entry, without positions, before int64) (int64, error) {
	r, err := newRun(entries, without)
	if err != nil {
		return before, err
	}
	first := engine.Position{Epoch: entries[0].Last.Epoch, Seq: entries[0].First}
	last := entries[len(entries)-1].Last
	size := r.size()
	a.looked(checkDense, int64(len(entries)))
	a.looked(checkReadable, size)
	a.looked(checkDerived, size)
	for _, bad := range r.poison {
		i := sort.Search(len(entries), func(i int) bool { return entries[i].Last.Seq >= bad.at.Seq })
		a.violated(checkReadable, fmt.Sprintf("events partition=%d epoch=%d last_seq=%d", p, bad.at.Epoch, entries[i].Last.Seq), "%s", bad.reason)
	}
	if err := a.compareRows(ctx, p, r.rows, first, last); err != nil {
		return before, err
	}
	if err := a.cartRows(ctx, r.rows.cartOf, last); err != nil {
		return before, err
	}
	if err := a.recordsOf(ctx, p, r.rows.ended, before); err != nil {
		return before, err
	}
	return before + size, a.answers(ctx, p, r.events)
}

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
	ends, err := readCheckpoints(ctx, a.snapshot)
	if err != nil {
		return err
	}
	walks := make([]walk, len(ends))
	for p, to := range ends {
		walks[p] = walk{partition: p, to: to, ends: map[int64]int64{}}
		if walks[p].without, err = a.quarantine(ctx, p); err != nil {
			return err
		}
	}
	// Layout by layout: from one to the next a user may have moved to any other partition.
	for _, until := range a.layouts.ends() {
		for p := range walks {
			if err := a.journal(ctx, &walks[p], until); err != nil {
				return err
			}
		}
	}
	a.cartsLeftOpen()
	for p := range walks {
		if err := a.walked(ctx, &walks[p]); err != nil {
			return err
		}
	}
	return nil
}

// walk is one through a partition's journal.
type walk struct {
	partition int
	to        checkpoint // where it should end
	at        checkpoint // where it is
	without   positions
	ends      map[int64]int64 // by epoch
}

// walked compares where the journal of a partition ended with the checkpoint and with Redis.
func (a *audit) walked(ctx context.Context, w *walk) error {
	p, to, at := w.partition, w.to, w.at
	begins := to.Seq == 0 && a.layouts.begins(to.Epoch) && at.Epoch < to.Epoch
	if (at.Position != to.Position && !begins) || at.events != to.events || at.bytes != to.bytes {
		a.violated(checkCheckpoint, fmt.Sprintf("checkpoints partition=%d", p),
			"stands at %v with %d events and %d bytes, the journal ends at %v with %d events and %d bytes",
			to.Position, to.events, to.bytes, at.Position, at.events, at.bytes)
	}
	a.looked(checkCheckpoint, 1)
	a.sum.Events += at.events
	if err := a.epochs(ctx, p, to, w.ends); err != nil {
		return err
	}
	if p >= a.keys.Partitions() {
		return nil // of an earlier layout
	}
	if err := a.stream(ctx, p); err != nil {
		return err
	}
	return a.counters(ctx, p)
}

const (
	walkEntriesMax = 512  // journal rows read together
	walkEvents     = 4096 // events that are meant to be read together
)

// journal walks over a partition's journal up to an epoch: dense, readable, and the source of every row.
func (a *audit) journal(ctx context.Context, w *walk, until int64) error {
	for n := 64; ; {
		entries, err := journal(ctx, a.snapshot, w.partition, w.at.Position, n)
		if err != nil {
			return err
		}
		if entries = before(entries, until); len(entries) == 0 {
			return nil
		}
		events := w.at.events
		for i := range entries {
			a.follows(w.partition, w.at.Position, &entries[i])
			w.at = w.at.behind(entries[i : i+1])
			w.ends[w.at.Epoch] = w.at.Seq
		}
		n = int(min(walkEntriesMax, max(1, int64(len(entries))*walkEvents/(w.at.events-events))))
		for len(entries) > 0 {
			some := cut(entries)
			if events, err = a.sources(ctx, w.partition, entries[:some], w.without, events); err != nil {
				return err
			}
			entries = entries[some:]
		}
		a.progress(Progress{"journal", w.at.events, w.to.events})
	}
}

// before returns the entries before an epoch.
func before(entries []engine.Entry, epoch int64) []engine.Entry {
	n := len(entries)
	for n > 0 && entries[n-1].Last.Epoch >= epoch {
		n--
	}
	return entries[:n]
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
	a.lentOrRecalled(p, r.events)
	if err := a.compareRows(ctx, p, r.rows, first, last); err != nil {
		return before, err
	}
	if err := a.cartRows(ctx, r.rows.cartOf, last); err != nil {
		return before, err
	}
	if err := a.recordsOf(ctx, r.rows.ended, before); err != nil {
		return before, err
	}
	return before + size, a.answers(ctx, r.events)
}

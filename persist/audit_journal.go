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
	orders, items, history, balances, stocks int64
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
		for i := range entries {
			a.follows(p, walked.Position, &entries[i], ends)
			walked = walked.behind(entries[i : i+1])
		}
		if err := a.sources(ctx, p, entries); err != nil {
			return err
		}
	}
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

// sources compares the rows that entries account for with those that stand in the tables and with the orders in
// Redis.
func (a *audit) sources(ctx context.Context, p int, entries []engine.Entry) error {
	readable := entries[:0:0]
	for i := range entries {
		if _, err := entries[i].Events(); err != nil {
			a.violated("readable events", fmt.Sprintf("events partition=%d epoch=%d last_seq=%d", p, entries[i].Last.Epoch, entries[i].Last.Seq), "%v", err)
			continue
		}
		readable = append(readable, entries[i])
	}
	want, err := derive(readable)
	if err != nil {
		return err
	}
	a.expected.orders += int64(len(want.orders.id))
	a.expected.items += int64(len(want.items.order))
	a.expected.history += int64(len(want.history.order))
	a.expected.balances += int64(len(want.balances.seq))
	a.expected.stocks += int64(len(want.stocks.seq))
	first := engine.Position{Epoch: entries[0].Last.Epoch, Seq: entries[0].First}
	for _, c := range want.comparisons(p, first, entries[len(entries)-1].Last) {
		if err := a.compare(ctx, c); err != nil {
			return err
		}
	}
	return a.orderRecords(ctx, p, readable)
}

// comparison is a query that returns subject and detail of each row that differs.
type comparison struct {
	sql  string
	args []any
}

// comparisons are those of the rows of a run of events, from the first position to the last.
func (r *rows) comparisons(p int, first, last engine.Position) []comparison {
	o, i, h, b, s := &r.orders, &r.items, &r.history, &r.balances, &r.stocks
	run := []any{first.Epoch, first.Seq, last.Epoch, last.Seq}
	return []comparison{
		{compareOrders, []any{o.id, o.user, o.total, o.status, o.created, o.updated}},
		{compareItems, []any{i.order, i.product, i.quantity, i.price}},
		{compareHistory, []any{h.order, h.step, h.status, h.reason, h.at}},
		{compareBalances, append([]any{p, b.epoch, b.seq, b.user, b.amount, b.after, b.ref, b.kind, b.at}, run...)},
		{compareStocks, append([]any{p, s.epoch, s.seq, s.product, s.delta, s.after, s.order, s.kind, s.reason, s.at}, run...)},
	}
}

// Each takes the arrays of its insert and joins them with the rows that stand in their place.
const (
	compareOrders = `SELECT 'orders id=' || coalesce(w.id, t.id), 'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[], $6::timestamptz[])
			AS w(id, user_id, total_price, status, created_at, updated_at)
		FULL JOIN (SELECT id, user_id, total_price, status, created_at, updated_at FROM orders WHERE id = ANY($1)) t USING (id)
		WHERE (w.id, w.user_id, w.total_price, w.status, w.created_at, w.updated_at)
			IS DISTINCT FROM (t.id, t.user_id, t.total_price, t.status, t.created_at, t.updated_at)`
	compareItems = `SELECT 'order_items order_id=' || coalesce(w.order_id, t.order_id) || ' product_id=' || coalesce(w.product_id, t.product_id),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) AS w(order_id, product_id, quantity, price)
		FULL JOIN (SELECT * FROM order_items WHERE order_id = ANY($1)) t USING (order_id, product_id)
		WHERE (w.order_id, w.quantity, w.price) IS DISTINCT FROM (t.order_id, t.quantity, t.price)`
	compareHistory = `SELECT 'order_history order_id=' || coalesce(w.order_id, t.order_id) || ' step=' || coalesce(w.step, t.step),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($1::bigint[], $2::smallint[], $3::text[], $4::text[], $5::timestamptz[]) AS w(order_id, step, status, reason, at)
		FULL JOIN (SELECT * FROM order_history WHERE order_id = ANY($1)) t USING (order_id, step)
		WHERE (w.order_id, w.status, w.reason, w.at) IS DISTINCT FROM (t.order_id, t.status, t.reason, t.at)`
	compareBalances = `SELECT 'balance_ledger partition=' || $1::smallint || ' epoch=' || coalesce(w.epoch, t.epoch) || ' seq=' || coalesce(w.seq, t.seq),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::timestamptz[])
			AS w(epoch, seq, user_id, amount, balance_after, ref_id, kind, at)
		FULL JOIN (SELECT * FROM balance_ledger WHERE partition = $1::smallint
			AND (epoch, seq) BETWEEN ($10::bigint, $11::bigint) AND ($12::bigint, $13::bigint)) t USING (epoch, seq)
		WHERE (w.user_id, w.amount, w.balance_after, w.ref_id, w.kind, w.at)
			IS DISTINCT FROM (t.user_id, t.amount, t.balance_after, t.ref_id, t.kind, t.at)`
	compareStocks = `SELECT 'stock_ledger partition=' || $1::smallint || ' epoch=' || coalesce(w.epoch, t.epoch)
				|| ' seq=' || coalesce(w.seq, t.seq) || ' product_id=' || coalesce(w.product_id, t.product_id),
			'is ' || coalesce(t::text, 'missing') || ', the journal says ' || coalesce(w::text, 'nothing')
		FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::timestamptz[])
			AS w(epoch, seq, product_id, delta, stock_after, order_id, kind, reason, at)
		FULL JOIN (SELECT * FROM stock_ledger WHERE partition = $1::smallint
			AND (epoch, seq) BETWEEN ($11::bigint, $12::bigint) AND ($13::bigint, $14::bigint)) t USING (epoch, seq, product_id)
		WHERE (w.delta, w.stock_after, w.order_id, w.kind, w.reason, w.at)
			IS DISTINCT FROM (t.delta, t.stock_after, t.order_id, t.kind, t.reason, t.at)`
)

func (a *audit) compare(ctx context.Context, c comparison) error {
	return a.each(ctx, "tables follow the journal", c.sql, c.args...)
}

// each reports every row of a query that returns subject and detail.
func (a *audit) each(ctx context.Context, check, sql string, args ...any) error {
	rows, err := a.snapshot.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("checking %s: %w", check, err)
	}
	var subject, detail string
	_, err = pgx.ForEachRow(rows, []any{&subject, &detail}, func() error {
		a.violated(check, subject, "%s", detail)
		return nil
	})
	if err != nil {
		return fmt.Errorf("checking %s: %w", check, err)
	}
	return nil
}

// orderRecords compares the orders that entries placed with their records in Redis.
func (a *audit) orderRecords(ctx context.Context, p int, entries []engine.Entry) error {
	var want []engine.Order
	for i := range entries {
		events, err := entries[i].Events()
		if err != nil {
			return err // derive has read them before
		}
		for j := range events {
			if events[j].Kind == engine.Ordered {
				want = append(want, events[j].Order())
			}
		}
	}
	for from := 0; from < len(want); from += auditChunk {
		chunk := want[from:min(from+auditChunk, len(want))]
		keys := make([]string, len(chunk))
		for i := range chunk {
			keys[i] = a.keys.Order(p, chunk[i].ID)
		}
		records, err := a.redis.MGet(ctx, keys...).Result()
		if err != nil {
			return fmt.Errorf("reading orders from Redis: %w", err)
		}
		for i, record := range records {
			a.orderRecord(keys[i], &chunk[i], record)
		}
	}
	return nil
}

func (a *audit) orderRecord(key string, want *engine.Order, record any) {
	text, found := record.(string)
	if !found {
		a.violated("orders in Redis", key, "is missing")
		return
	}
	if got, err := engine.DecodeOrder(want.ID, text); err != nil {
		a.violated("orders in Redis", key, "%v", err)
	} else if !got.Equal(want) {
		a.violated("orders in Redis", key, "is %+v, the journal says %+v", got, *want)
	}
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
			a.violated("dense events", subject, "begins with seq %d, %d expected", e.First, before.Last.Seq+1)
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

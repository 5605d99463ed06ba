package persist

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// recordsOf looks in Redis for the orders that ended in a run of the journal: behind the mark up to which Redis has let
// ended orders go they must stand, before it they must be gone, unless they took a step since. What the records say is
// compared by records. before is how many events precede the run.
func (a *audit) recordsOf(ctx context.Context, p int, ended []endedOrder, before int64) error {
	for from := 0; from < len(ended); from += auditChunk {
		chunk := ended[from:min(from+auditChunk, len(ended))]
		keys := make([]string, len(chunk))
		for i, o := range chunk {
			keys[i] = a.keys.Order(p, o.OrderID)
		}
		found, at, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		for i, o := range chunk {
			record, stands := found[i].(string)
			number := before + o.nth
			if !stands && number > at.letGo {
				a.violated("orders in Redis", keys[i], "is missing: event %v, number %d, ended it, and Redis let go those up to number %d", o.at, number, at.letGo)
			}
			if stands && number <= at.letGo {
				if order, err := engine.DecodeOrder(o.OrderID, record); err == nil && order.Status == o.Status {
					a.violated("orders in Redis", keys[i], "still stands: event %v, number %d, ended it, and Redis let go those up to number %d", o.at, number, at.letGo)
				}
			}
		}
	}
	return nil
}

// An order takes at most two steps after the first: Redis cannot be found behind the books more often.
const auditRounds = 4

// records compares orders that stand in Redis with the books. Where they differ the books are asked again once they hold
// what Redis held; an order that has taken a step meanwhile is looked at again.
func (a *audit) records(ctx context.Context, p int, ids []int64) error {
	for round := 1; len(ids) > 0; round++ {
		keys := make([]string, len(ids))
		for i, id := range ids {
			keys[i] = a.keys.Order(p, id)
		}
		found, at, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		held := map[int64]engine.Order{}
		for i, id := range ids {
			record, stands := found[i].(string)
			if !stands {
				continue // it was let go meanwhile; recordsOf finds those that are missing
			}
			if held[id], err = engine.DecodeOrder(id, record); err != nil {
				a.violated("orders in Redis", keys[i], "%v", err)
				delete(held, id)
			}
		}
		if ids, err = a.recordsDiffer(ctx, p, held, at, round); err != nil {
			return err
		}
	}
	return nil
}

// recordsDiffer reports the orders that are not as the books have them, and returns those of which that cannot be told.
func (a *audit) recordsDiffer(ctx context.Context, p int, held map[int64]engine.Order, at meta, round int) (again []int64, err error) {
	for _, waited := range []bool{false, true} {
		if len(held) == 0 {
			return nil, nil
		}
		if waited {
			if err := a.passed(ctx, p, at.Mark); err != nil {
				return nil, err
			}
		}
		ids := make([]int64, 0, len(held))
		for id := range held {
			ids = append(ids, id)
		}
		// Outside the snapshot, which may be older than what Redis held.
		orders, err := collectOrders(ctx, a.books.pool, " WHERE o.id = ANY($1)", ids)
		if err != nil {
			return nil, fmt.Errorf("reading orders: %w", err)
		}
		again = again[:0]
		known := map[int64]bool{}
		for i := range orders {
			booked := &orders[i]
			known[booked.ID] = true
			record := held[booked.ID]
			switch {
			case record.Equal(booked) && a.keys.OfUser(booked.UserID) == p:
				delete(held, booked.ID)
			case waited && round < auditRounds && len(booked.History) > len(record.History) && record.Equal(upTo(booked, len(record.History))):
				again = append(again, booked.ID)
			case waited:
				a.violated("orders in Redis", a.keys.Order(p, booked.ID), "is %+v, the books say %+v", record, *booked)
			}
		}
		for id := range held {
			if waited && !known[id] {
				a.violated("orders in Redis", a.keys.Order(p, id), "stands there, the books know no such order")
			}
		}
	}
	return again, nil
}

// upTo is an order as it was after some steps.
func upTo(o *engine.Order, steps int) *engine.Order {
	before := *o
	before.History = o.History[:steps]
	if steps > 0 {
		before.Status = before.History[steps-1].Status
	}
	return &before
}

// holds compares the unpaid orders of the books with those of which Redis holds the stock, both ways. A hold that is
// overdue is no violation: it ends as soon as an engine runs, and whether one runs the audit cannot know.
func (a *audit) holds(ctx context.Context) error {
	for after := int64(math.MinInt64); ; {
		orders, err := collectOrders(ctx, a.snapshot, " WHERE o.status = 'PENDING' AND o.id > $1 ORDER BY o.id LIMIT $2", after, auditChunk)
		if err != nil {
			return fmt.Errorf("reading unpaid orders: %w", err)
		}
		if len(orders) == 0 {
			break
		}
		after = orders[len(orders)-1].ID
		byPartition := make([][]engine.Order, a.keys.Partitions())
		for _, o := range orders {
			p := a.keys.OfUser(o.UserID)
			byPartition[p] = append(byPartition[p], o)
		}
		for p, part := range byPartition {
			if err := a.areHeld(ctx, p, part); err != nil {
				return err
			}
		}
	}
	for p := range a.keys.Partitions() {
		if err := a.mayHold(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// areHeld makes sure that Redis has the record and the hold of each unpaid order.
func (a *audit) areHeld(ctx context.Context, p int, orders []engine.Order) error {
	if len(orders) == 0 {
		return nil
	}
	var deadlines *redis.SliceCmd
	var records *redis.SliceCmd
	keys, command := make([]string, len(orders)), []any{"zmscore", a.keys.Holds(p)}
	for i := range orders {
		keys[i] = a.keys.Order(p, orders[i].ID)
		command = append(command, holdMember(orders[i].ID))
	}
	at, err := a.at(ctx, p, func(pipe redis.Pipeliner) {
		// ZMScore of the client tells a missing member from the score 0 by nothing.
		deadlines = redis.NewSliceCmd(ctx, command...)
		_ = pipe.Process(ctx, deadlines)
		records = pipe.MGet(ctx, keys...)
	})
	if err != nil {
		return err
	}
	lack := map[int64]string{}
	for i := range orders {
		o := &orders[i]
		deadline, held := scoreOf(deadlines.Val()[i])
		switch {
		case !held:
			lack[o.ID] = "has no hold in " + a.keys.Holds(p)
		case deadline != o.ExpiresAt.UnixMilli():
			lack[o.ID] = fmt.Sprintf("is held in %s until %d ms, the books say %d", a.keys.Holds(p), deadline, o.ExpiresAt.UnixMilli())
		case records.Val()[i] == nil:
			lack[o.ID] = "is missing in Redis"
		}
	}
	states, err := a.statesOf(ctx, p, at, lack)
	if err != nil {
		return err
	}
	for id, s := range states {
		// What is unpaid now was unpaid then: no step leads there.
		if s.status == engine.Pending {
			a.violated("holds in Redis = Postgres", a.keys.Order(p, id), "is PENDING in the books, and %s", lack[id])
		}
	}
	return nil
}

// state is what the books say of an order now.
type state struct {
	status   engine.Status // 0: there is no such order
	deadline int64         // ms
}

// statesOf reads the states of some orders once the books hold what Redis held.
func (a *audit) statesOf(ctx context.Context, p int, at meta, of map[int64]string) (map[int64]state, error) {
	states := map[int64]state{}
	if len(of) == 0 {
		return states, nil
	}
	if err := a.passed(ctx, p, at.Mark); err != nil {
		return nil, err
	}
	ids := make([]int64, 0, len(of))
	for id := range of {
		ids = append(ids, id)
		states[id] = state{}
	}
	found, err := a.books.pool.Query(ctx,
		"SELECT id, status, coalesce((extract(epoch FROM expires_at) * 1000)::bigint, 0) FROM orders WHERE id = ANY($1)", ids)
	if err != nil {
		return nil, fmt.Errorf("reading unpaid orders: %w", err)
	}
	var id, deadline int64
	var status string
	_, err = pgx.ForEachRow(found, []any{&id, &status, &deadline}, func() error {
		states[id] = state{statusOf[status], deadline}
		return nil
	})
	return states, err
}

// mayHold makes sure that each hold in Redis is one of an unpaid order.
func (a *audit) mayHold(ctx context.Context, p int) error {
	for cursor := uint64(0); ; {
		var page *redis.ScanCmd
		at, err := a.at(ctx, p, func(pipe redis.Pipeliner) { page = pipe.ZScan(ctx, a.keys.Holds(p), cursor, "", auditChunk) })
		if err != nil {
			return err
		}
		members, next := page.Val()
		deadlines, holding := map[int64]int64{}, map[int64]string{}
		for i := 0; i+1 < len(members); i += 2 {
			deadline, isScore := scoreOf(members[i+1])
			if len(members[i]) != 8 || !isScore {
				a.violated("holds in Redis = Postgres", a.keys.Holds(p), "holds %q, which is no order", members[i])
				continue
			}
			id := int64(binary.BigEndian.Uint64([]byte(members[i]))) //nolint:gosec // ids have 63 bits
			deadlines[id], holding[id] = deadline, ""
		}
		states, err := a.statesOf(ctx, p, at, holding)
		if err != nil {
			return err
		}
		if err := a.holdsOf(ctx, p, states, deadlines); err != nil {
			return err
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func (a *audit) holdsOf(ctx context.Context, p int, states map[int64]state, deadlines map[int64]int64) error {
	for id, s := range states {
		subject := a.keys.Holds(p) + " order " + strconv.FormatInt(id, 10)
		if s.status == engine.Pending {
			if s.deadline != deadlines[id] {
				a.violated("holds in Redis = Postgres", subject, "is held until %d ms, the books say %d", deadlines[id], s.deadline)
			}
			continue
		}
		// What has ended in the books had ended in Redis before: its hold must be gone by now.
		stands, err := a.redis.ZMScore(ctx, a.keys.Holds(p), holdMember(id)).Result()
		if err != nil {
			return fmt.Errorf("reading from Redis: %w", err)
		}
		if stands[0] != 0 {
			said := "know no such order"
			if s.status != 0 {
				said = "say " + s.status.String()
			}
			a.violated("holds in Redis = Postgres", subject, "is held, the books %s", said)
		}
	}
	return nil
}

// holdMember is how an order stands among the holds: the bytes of its id.
func holdMember(order int64) string {
	return string(binary.BigEndian.AppendUint64(nil, uint64(order))) //nolint:gosec // ids have 63 bits
}

// scoreOf reads a score as Redis answers it, by either protocol.
func scoreOf(reply any) (int64, bool) {
	switch score := reply.(type) {
	case float64:
		return int64(score), true
	case string:
		f, err := strconv.ParseFloat(score, 64)
		return int64(f), err == nil
	}
	return 0, false
}

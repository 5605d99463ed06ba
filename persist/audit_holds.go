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

// holds compares the unpaid orders of the books with those of which Redis holds the stock, both ways. A hold that is
// overdue is no violation: it ends as soon as an engine runs, and whether one runs the audit cannot know.
func (a *audit) holds(ctx context.Context) error {
	for after, more := int64(math.MinInt64), true; more; {
		var err error
		if after, more, err = a.someHeld(ctx, after); err != nil {
			return err
		}
	}
	for p := range a.keys.Partitions() {
		if a.doors[p].skip {
			continue
		}
		for cursor, more := uint64(0), true; more; more = cursor != 0 {
			var err error
			if cursor, err = a.mayHold(ctx, p, cursor); err != nil {
				return err
			}
		}
	}
	return nil
}

// someHeld makes sure that Redis has the record and the hold of each of a chunk of unpaid orders, and returns where the next
// begins and whether there may be one.
func (a *audit) someHeld(ctx context.Context, after int64) (last int64, more bool, err error) {
	orders, err := collectOrders(ctx, a.books.pool, " WHERE o.status = 'PENDING' AND o.id > $1 ORDER BY o.id LIMIT $2", after, a.chunk)
	if err != nil {
		return after, false, fmt.Errorf("reading unpaid orders: %w", err)
	}
	if len(orders) == 0 {
		return after, false, nil
	}
	byPartition := make([][]engine.Order, a.keys.Partitions())
	for _, o := range orders {
		p := a.keys.OfUser(o.UserID)
		byPartition[p] = append(byPartition[p], o)
	}
	for p, part := range byPartition {
		if err := a.areHeld(ctx, p, part); err != nil {
			return after, false, err
		}
	}
	return orders[len(orders)-1].ID, len(orders) == a.chunk, nil
}

func (a *audit) areHeld(ctx context.Context, p int, orders []engine.Order) error {
	if len(orders) == 0 || a.doors[p].skip {
		return nil
	}
	a.looked(checkRHolds, int64(len(orders)))
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
			a.violated(checkRHolds, a.keys.Order(p, id), "is PENDING in the books, and %s", lack[id])
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

// mayHold makes sure that each of a page of holds in Redis is one of an unpaid order, and returns where the next begins.
func (a *audit) mayHold(ctx context.Context, p int, cursor uint64) (next uint64, err error) {
	var page *redis.ScanCmd
	at, err := a.at(ctx, p, func(pipe redis.Pipeliner) { page = pipe.ZScan(ctx, a.keys.Holds(p), cursor, "", int64(a.chunk)) })
	if err != nil {
		return 0, err
	}
	members, next := page.Val()
	holds := make([]redis.Z, 0, len(members)/2)
	for i := 0; i+1 < len(members); i += 2 {
		deadline, _ := scoreOf(members[i+1])
		holds = append(holds, redis.Z{Member: members[i], Score: float64(deadline)})
	}
	return next, a.areUnpaid(ctx, p, at, holds)
}

// areUnpaid makes sure that holds are those of unpaid orders.
func (a *audit) areUnpaid(ctx context.Context, p int, at meta, holds []redis.Z) error {
	a.looked(checkRHolds, int64(len(holds)))
	deadlines, holding := map[int64]int64{}, map[int64]string{}
	for _, h := range holds {
		member, _ := h.Member.(string)
		if len(member) != 8 {
			a.violated(checkRHolds, a.keys.Holds(p), "holds %q, which is no order", member)
			continue
		}
		id := int64(binary.BigEndian.Uint64([]byte(member))) //nolint:gosec // ids have 63 bits
		deadlines[id], holding[id] = int64(h.Score), ""
	}
	states, err := a.statesOf(ctx, p, at, holding)
	if err != nil {
		return err
	}
	return a.holdsOf(ctx, p, states, deadlines)
}

func (a *audit) holdsOf(ctx context.Context, p int, states map[int64]state, deadlines map[int64]int64) error {
	for id, s := range states {
		subject := a.keys.Holds(p) + " order " + strconv.FormatInt(id, 10)
		if s.status == engine.Pending {
			if s.deadline != deadlines[id] {
				a.violated(checkRHolds, subject, "is held until %d ms, the books say %d", deadlines[id], s.deadline)
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
			a.violated(checkRHolds, subject, "is held, the books %s", said)
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

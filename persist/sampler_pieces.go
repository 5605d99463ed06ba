package persist

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// sampled looks at what was chosen; it can be run again.
type sampled func(ctx context.Context, a *audit) error

// pieces are what a sampler looks at in turn: of what an audit looks at, all but sums over whole tables, the top five, and
// keys of Redis that no row knows, which would take a scan.
var pieces = []struct {
	name   string
	choose func(s *Sampler, ctx context.Context, p int) (sampled, error)
}{
	{"journal", (*Sampler).journal},
	{"balances", chunks("balances", func(ctx context.Context, a *audit, after int64) (int64, bool, error) {
		return a.someAgree(ctx, selectBalances, after, a.balancesAgree)
	})},
	{"stocks", (*Sampler).stocks},
	{"transfers", chunks("transfers", func(ctx context.Context, a *audit, after int64) (int64, bool, error) {
		if a.keys.Partitions() == 1 {
			return after, false, nil
		}
		return a.someTransfers(ctx, after)
	})},
	{"moving", (*Sampler).moving},
	{"catalogue", chunks("catalogue", func(ctx context.Context, a *audit, after int64) (int64, bool, error) {
		last, n, err := a.someListed(ctx, after)
		return last, n == a.chunk, err
	})},
	{"unpaid_orders", chunks("unpaid_orders", func(ctx context.Context, a *audit, after int64) (int64, bool, error) {
		return a.someHeld(ctx, after)
	})},
	{"holds", (*Sampler).holds},
	{"carts", chunks("carts", func(ctx context.Context, a *audit, after int64) (int64, bool, error) {
		return a.someCarts(ctx, after)
	})},
	{"counters", func(_ *Sampler, _ context.Context, p int) (sampled, error) {
		return func(ctx context.Context, a *audit) error { return a.counters(ctx, p) }, nil
	}},
}

// cursor is how far a walk has come, by ids or by the cursors of Redis; it begins anew at its end.
type cursor struct{ from, next uint64 }

// walk returns the cursor of a piece, moved on to where the sample before ended.
func (s *Sampler) walk(piece string, p int) *cursor {
	name := fmt.Sprint(piece, " ", p)
	if s.cursors[name] == nil {
		s.cursors[name] = &cursor{}
	}
	c := s.cursors[name]
	c.from = c.next
	return c
}

// chunksTogether is how many chunks of users, products, orders or carts a sample looks at: of a million users, all within
// three hours.
const chunksTogether = 5

// chunks walks over something by ids, some chunks a sample.
func chunks(piece string, look func(ctx context.Context, a *audit, after int64) (last int64, more bool, err error)) func(*Sampler, context.Context, int) (sampled, error) {
	return func(s *Sampler, _ context.Context, _ int) (sampled, error) {
		c := s.walk(piece, 0)
		return func(ctx context.Context, a *audit) error {
			c.next = c.from
			for range chunksTogether {
				last, more, err := look(ctx, a, int64(c.next)) //nolint:gosec // ids have 63 bits
				if err != nil {
					return err // the next sample begins here
				}
				if c.next = uint64(last); !more { //nolint:gosec // ditto
					c.next = 0
					return nil
				}
			}
			return nil
		}, nil
	}
}

// someAgree compares a chunk of users or products.
func (a *audit) someAgree(ctx context.Context, sql string, after int64, agree func(context.Context, []checkpoint, []holding) error) (last int64, more bool, err error) {
	books, chunk, err := a.someHoldings(ctx, sql, after, a.chunk)
	if err != nil || len(chunk) == 0 {
		return after, false, err
	}
	return chunk[len(chunk)-1].id, len(chunk) == a.chunk, agree(ctx, books, chunk)
}

// stocks looks at a chunk of products. A product's shares lie in all partitions: the process that samples the first one adds
// them up, whoever samples the others.
func (s *Sampler) stocks(ctx context.Context, p int) (sampled, error) {
	if !s.leads[0] {
		return nil, nil //nolint:nilnil // nothing to look at
	}
	look, err := chunks("stocks", func(ctx context.Context, a *audit, after int64) (int64, bool, error) {
		return a.someAgree(ctx, selectStocks, after, a.stocksAgree)
	})(s, ctx, p)
	return func(ctx context.Context, a *audit) error {
		books, err := readCheckpoints(ctx, a.snapshot)
		if err != nil {
			return err
		}
		for n := range a.doors {
			if a.doors[n].skip {
				a.doors[n] = door{epoch: books[n].fence, seen: books[n].events}
			}
		}
		return look(ctx, a)
	}, err
}

// moving looks at a page of what is under way from a partition.
func (s *Sampler) moving(_ context.Context, p int) (sampled, error) {
	c := s.walk("moving", p)
	return func(ctx context.Context, a *audit) (err error) {
		c.next, err = a.someMoving(ctx, p, c.from)
		return err
	}, nil
}

// journal chooses a run of the journal: anywhere, or among the last events.
func (s *Sampler) journal(ctx context.Context, p int) (sampled, error) {
	to, err := readCheckpoint(ctx, s.conn, p, "")
	if err != nil {
		return nil, &connError{err}
	}
	if to.events == 0 {
		return nil, nil //nolint:nilnil // nothing to look at
	}
	n := rand.Int64N(to.events) //nolint:gosec // no secret
	if rand.IntN(2) == 0 {      //nolint:gosec // ditto
		n = to.events - 1 - rand.Int64N(min(to.events, sampleRecent)) //nolint:gosec // ditto
	}
	return func(ctx context.Context, a *audit) error { return a.runAt(ctx, p, n) }, nil
}

// runAt compares a few entries of a partition from the one on that holds the event behind so many.
func (a *audit) runAt(ctx context.Context, p int, before int64) error {
	epoch, base, err := a.epochOf(ctx, p, before)
	if err != nil {
		return err
	}
	entries, err := journal(ctx, a.snapshot, p, engine.Position{Epoch: epoch, Seq: before - base}, sampleEntries)
	if err != nil || len(entries) == 0 {
		return err
	}
	if entries[0].Last.Epoch != epoch {
		return nil // the walk of a whole audit names what is wrong with that
	}
	without, err := inQuarantine(ctx, a.snapshot, p)
	if err != nil {
		return err
	}
	entries = entries[:cut(entries)]
	for i := 1; i < len(entries); i++ {
		a.follows(p, entries[i-1].Last, &entries[i])
	}
	if _, err := a.sources(ctx, p, entries, without, base+entries[0].First-1); err != nil {
		return err
	}
	orders := ordersOf(entries)
	a.looked(checkStates, int64(len(orders)))
	if err := a.each(ctx, checkStates, statesOfSome, orders); err != nil {
		return err
	}
	return a.records(ctx, p, orders)
}

// ordersOf returns the orders that entries speak of, a chunk at most.
func ordersOf(entries []engine.Entry) (ids []int64) {
	seen := map[int64]bool{}
	for i := range entries {
		events, _ := entries[i].Events() // sources names those that cannot be read
		for j := range events {
			if id := events[j].Order.ID; id != 0 && !seen[id] && len(ids) < sampleChunk {
				seen[id] = true
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// epochOf returns the epoch in which the event behind so many others lies, and how many events are older than the epoch.
func (a *audit) epochOf(ctx context.Context, p int, n int64) (epoch, base int64, err error) {
	rows, err := a.snapshot.Query(ctx, `SELECT epoch, coalesce(last_seq, $2) FROM epochs WHERE partition = $1 ORDER BY epoch`, p, int64(1)<<62)
	if err != nil {
		return 0, 0, fmt.Errorf("reading epochs: %w", err)
	}
	found := false
	var next, events int64
	_, err = pgx.ForEachRow(rows, []any{&next, &events}, func() error {
		switch {
		case found:
		case n < base+events:
			epoch, found = next, true
		default:
			base += events
		}
		return nil
	})
	return epoch, base, err
}

// holds looks at holds of a partition of Redis, by rank: they come and go meanwhile, and are looked at again.
func (s *Sampler) holds(_ context.Context, p int) (sampled, error) {
	c := s.walk("holds", p)
	return func(ctx context.Context, a *audit) error {
		var page *redis.ZSliceCmd
		first := int64(c.from) //nolint:gosec // a rank
		at, err := a.at(ctx, p, func(pipe redis.Pipeliner) {
			page = pipe.ZRangeWithScores(ctx, a.keys.Holds(p), first, first+int64(a.chunk)-1)
		})
		if err != nil {
			return err
		}
		if c.next = c.from + uint64(a.chunk); len(page.Val()) < a.chunk { //nolint:gosec // positive
			c.next = 0
		}
		return a.areUnpaid(ctx, p, at, page.Val())
	}, nil
}

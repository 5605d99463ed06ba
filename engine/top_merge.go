package engine

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	topPage   = 10_000 // products a reply
	topLookup = 1_000  // products whose totals a command asks for
)

// topList is what is known of a partition's running totals.
type topList struct {
	units map[int64]int64 // by product
	rest  int64           // what a product that is not among them has at most
}

// bestSellers merges the partitions' running totals exactly, in three phases after TPUT (Cao, Wang 2004). The heads of all
// partitions name products that sell well; the last of the answer has at least as many units as the last of their exact
// totals. A product with as many has its share of them, a partition's part, in at least one partition: all that have are
// read. Of those, what can still have as many units is added up. The time is that of the partition whose clock is ahead of
// the others.
func (e *Engine) bestSellers(ctx context.Context, limit int) (time.Time, []Seller, error) {
	times := make([]time.Time, len(e.partitions))
	heads := make([][]Seller, len(e.partitions))
	err := e.Each(func(n int) (err error) {
		times[n], heads[n], err = e.topHead(ctx, e.partitions[n], limit)
		return err
	})
	if err != nil {
		return time.Time{}, nil, err
	}
	best, err := e.merged(ctx, heads, limit)
	return slices.MaxFunc(times, time.Time.Compare), best, err
}

// merged are the best sellers, whose heads are those of the partitions.
func (e *Engine) merged(ctx context.Context, heads [][]Seller, limit int) ([]Seller, error) {
	lists := make([]topList, len(e.partitions))
	if len(lists) == 1 {
		return heads[0], nil
	}
	for n := range lists {
		lists[n] = listOf(heads[n], limit)
	}
	known, rest := added(lists)
	if rest == 0 {
		return first(known, limit), nil // these are all
	}
	// A few more than the answer takes, as the best of one partition need not be the best of all.
	best, err := e.totals(ctx, first(known, 2*limit))
	if err != nil {
		return nil, err
	}
	best = first(best, limit)
	least := best[limit-1].Sold
	if rest >= least {
		if err := e.readTopDown(ctx, lists, (least-1)/int64(len(lists))+1); err != nil {
			return nil, err
		}
		if known, rest = added(lists); rest == 0 {
			return first(known, limit), nil
		}
	}
	candidates := reaching(lists, known, best, least)
	if len(candidates) == len(best) {
		return best, nil
	}
	best, err = e.totals(ctx, candidates)
	return first(best, limit), err
}

// listOf is what a partition's head of at most limit products tells.
func listOf(head []Seller, limit int) topList {
	l := topList{units: make(map[int64]int64, len(head))}
	for _, s := range head {
		l.units[s.ID] = s.Sold
	}
	if len(head) == limit {
		l.rest = max(head[limit-1].Sold, 0)
	}
	return l
}

// added are the units that the lists name, and how many a product that none of them names has at most.
func added(lists []topList) (known []Seller, rest int64) {
	sums := map[int64]int64{}
	for _, l := range lists {
		rest += l.rest
		for id, units := range l.units {
			sums[id] += units
		}
	}
	known = make([]Seller, 0, len(sums))
	for id, units := range sums {
		known = append(known, Seller{Product: Product{ID: id}, Sold: units})
	}
	return known, rest
}

// first sorts sellers, the best first, and returns so many.
func first(sellers []Seller, limit int) []Seller {
	slices.SortFunc(sellers, func(a, b Seller) int {
		return cmp.Or(cmp.Compare(b.Sold, a.Sold), cmp.Compare(a.ID, b.ID))
	})
	return sellers[:min(limit, len(sellers))]
}

// reaching are the products that can have as many units as the last of the best, and the best.
func reaching(lists []topList, known, best []Seller, least int64) []Seller {
	all := slices.Clone(best)
	for _, s := range known {
		most := s.Sold
		for _, l := range lists {
			if _, named := l.units[s.ID]; !named {
				most += l.rest
			}
		}
		if most >= least && !slices.ContainsFunc(best, func(b Seller) bool { return b.ID == s.ID }) {
			all = append(all, s)
		}
	}
	return all
}

// readTopDown reads what has at least so many units in a partition, of all partitions. Page by page: what sells on
// meanwhile, past the end of a page of thousands, is counted by the next reader.
func (e *Engine) readTopDown(ctx context.Context, lists []topList, units int64) error {
	replies := make([]*redis.ZSliceCmd, len(lists))
	for offset, more := int64(0), true; more; offset += topPage {
		err := e.repeat(ctx, func() error {
			pipe := e.redis.Pipeline() // one for each master
			for n := range lists {
				replies[n] = pipe.ZRangeArgsWithScores(ctx, redis.ZRangeArgs{
					Key: e.keys.Top(n), Start: "-inf", Stop: -units, ByScore: true, Offset: offset, Count: topPage,
				})
			}
			_, err := pipe.Exec(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("%w: reading the best sellers: %v", ErrUnavailable, err) //nolint:errorlint // for the log
		}
		more = false
		for n, reply := range replies {
			lists[n].rest = units - 1
			more = more || len(reply.Val()) == topPage
			for _, z := range reply.Val() {
				member, _ := z.Member.(string)
				id, err := strconv.ParseInt(member, 10, 64)
				if err != nil {
					return fmt.Errorf("%w: best sellers of partition %d: %v", ErrCorrupt, n, err) //nolint:errorlint // for the log
				}
				lists[n].units[id] = -int64(z.Score)
			}
		}
	}
	return nil
}

// totals adds up the units sold of products over all partitions.
func (e *Engine) totals(ctx context.Context, products []Seller) ([]Seller, error) {
	totals := make([]Seller, 0, len(products))
	for some := range slices.Chunk(products, topLookup) {
		members := make([]string, len(some))
		for i, s := range some {
			members[i] = topMember(s.ID)
		}
		scores := make([]*redis.FloatSliceCmd, len(e.partitions))
		err := e.repeat(ctx, func() error {
			pipe := e.redis.Pipeline() // one for each master
			for i, p := range e.partitions {
				scores[i] = pipe.ZMScore(ctx, e.keys.Top(p.number), members...)
			}
			_, err := pipe.Exec(ctx)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("%w: reading the best sellers: %v", ErrUnavailable, err) //nolint:errorlint // for the log
		}
		for i, s := range some {
			s.Sold = 0
			for _, part := range scores {
				s.Sold -= int64(part.Val()[i])
			}
			totals = append(totals, s)
		}
	}
	return totals, nil
}

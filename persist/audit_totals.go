package persist

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

const (
	totalsChunk     = 10_000    // products whose totals are looked at together
	totalsFieldsMax = 1_000_000 // their fields in the minutes that are not rolled out, from which on there are fewer products
)

// totals compares a partition's running totals with the books: first those of the snapshot, then what differs, and what
// Redis holds beyond, as of the position at which Redis was read.
func (a *audit) totals(ctx context.Context, p int) error {
	now, err := a.at(ctx, p, nil)
	if err != nil || now.rolled == 0 {
		return err
	}
	to, err := readCheckpoint(ctx, a.snapshot, p, "")
	if err != nil {
		return err
	}
	known, suspects := idSet{}, []int64(nil)
	booked := make(map[int64]int64, totalsChunk)
	look := func() error {
		held, _, err := a.heldTotals(ctx, p, booked)
		a.looked(checkTop, int64(len(booked)))
		for id, units := range booked {
			known.add(id)
			if held[id] != units {
				suspects = append(suspects, id)
			}
		}
		clear(booked)
		return err
	}
	chunk := totalsTogether(now)
	err = a.sold(ctx, soldByProduct, func(_, product, units int64) error {
		if booked[product] = units; len(booked) < chunk {
			return nil
		}
		return look()
	}, p, to.Epoch, to.Seq, now.window(), minuteMax, nil)
	if err == nil {
		err = look()
	}
	if err == nil {
		err = a.totalsAgree(ctx, p, suspects, chunk)
	}
	if err != nil {
		return err
	}
	return a.strayTotals(ctx, p, known, chunk)
}

// totalsTogether is how many products are looked at together. All minutes that wait to be rolled out are read with them:
// few on a running shop.
func totalsTogether(at meta) int {
	return int(min(totalsChunk, 1+totalsFieldsMax/max(1, at.window()-at.rolled)))
}

// strayTotals compares the totals of products that are not known to have any.
func (a *audit) strayTotals(ctx context.Context, p int, known idSet, chunk int) error {
	var strays []int64
	for cursor := uint64(0); ; {
		page, next, err := a.redis.ZScan(ctx, a.keys.Top(p), cursor, "", auditChunk).Result()
		if err != nil {
			return fmt.Errorf("reading from Redis: %w", err)
		}
		for i := 0; i+1 < len(page); i += 2 {
			id, err := strconv.ParseInt(page[i], 10, 64)
			if err != nil || len(page[i]) != len(topMember(0)) {
				a.violated(checkTop, a.keys.Top(p), "holds %q, which is no product", page[i])
				continue
			}
			if !known.has(id) {
				known.add(id)
				strays = append(strays, id)
			}
		}
		if cursor = next; len(strays) >= chunk || cursor == 0 {
			if err := a.totalsAgree(ctx, p, strays, chunk); err != nil {
				return err
			}
			strays = strays[:0]
		}
		if cursor == 0 {
			return nil
		}
	}
}

// totalsAgree compares the totals of some products as of the position at which Redis was read.
func (a *audit) totalsAgree(ctx context.Context, p int, products []int64, chunk int) error {
	for len(products) > 0 {
		some := products[:min(chunk, len(products))]
		products = products[len(some):]
		booked := make(map[int64]int64, len(some))
		for _, id := range some {
			booked[id] = 0
		}
		held, at, err := a.heldTotals(ctx, p, booked)
		if err != nil {
			return err
		}
		if err := a.passed(ctx, p, at.Mark); err != nil {
			return err
		}
		a.looked(checkTop, int64(len(some)))
		err = a.sold(ctx, soldByProduct, func(_, product, units int64) error {
			booked[product] = units
			return nil
		}, p, at.Epoch, at.Seq, at.window(), minuteMax, some)
		if err != nil {
			return err
		}
		for id, units := range booked {
			if n := held[id] - units; n != 0 {
				a.violated(checkTop, fmt.Sprintf("%s product %d", a.keys.Top(p), id), "counts %d units more than were sold in the window, at %v", n, at.Position)
			}
		}
	}
	return nil
}

// heldTotals reads totals from Redis, less what minutes before the window still count for in them: they are the sum of the
// hashes of all minutes that are not rolled out yet.
func (a *audit) heldTotals(ctx context.Context, p int, of map[int64]int64) (map[int64]int64, meta, error) {
	ids, members, fields := make([]int64, 0, len(of)), make([]string, 0, len(of)), make([]string, 0, len(of))
	for id := range of {
		ids, members, fields = append(ids, id), append(members, topMember(id)), append(fields, strconv.FormatInt(id, 10))
	}
	held := make(map[int64]int64, len(ids))
	before, err := a.at(ctx, p, nil)
	if err != nil || len(ids) == 0 {
		return held, before, err
	}
	for range 100 {
		var totals *redis.FloatSliceCmd
		var out []*redis.SliceCmd
		at, err := a.at(ctx, p, func(pipe redis.Pipeliner) {
			totals = pipe.ZMScore(ctx, a.keys.Top(p), members...)
			for m := before.rolled; m < before.window(); m++ {
				out = append(out, pipe.HMGet(ctx, a.keys.Sold(p, m), fields...))
			}
		})
		if err != nil {
			return nil, at, err
		}
		if at.rolled != before.rolled || at.window() != before.window() {
			before = at
			continue
		}
		for i, id := range ids {
			held[id] = -int64(totals.Val()[i])
			for _, minute := range out {
				text, _ := minute.Val()[i].(string)
				units, _ := strconv.ParseInt(text, 10, 64) // 0 where nothing was sold
				held[id] -= units
			}
		}
		return held, at, nil
	}
	return nil, before, fmt.Errorf("the top five of partition %d never stand still", p)
}

// topMember is how a product stands among the totals.
func topMember(product int64) string { return fmt.Sprintf("%016d", product) }

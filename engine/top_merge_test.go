package engine_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// bruteForce is the list of best sellers, from the sorted sets of all partitions.
func bruteForce(t *testing.T, r *room, limit int) (want [][2]int64) {
	t.Helper()
	units := map[int64]int64{}
	for p := range r.e.Keys().Partitions() {
		top, err := r.redis.ZRangeWithScores(context.Background(), r.e.Keys().Top(p), 0, -1).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, z := range top {
			id, err := strconv.ParseInt(z.Member.(string), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			units[id] -= int64(z.Score)
		}
	}
	for id, n := range units {
		want = append(want, [2]int64{id, n})
	}
	slices.SortFunc(want, func(a, b [2]int64) int { return cmp.Or(cmp.Compare(b[1], a[1]), cmp.Compare(a[0], b[0])) })
	return want[:min(limit, len(want))]
}

func wantTop(t *testing.T, e *engine.Engine, what string, limit int, want [][2]int64) {
	t.Helper()
	_, sellers, err := e.Top(context.Background(), limit)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got := make([][2]int64, len(sellers))
	for i, s := range sellers {
		got[i] = [2]int64{s.ID, s.Sold}
		if s.Name != fmt.Sprint("Thing ", s.ID) {
			t.Errorf("%s: %+v", what, s)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s, limit %d: %v, want %v", what, limit, got, want)
	}
}

func TestTop_OfSeveralPartitionsIsMergedExactly(t *testing.T) {
	const partitions, products = 4, 900
	r := lab.open(t).room(t, 0, engine.Config{Partitions: partitions})
	for p := range partitions {
		var all []engine.Listing
		for id := range int64(products) {
			all = append(all, listing(id+1, 1, 10))
		}
		for part := range slices.Chunk(all, 200) {
			if err := r.e.ListBehind(p, 1, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	e, ctx := r.run(t), context.Background()
	// set has the partitions count units, as the sales of a window would.
	set := func(products int64, units func(partition int, product int64) int64) {
		t.Helper()
		for p := range partitions {
			var all []redis.Z
			for id := int64(1); id <= products; id++ {
				if n := units(p, id); n > 0 {
					all = append(all, redis.Z{Score: -float64(n), Member: engine.TopMember(id)})
				}
			}
			r.redis.Del(ctx, r.e.Keys().Top(p))
			if len(all) == 0 {
				continue
			}
			if err := r.redis.ZAdd(ctx, r.e.Keys().Top(p), all...).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for what, units := range map[string]func(partition int, product int64) int64{
		"nothing sold":           func(int, int64) int64 { return 0 },
		"all equal":              func(int, int64) int64 { return 3 },
		"few, many ties":         func(int, int64) int64 { return rand.Int64N(3) },
		"few figures":            func(int, int64) int64 { return rand.Int64N(6) * rand.Int64N(2) },
		"spread":                 func(int, int64) int64 { return rand.Int64N(100_000) },
		"each in one partition":  func(p int, id int64) int64 { return map[bool]int64{true: id%50 + 1}[int(id)%partitions == p] },
		"fewer than the limit":   func(p int, id int64) int64 { return map[bool]int64{true: id}[id <= 3 && p > 0] },
		"ties at the very limit": func(_ int, id int64) int64 { return map[bool]int64{true: 2, false: 1}[id > products-99] },
		// No head of 100 names the best sellers of all, or the lowest ids among equals.
		"best of all, first nowhere": func(p int, id int64) int64 {
			switch {
			case id > products-20:
				return 50
			case int(id)%partitions == p:
				return 60
			}
			return 0
		},
		// As many units as what no head of 100 names could have at most, and lower ids than those that they name.
		"equals, at the very threshold": func(p int, id int64) int64 {
			here := int(id)%partitions == p
			switch {
			case id <= 300 && here, id > 300 && id <= 305:
				return 15
			case id > 800 && here:
				return 60
			}
			return 0
		},
		"equals, lowest id last": func(p int, id int64) int64 {
			switch {
			case id <= 5:
				return 15
			case int(id)%partitions == p:
				return 60
			}
			return 0
		},
	} {
		set(products, units)
		for _, limit := range []int{1, 5, 37, engine.TopMax} {
			wantTop(t, e, what, limit, bruteForce(t, r, limit))
		}
	}
	// The best of all stand behind more than a page of others in every partition.
	const before = partitions * (engine.TopPage + 100)
	set(products+before, func(p int, id int64) int64 {
		switch {
		case id <= 5:
			return 10
		case id > products && int(id)%partitions == p:
			return 20
		}
		return 0
	})
	wantTop(t, e, "behind a page", 5, bruteForce(t, r, 5))
}

func TestTop_ClockTurnedOverThreeDaysStaysExact(t *testing.T) {
	const products = 30
	r := lab.open(t).room(t, 0, engine.Config{})
	r.fund(t, engine.BalanceMax)
	for id := range int64(products) {
		r.stock(t, listing(id+1, 1, engine.StockMax))
	}
	e, ctx := r.run(t), context.Background()
	begin := time.Now()
	type sale struct{ minute, product, units int64 }
	var all []sale
	for hour := range 4 * 24 {
		e.SetClockOffset(time.Duration(hour) * time.Hour)
		product, units := rand.Int64N(products)+1, rand.Int64N(3)+1
		order := mustPlace(t, e, 1, fmt.Sprint("hour ", hour), lines(product, units))
		all = append(all, sale{order.CreatedAt.Unix() / 60, product, units})
		if hour%4 != 3 {
			continue
		}
		at, sellers, err := e.Top(ctx, 5)
		if err != nil {
			t.Fatal(err)
		}
		totals := map[int64]int64{}
		for _, s := range all {
			if s.minute > at.Unix()/60-windowMinutes {
				totals[s.product] += s.units
			}
		}
		var want [][2]int64
		for id, n := range totals {
			want = append(want, [2]int64{id, n})
		}
		slices.SortFunc(want, func(a, b [2]int64) int { return cmp.Or(cmp.Compare(b[1], a[1]), cmp.Compare(a[0], b[0])) })
		var got [][2]int64
		for _, s := range sellers {
			got = append(got, [2]int64{s.ID, s.Sold})
		}
		if want = want[:min(5, len(want))]; !slices.Equal(got, want) {
			t.Fatalf("hour %d: %v, want %v", hour, got, want)
		}
	}
	t.Logf("four days in %v", time.Since(begin))
	r.wantCounted(t, "in the end", nil)
}

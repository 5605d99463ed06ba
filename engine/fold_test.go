package engine_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// wantFold checks that what a repair would write for the events of all partitions behind their positions is what Redis
// holds, key by key: balances, stocks, orders, carts, holds, idempotency records and, for products listed behind the
// position, units sold a minute and in the window.
func wantFold(t rapid.TB, s *shoptest.Shop, after []engine.Position) {
	t.Helper()
	for p, at := range after {
		if err := s.Engine.Roll(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		await(t, "a moment in which nothing comes from other partitions", func() bool { return foldEquals(t, s, p, at) })
	}
}

// foldEquals compares a partition, unless further events come meanwhile.
func foldEquals(t rapid.TB, s *shoptest.Shop, partition int, after engine.Position) bool {
	t.Helper()
	ctx, end := context.Background(), position(t, s.Engine, partition)
	entries := entriesAfter(t, s, partition, after)
	assignments, err := s.Engine.Fold(partition, entries, false)
	if err != nil {
		t.Fatal(err)
	}
	f := newFoldCheck(s.Engine.Keys(), partition, eventsOf(t, entries))
	pipe := s.Redis.TxPipeline() // at one instant: a sweeper may be at work
	f.rolled = pipe.HGet(ctx, f.keys.Meta(partition), "rolled")
	for _, a := range assignments {
		f.add(ctx, pipe, a)
	}
	f.addTotals(ctx, pipe)
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
	if position(t, s.Engine, partition) != end {
		return false
	}
	f.compare(t)
	return true
}

// foldCheck compares what assignments say with what Redis holds.
type foldCheck struct {
	keys      *engine.Keys
	partition int
	listed    map[string]bool // products whose whole history is looked at
	rolled    *redis.StringCmd

	texts  map[string]engine.Assignment // the last one counts
	moves  map[string]*engine.Transfers
	got    map[string]*redis.StringCmd
	scores map[string]engine.Assignment
	held   map[string]*redis.FloatCmd
	totals map[string]map[int64]int64 // product -> minute -> units; a fold adds them up
	sums   map[string]int64           // by product: what moves its total
	top    map[string]*redis.FloatCmd
}

func newFoldCheck(keys *engine.Keys, partition int, events []engine.Event) *foldCheck {
	f := &foldCheck{
		keys: keys, partition: partition, listed: map[string]bool{},
		texts: map[string]engine.Assignment{}, moves: map[string]*engine.Transfers{}, got: map[string]*redis.StringCmd{},
		scores: map[string]engine.Assignment{}, held: map[string]*redis.FloatCmd{},
		totals: map[string]map[int64]int64{}, sums: map[string]int64{}, top: map[string]*redis.FloatCmd{},
	}
	for _, ev := range events {
		if ev.Kind == engine.Restocked && ev.Key == "" {
			product := strconv.FormatInt(ev.ProductID, 10)
			f.listed[product] = true
			f.totals[product] = map[int64]int64{}
		}
	}
	return f
}

func (f *foldCheck) add(ctx context.Context, pipe redis.Pipeliner, a engine.Assignment) {
	switch {
	case a.Field != "":
		if f.listed[a.Field] {
			_, minute, _ := strings.Cut(a.Key, "}m:")
			at, _ := strconv.ParseInt(minute, 10, 64)
			f.totals[a.Field][at] += a.Delta
			f.texts[a.Key+" "+a.Field], f.got[a.Key+" "+a.Field] = a, pipe.HGet(ctx, a.Key, a.Field)
		}
	case a.Member != "" && a.Key == f.keys.Top(f.partition):
		if product := strings.TrimLeft(a.Member, "0"); f.listed[product] {
			f.sums[product] += a.Delta
		}
	case a.Key == f.keys.Moving(f.partition): // it may be settled by now
	case a.Moves != nil:
		f.moves[a.Key], f.got[a.Key] = a.Moves, pipe.Get(ctx, a.Key)
	case a.Member != "":
		f.scores[a.Key+" "+a.Member], f.held[a.Key+" "+a.Member] = a, pipe.ZScore(ctx, a.Key, a.Member)
	default:
		f.texts[a.Key], f.got[a.Key] = a, pipe.Get(ctx, a.Key)
	}
}

func (f *foldCheck) addTotals(ctx context.Context, pipe redis.Pipeliner) {
	for product := range f.totals {
		id, _ := strconv.ParseInt(product, 10, 64)
		f.top[product] = pipe.ZScore(ctx, f.keys.Top(f.partition), engine.TopMember(id))
	}
}

func (f *foldCheck) compare(t rapid.TB) {
	t.Helper()
	rolled, err := f.rolled.Int64()
	if err != nil {
		t.Fatal(err)
	}
	for name, a := range f.texts {
		want, got := a.Value, f.got[name]
		if a.Field != "" {
			want = strconv.FormatInt(a.Delta, 10)
			_, minute, _ := strings.Cut(a.Key, "}m:")
			if at, _ := strconv.ParseInt(minute, 10, 64); at < rolled {
				continue
			}
		}
		if got.Val() != want || (got.Err() != nil) != a.Delete {
			t.Errorf("%s: Redis holds %q (%v), the events say %q", name, got.Val(), got.Err(), want)
		}
	}
	for key, want := range f.moves {
		got, err := engine.DecodeTransfers(f.got[key].Val())
		if err != nil {
			t.Fatal(err)
		}
		for _, in := range want.In {
			if !slices.Contains(got.In, in) {
				t.Errorf("%s: Redis holds %+v, the events say that %+v came last", key, got.In, in)
			}
		}
		for _, out := range got.Out {
			if !slices.Contains(want.Out, out) {
				t.Errorf("%s: Redis holds %+v, the events say that %+v left last", key, out, want.Out)
			}
		}
	}
	for name, a := range f.scores {
		got := f.held[name]
		if (got.Err() != nil) != a.Unrank || (!a.Unrank && got.Val() != float64(a.Rank)) {
			t.Errorf("%q: Redis holds %v (%v), the events say %+v", name, got.Val(), got.Err(), a)
		}
	}
	for product, minutes := range f.totals {
		units, all := int64(0), int64(0)
		for at, n := range minutes {
			all += n
			if at >= rolled {
				units += n
			}
		}
		got := f.top[product]
		if got.Val() != float64(-units) || (got.Err() != nil) != (units == 0) || f.sums[product] != -all {
			t.Errorf("product %s: its total is %v (%v), the events say %d in the window, %d moved", product, got.Val(), got.Err(), units, f.sums[product])
		}
	}
}

package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/engine"
)

const windowMinutes = 72 * 60

// topRoom is a room at a time that stands still, with rich users 1 to 3 and products 1 to n, and counting from then on.
func topRoom(t *testing.T, number int, products int64) *room {
	t.Helper()
	r := lab.open(t).room(t, number, engine.Config{Hold: time.Hour, RefundWindow: 30 * 24 * time.Hour})
	r.at = sequenceStart.Truncate(time.Minute).Add(30 * time.Second)
	r.fund(t, engine.BalanceMax/2, engine.BalanceMax/2, engine.BalanceMax/2)
	for id := range products {
		r.stock(t, listing(id+1, 1, engine.StockMax))
	}
	if err := r.redis.HSet(context.Background(), r.e.Keys().Meta(0), "rolled", r.minute()).Err(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *room) minute() int64 { return r.at.Unix() / 60 }

var sales int // numbers the keys of sales

func (r *room) sell(t testing.TB, e *engine.Engine, at time.Time, l []engine.Line) engine.Order {
	t.Helper()
	sales++
	got := e.SendAt(1, at, e.PlaceOp(engine.PlaceRequest{UserID: 1, Lines: l, Key: fmt.Sprint("sale ", sales)}))[0]
	if got.Err != nil {
		t.Fatal(got.Err)
	}
	return got.Order
}

func (r *room) refund(t testing.TB, at time.Time, o engine.Order) {
	t.Helper()
	sales++
	got := r.e.SendAt(1, at, r.e.CancelOp(engine.CancelRequest{OrderID: o.ID, UserID: 1, Admin: true, Key: fmt.Sprint("refund ", sales)}, o, nil))[0]
	if got.Err != nil {
		t.Fatal(got.Err)
	}
}

// counted reads, at one instant, the sorted set and the sum of the minutes' hashes; both by product.
func (r *room) counted(t testing.TB, partition int) (top, sum map[int64]int64, members int) {
	t.Helper()
	const script = `
local sum = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
    local sold = redis.call('HGETALL', key)
    for i = 1, #sold, 2 do sum[sold[i]] = (sum[sold[i]] or 0) + tonumber(sold[i + 1]) end
end
local flat = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
flat[#flat + 1] = ''
for product, units in pairs(sum) do
    flat[#flat + 1] = product
    flat[#flat + 1] = string.format('%.0f', units)
end
return flat`
	k := r.e.Keys()
	pattern := strings.TrimSuffix(k.Sold(partition, 0), "0") + "*"
	flat, err := r.redis.Eval(context.Background(), script, []string{k.Top(partition)}, pattern).StringSlice()
	if err != nil {
		t.Fatal(err)
	}
	top, sum = map[int64]int64{}, map[int64]int64{}
	at := slices.Index(flat, "")
	for i, into := range []map[int64]int64{top, sum} {
		for pair := range slices.Chunk([][]string{flat[:at], flat[at+1:]}[i], 2) {
			id, err1 := strconv.ParseInt(pair[0], 10, 64)
			units, err2 := strconv.ParseInt(pair[1], 10, 64)
			if err1 != nil || err2 != nil {
				t.Fatal(pair)
			}
			if i == 0 {
				units = -units
			}
			if into[id] = units; units == 0 {
				delete(into, id)
			}
		}
	}
	return top, sum, at / 2
}

func (r *room) wantCounted(t testing.TB, what string, want map[int64]int64) {
	t.Helper()
	top, sum, members := r.counted(t, 0)
	if fmt.Sprint(top) != fmt.Sprint(sum) || (want != nil && fmt.Sprint(top) != fmt.Sprint(want)) {
		t.Errorf("%s: the set counts %v, the minutes %v, want %v", what, top, sum, want)
	}
	if members != len(top) {
		t.Errorf("%s: %d products in the set, %d of them sold", what, members, len(top))
	}
}

func (r *room) rollAt(t testing.TB, at time.Time, each func()) int {
	t.Helper()
	rolled, err := r.redis.HGet(context.Background(), r.e.Keys().Meta(0), "rolled").Int64()
	if err != nil {
		t.Fatal(err)
	}
	calls, err := r.e.RollAt(1, at, 0, rolled, 256, each)
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

func TestTop_SaleCountsForThreeDaysToTheMinute(t *testing.T) {
	r := topRoom(t, 0, 2)
	begin := r.at.Truncate(time.Minute)
	last := begin.Add(time.Minute - time.Millisecond)
	r.sell(t, r.e, begin, lines(1, 3))
	r.sell(t, r.e, last, lines(1, 4, 2, 1))
	r.sell(t, r.e, begin.Add(time.Minute), lines(2, 5))
	for _, c := range []struct {
		after time.Duration // the begin of the first minute
		want  map[int64]int64
	}{
		{time.Hour, map[int64]int64{1: 7, 2: 6}},
		{engine.Window - time.Millisecond, map[int64]int64{1: 7, 2: 6}},
		{engine.Window, map[int64]int64{2: 5}},
		{engine.Window + time.Minute - time.Millisecond, map[int64]int64{2: 5}},
		{engine.Window + time.Minute, map[int64]int64{}},
		{3 * engine.Window, map[int64]int64{}},
	} {
		r.rollAt(t, begin.Add(c.after), nil)
		r.wantCounted(t, fmt.Sprint("after ", c.after), c.want)
	}
}

func TestTop_RefundIsTakenOutOfTheMinuteOfItsSaleWhileThatCounts(t *testing.T) {
	for _, c := range []struct {
		name   string
		after  time.Duration // the sale
		rolled bool          // before the refund
		want   map[int64]int64
	}{
		{"at once", 0, false, map[int64]int64{1: 4}},
		{"in the last minute that counts", (windowMinutes - 1) * time.Minute, true, map[int64]int64{1: 4}},
		{"in the first minute that does not, before it was rolled out", windowMinutes * time.Minute, false, map[int64]int64{}},
		{"in the first minute that does not", windowMinutes * time.Minute, true, map[int64]int64{}},
		{"days later", 2 * engine.Window, true, map[int64]int64{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := topRoom(t, 0, 2)
			refunded := r.sell(t, r.e, r.at, lines(1, 3, 2, 5))
			r.sell(t, r.e, r.at, lines(1, 4))
			at := r.at.Add(c.after)
			if c.rolled {
				r.rollAt(t, at, nil)
			}
			r.refund(t, at, refunded)
			r.wantCounted(t, "before the roll", nil)
			r.rollAt(t, at, nil)
			r.wantCounted(t, "after the roll", c.want)
			r.rollAt(t, at.Add(2*engine.Window), nil)
			r.wantCounted(t, "in the end", map[int64]int64{})
		})
	}
}

// A minute with a large catalogue, and many minutes, are rolled out in steps; after each the set is the sum of the
// hashes.
func TestTop_IsRolledInStepsAndAlwaysTheSumOfItsMinutes(t *testing.T) {
	const products, minutes = 3400, 700
	r := topRoom(t, 0, products)
	var ids []int64
	for id := range int64(products) {
		ids = append(ids, id+1, 1+id%7)
	}
	for part := range slices.Chunk(ids, 2*engine.LinesMax) {
		r.sell(t, r.e, r.at, lines(part...))
	}
	for m := range minutes {
		r.sell(t, r.e, r.at.Add(time.Duration(m)*time.Minute), lines(1+int64(m%5), 2))
	}
	end := r.at.Add(minutes * time.Minute)
	r.wantCounted(t, "before", nil)
	whole := 0
	calls := r.rollAt(t, end.Add(engine.Window), func() {
		r.wantCounted(t, "between two steps", nil)
		if whole++; whole > 100 {
			t.Fatal("too many steps")
		}
	})
	if calls < products/1000+minutes/256 || calls > 20 {
		t.Errorf("%d steps", calls)
	}
	r.wantCounted(t, "after", map[int64]int64{})
	if left := r.redis.Keys(context.Background(), "*m:*").Val(); len(left) != 0 {
		t.Errorf("minutes left: %v", left)
	}
}

// Several processes roll the same minutes out while others sell and refund.
func TestTop_RolledByManyAtOnceCountsEachMinuteOnce(t *testing.T) {
	const products, minutes, rollers = 1500, 150, 4
	r := topRoom(t, 0, products)
	for m := range minutes {
		var l []engine.Line
		for i := range 60 {
			l = append(l, engine.Line{ProductID: int64((m*37+i*25)%products) + 1, Quantity: int64(1 + i%3)})
		}
		r.sell(t, r.e, r.at.Add(time.Duration(m)*time.Minute), merge(l))
	}
	first, end := r.minute(), r.at.Add(minutes*time.Minute+engine.Window)
	want := map[int64]int64{}
	var group sync.WaitGroup
	var mu sync.Mutex
	for range rollers {
		e := lab.engine(t, 0, engine.Config{})
		group.Go(func() {
			if _, err := e.RollAt(1, end, 0, first, 64, func() { r.wantCounted(t, "between two steps", nil) }); err != nil {
				t.Error(err)
			}
		})
	}
	for range 2 {
		e := lab.engine(t, 0, engine.Config{})
		group.Go(func() {
			for range 60 {
				product := rand.Int64N(products) + 1
				mu.Lock()
				r.sell(t, e, end, lines(product, 2))
				want[product] += 2
				mu.Unlock()
			}
		})
	}
	group.Wait()
	r.wantCounted(t, "after", want)
}

// A repair replays a refund onto a Redis that may have rolled the minute of the sale out already.
func TestTop_RefundIsReplayedAsItWasCounted(t *testing.T) {
	for after, want := range map[time.Duration]int64{
		0: 3, (windowMinutes - 1) * time.Minute: 3, windowMinutes * time.Minute: 0, (windowMinutes + 1) * time.Minute: 0, 2 * engine.Window: 0,
	} {
		r := topRoom(t, 0, 1)
		order := r.sell(t, r.e, r.at, lines(1, 3))
		at := r.at.Add(after)
		r.refund(t, at, order)
		r.e.SetClockOffset(time.Until(at))
		entries := entriesOf(t, r)
		assignments, err := r.e.Fold(0, entries[len(entries)-1:], false)
		if err != nil {
			t.Fatal(err)
		}
		taken := map[string]int64{}
		for _, a := range assignments {
			taken[a.Key] -= a.Delta
		}
		minute, top := taken[r.e.Keys().Sold(0, r.minute())], taken[r.e.Keys().Top(0)]
		if minute != want || top != -want {
			t.Errorf("refund after %v: %d taken out of the minute, %d of the window, want %d", after, minute, -top, want)
		}
	}
}

// A clock that steps back after a roll must not have a refund take out what has left already.
func TestTop_RefundBehindARolledMinuteTakesNothingTwice(t *testing.T) {
	r := topRoom(t, 0, 1)
	order := r.sell(t, r.e, r.at, lines(1, 3))
	gone := r.at.Add(engine.Window)
	r.rollAt(t, gone, nil)
	r.wantCounted(t, "rolled", map[int64]int64{})
	r.refund(t, gone.Add(-time.Minute), order)
	r.wantCounted(t, "refunded by a clock a minute behind", map[int64]int64{})
}

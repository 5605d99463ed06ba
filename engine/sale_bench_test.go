package engine_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// till is a shop to measure sales in: nothing in it runs out, its Redis syncs each call to disk before it answers, and no
// writer takes part.
type till struct {
	*shoptest.Shop
	users, products []int64
	n               atomic.Int64 // orders asked for so far
}

func openTill(b *testing.B) *till {
	b.Helper()
	const users, products, balance, stock = 256, 16, 1_000_000_000_000, 1_000_000_000
	s := shoptest.Start(b, stack.Options{}, shop.Config{
		NoWriter: true, BacklogCap: 1 << 40, OperationTimeout: patience, Log: slog.New(slog.DiscardHandler),
	})
	t := &till{Shop: s, users: s.Users(users, balance)}
	for range products {
		t.products = append(t.products, s.Product(1, stock))
	}
	return t
}

// next is an order of one line, under a key of its own, by the user whose turn it is.
func (t *till) next() engine.PlaceRequest {
	n := t.n.Add(1)
	return engine.PlaceRequest{
		UserID: t.users[n%int64(len(t.users))], Key: strconv.FormatInt(n, 10),
		Lines: lines(t.products[n%int64(len(t.products))], 1),
	}
}

// redisCPU is the CPU time that Redis has used, as it tells to the microsecond.
func (t *till) redisCPU(b *testing.B) (used time.Duration) {
	b.Helper()
	text, err := t.Redis.Info(b.Context(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	found := 0
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if name != "used_cpu_sys" && name != "used_cpu_user" {
			continue
		}
		seconds, err := strconv.ParseFloat(value, 64)
		if err != nil {
			b.Fatal(err)
		}
		found++
		used += time.Duration(seconds * float64(time.Second))
	}
	if found != 2 {
		b.Fatalf("INFO cpu does not tell the CPU time: %s", text)
	}
	return used
}

// measure reports what each order of a loop has cost; redis is what it had used before.
func (t *till) measure(b *testing.B, orders int, redis time.Duration) {
	b.Helper()
	redis = t.redisCPU(b) - redis
	b.ReportMetric(float64(redis.Nanoseconds())/1000/float64(orders), "redis-us/order")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(orders), "ns/order")
}

// BenchmarkSale measures the way of an order of one line, and what of it is Redis' part.
func BenchmarkSale(b *testing.B) {
	t := openTill(b)
	for _, orders := range []int{1, 16, 64, 256} {
		b.Run(fmt.Sprintf("call/orders=%d", orders), func(b *testing.B) { t.benchCall(b, orders) })
	}
	for _, buyers := range []int{64, 512} {
		b.Run(fmt.Sprintf("place/buyers=%d", buyers), func(b *testing.B) { t.benchPlace(b, buyers) })
	}
	for _, orders := range []int{1, 256} {
		b.Run(fmt.Sprintf("events/orders=%d", orders), func(b *testing.B) { t.benchEvents(b, orders) })
	}
}

// benchCall makes one call of lua/place.lua after the other, each with so many orders.
func (t *till) benchCall(b *testing.B, orders int) {
	epoch := t.Engine.KnownEpoch(0)
	redis := t.redisCPU(b)
	for b.Loop() {
		for i, outcome := range t.Engine.Send(epoch, t.ops(orders)...) {
			if outcome.Err != nil || outcome.Replayed {
				b.Fatalf("order %d of a call: %+v", i, outcome)
			}
		}
	}
	t.measure(b, b.N*orders, redis)
}

func (t *till) ops(orders int) []*engine.Op {
	ops := make([]*engine.Op, orders)
	for i := range ops {
		ops[i] = t.Engine.PlaceOp(t.next())
	}
	return ops
}

// benchPlace has so many buyers order without a pause: the batcher makes calls of what waits.
func (t *till) benchPlace(b *testing.B, buyers int) {
	b.SetParallelism(max(1, buyers/runtime.GOMAXPROCS(0)))
	redis := t.redisCPU(b)
	b.RunParallel(func(turn *testing.PB) {
		for turn.Next() {
			if _, _, err := t.Engine.Place(b.Context(), t.next()); err != nil {
				b.Error(err)
				return
			}
		}
	})
	t.measure(b, b.N, redis)
}

// benchEvents reads the stream entry of a call with so many orders, as the writer does.
func (t *till) benchEvents(b *testing.B, orders int) {
	before := position(b, t.Engine, 0)
	t.Engine.Send(before.Epoch, t.ops(orders)...)
	entries := entriesAfter(b, t.Shop, 0, before)
	if len(entries) != 1 {
		b.Fatalf("%d entries of one call", len(entries))
	}
	b.ReportAllocs()
	for b.Loop() {
		if events, err := entries[0].Events(); err != nil || len(events) != orders {
			b.Fatalf("%d events: %v", len(events), err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*orders), "ns/order")
}

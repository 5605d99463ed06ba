package persist_test

import (
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/persist"
)

// BenchmarkRestore fills an emptied Redis from books whose orders are all of today, so that each has a key that lives:
// a hundred thousand users and a thousand products at a million orders.
func BenchmarkRestore(b *testing.B) {
	orders := benchOrders(b, 20_000)
	s := shoptest.Start(b, stack.Options{}, shop.Config{BacklogCap: 1 << 40})
	generate(b, s, orders, max(1, orders/10), max(1, orders/1000))
	if err := s.AwaitWritten(b.Context()); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		flush(b, s)
		b.StartTimer()
		start := time.Now()
		own, postgres, redis := ownCPU(b), treeCPU(b, s.Stack.Postgres().Pid()), treeCPU(b, s.Stack.Redis().Pid())
		watch := restore(b, s)
		took := time.Since(start)
		b.ReportMetric(float64(orders), "orders")
		b.ReportMetric(took.Seconds(), "s/restore")
		b.ReportMetric(float64(watch.Keys())/took.Seconds(), "keys/s")
		b.ReportMetric((ownCPU(b) - own).Seconds(), "s-go-cpu")
		b.ReportMetric((treeCPU(b, s.Stack.Postgres().Pid()) - postgres).Seconds(), "s-postgres-cpu")
		b.ReportMetric((treeCPU(b, s.Stack.Redis().Pid()) - redis).Seconds(), "s-redis-cpu")
	}
}

// BenchmarkLayout is BenchmarkRestore with another number of partitions than the books had: 12, then 60, and so on.
func BenchmarkLayout(b *testing.B) {
	orders := benchOrders(b, 20_000)
	s := shoptest.Start(b, stack.Options{}, shop.Config{Partitions: 1, BacklogCap: 1 << 40})
	generate(b, s, orders, max(1, orders/10), max(1, orders/1000))
	if err := s.AwaitWritten(b.Context()); err != nil {
		b.Fatal(err)
	}
	c := servers(s)
	for b.Loop() {
		b.StopTimer()
		flush(b, s)
		if c.Partitions == 12 {
			c.Partitions = 60
		} else {
			c.Partitions = 12
		}
		b.StartTimer()
		start := time.Now()
		if err := shop.Restore(b.Context(), c, &persist.RestoreProgress{}); err != nil {
			b.Fatal(err)
		}
		b.Logf("%d orders, %d partitions: %v", orders, c.Partitions, time.Since(start))
	}
}

package persist_test

import (
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
)

// BenchmarkRebuild, of orders of one line that were paid at once, rebuilds tables that are as they should be, and tables that are empty.
func BenchmarkRebuild(b *testing.B) {
	orders := benchOrders(b, 20_000)
	s := shoptest.Start(b, stack.Options{}, shop.Config{})
	generate(b, s, orders, max(1, orders/10), max(1, orders/1000))
	s.Written()
	for _, before := range []struct{ name, sql string }{
		{"good", "ANALYZE"},
		{"empty", "TRUNCATE orders, order_items, order_history, balance_ledger, stock_ledger, sales_hours"},
	} {
		b.Run(before.name, func(b *testing.B) {
			events, held, cpu := int64(0), time.Duration(0), time.Duration(0)
			for b.Loop() {
				b.StopTimer()
				if err := s.Books.Exec(b.Context(), before.sql); err != nil {
					b.Fatal(err)
				}
				used := ownCPU(b) + treeCPU(b, s.Stack.Postgres().Pid())
				b.StartTimer()
				done, err := s.Books.RebuildReports(b.Context(), quietly)
				if err != nil {
					b.Fatal(err)
				}
				cpu += ownCPU(b) + treeCPU(b, s.Stack.Postgres().Pid()) - used
				events, held = events+done.Events, held+done.Held
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(events), "µs/event")
			b.ReportMetric(float64(cpu.Microseconds())/float64(events), "cpu-µs/event")
			b.ReportMetric(held.Seconds()/float64(b.N), "writers-wait-s/op")
		})
	}
}

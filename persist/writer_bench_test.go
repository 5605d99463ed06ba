package persist_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/persist"
)

// BenchmarkWriter drains a backlog of orders of one line, and then loads the very same rows into empty tables of the
// same make by bare unnest inserts: the ratio is what journal order, guard, updates and reading from Redis cost.
func BenchmarkWriter(b *testing.B) {
	for _, shape := range []struct {
		name            string
		users, products int
	}{{"uniform", 10_000, 1000}, {"hot", 10_000, 1}} {
		b.Run(shape.name, func(b *testing.B) {
			orders := benchOrders(b, 20_000)
			for b.Loop() {
				b.StopTimer()
				s := shoptest.Start(b, stack.Options{}, shop.Config{NoWriter: true, BacklogCap: 1 << 40})
				generate(b, s, orders, min(shape.users, orders), min(shape.products, orders))
				b.StartTimer()
				drain(b, s, orders)
				b.StopTimer()
				bare(b, s)
				s.Stop()
				b.StartTimer()
			}
		})
	}
}

// drain lets a writer write everything, and reports what an order costs.
func drain(b *testing.B, s *shoptest.Shop, orders int) {
	b.Helper()
	stream, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 2, 5*time.Second)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	w := persist.NewWriter(s.Books, stream)
	done := make(chan struct{})
	own, postgres, start := ownCPU(b), treeCPU(b, s.Stack.Postgres().Pid()), time.Now()
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	if err := s.AwaitWritten(ctx); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	own, postgres = ownCPU(b)-own, treeCPU(b, s.Stack.Postgres().Pid())-postgres
	stop()
	<-done
	each := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(orders) }
	b.ReportMetric(each(own), "writer-µs/order")
	b.ReportMetric(each(postgres), "postgres-µs/order")
	b.ReportMetric(float64(orders)/took.Seconds(), "orders/s")
	rows, err := s.Books.CountRows(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(rows)/took.Seconds(), "rows/s")
}

// bare loads the rows that the journal accounts for into copies of the tables.
func bare(b *testing.B, s *shoptest.Shop) {
	b.Helper()
	rows, took, err := s.Books.LoadBare(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(rows)/took.Seconds(), "bare-rows/s")
}

func ownCPU(tb testing.TB) time.Duration {
	tb.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// treeCPU is the CPU time of a process and of its children, those that have ended too. Linux counts it in hundredths of
// a second.
func treeCPU(tb testing.TB, root int) (used time.Duration) {
	tb.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		tb.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		// The name, in brackets, may hold anything; behind it: state, parent, ..., utime, stime, cutime, cstime.
		fields := strings.Fields(string(text)[strings.LastIndexByte(string(text), ')')+1:])
		if filepath.Base(filepath.Dir(path)) != strconv.Itoa(root) && fields[1] != strconv.Itoa(root) {
			continue
		}
		for _, field := range fields[11:15] {
			ticks, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				tb.Fatal(fmt.Errorf("%s: %w", path, err))
			}
			used += time.Duration(ticks) * time.Second / 100
		}
	}
	return used
}

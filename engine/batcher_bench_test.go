package engine

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkBatcher queues operations and takes them as one batch: what the queue itself costs, without a hand-over
// between goroutines.
func BenchmarkBatcher(b *testing.B) {
	for _, count := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("batch=%d", count), func(b *testing.B) {
			b.ReportAllocs()
			q := newBatcher(count, time.Second)
			var batch []*operation
			for b.Loop() {
				for range count {
					if q.start(placeKind, nil, 1) == nil {
						b.Fatal("the queue is full")
					}
				}
				if batch = q.take(batch[:0], count, count); len(batch) != count {
					b.Fatalf("a batch of %d", len(batch))
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*count), "ns/order")
		})
	}
}

// BenchmarkBatcherHandOver has callers wait for a worker that ends every operation at once.
func BenchmarkBatcherHandOver(b *testing.B) {
	const callers, countMax = 256, 256
	b.ReportAllocs()
	q := newBatcher(callers*8, time.Minute)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for batch := q.take(nil, countMax, countMax); len(batch) > 0; batch = q.take(batch[:0], countMax, countMax) {
			for _, op := range batch {
				op.done <- nil
			}
		}
	}()
	b.SetParallelism(callers)
	b.RunParallel(func(turn *testing.PB) {
		for turn.Next() {
			if err := q.do(b.Context(), placeKind, nil, 1); err != nil {
				b.Error(err)
				return
			}
		}
	})
	q.close()
	<-done
}

// BenchmarkOrderRecord writes and reads an order as Redis and the events of its steps hold it.
func BenchmarkOrderRecord(b *testing.B) {
	for _, items := range []int{1, 100} {
		at := time.UnixMilli(1_700_000_000_000).UTC()
		order := Order{
			ID: 1 << 60, UserID: 123_456, Status: Success, Total: int64(items) * 1990,
			Items:     slices.Repeat([]Item{{ProductID: 4711, Quantity: 1, Price: 1990}}, items),
			CreatedAt: at, History: []Step{{Status: Pending, At: at}, {Status: Success, At: at}},
		}
		record := string(encodeOrder(&order))
		b.Run(fmt.Sprintf("encode/items=%d", items), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if len(encodeOrder(&order)) != len(record) {
					b.Fatal("another record of the same order")
				}
			}
		})
		b.Run(fmt.Sprintf("decode/items=%d", items), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeOrder(order.ID, record); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

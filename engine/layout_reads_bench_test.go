package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkLayoutReads compares, in turns, what reads cost that ask every partition: the time until one is answered that waits for
// no other, and the CPU time of all masters.
func BenchmarkLayoutReads(b *testing.B) {
	const products, page, reads = 1000, 100, 100
	var stands []*stand
	for _, l := range layouts {
		stands = append(stands, openStand(b, l, products))
	}
	// sell has the shops sell as many orders each, over all partitions.
	sell := func(pick func(n int) int) {
		for _, s := range stands {
			s.pick = pick
			for i := range 60 {
				s.call(b, i%len(s.users), standOrders)
			}
		}
	}
	top := func(ctx context.Context, s *stand, _ int) error {
		_, _, err := s.Engine.Top(ctx, 5)
		return err
	}
	zipf := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.1, 1, products-1)
	for _, read := range []struct {
		name string
		do   func(ctx context.Context, s *stand, n int) error
	}{
		{"product", func(ctx context.Context, s *stand, n int) error {
			_, err := s.Engine.Product(ctx, s.products[n%products])
			return err
		}},
		{fmt.Sprintf("page=%d", page), func(ctx context.Context, s *stand, n int) error {
			_, _, err := s.Engine.Products(ctx, s.products[n%(products-page)], page)
			return err
		}},
		{"top=5/equal", top},
		{"top=5/zipf", top},
	} {
		switch read.name {
		case "top=5/equal":
			sell(nil)
		case "top=5/zipf":
			sell(func(int) int { return int(zipf.Uint64()) })
		}
		b.Run(read.name, func(b *testing.B) {
			took, cpu := make([]time.Duration, len(stands)), make([]time.Duration, len(stands))
			for b.Loop() {
				for i, s := range stands {
					before, begun := s.used(b), time.Now()
					for n := range reads {
						if err := read.do(b.Context(), s, n); err != nil {
							b.Fatal(err)
						}
					}
					took[i] += time.Since(begun)
					for master, used := range s.used(b) {
						cpu[i] += used - before[master]
					}
				}
			}
			for i, s := range stands {
				each := float64(1000 * b.N * reads) // ns to us
				b.ReportMetric(float64(took[i])/each, s.name+"-us/read")
				b.ReportMetric(float64(cpu[i])/each, s.name+"-redis-us/read")
			}
		})
	}
}

// BenchmarkLayoutReplica compares, in turns, how long calls take that are acknowledged by the master alone, and by a replica too.
func BenchmarkLayoutReplica(b *testing.B) {
	l := layout{partitions: 12, masters: 3, replicas: 1}
	alone := openStand(b, l, 1)
	l.acked = true
	acked := openStand(b, l, 1)
	for _, orders := range []int{1, standOrders} {
		b.Run(fmt.Sprintf("orders=%d", orders), func(b *testing.B) {
			const calls = 120
			took := map[*stand]time.Duration{}
			for b.Loop() {
				for _, s := range []*stand{alone, acked} {
					begun := time.Now()
					for i := range calls {
						s.call(b, i%l.partitions, orders)
					}
					took[s] += time.Since(begun)
				}
			}
			each := float64(1000 * b.N * calls)
			b.ReportMetric(float64(took[alone])/each, "master-us/call")
			b.ReportMetric(float64(took[acked])/each, "replica-us/call")
			b.ReportMetric(float64(took[acked])/float64(took[alone]), "ratio")
		})
	}
}

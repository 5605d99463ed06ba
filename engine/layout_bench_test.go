package engine_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// layout is where a shop runs.
type layout struct {
	partitions, masters int
	replicas            int  // of each master
	acked               bool // by a replica, before anything is acknowledged
}

// layouts are what one shop after another outgrows.
var layouts = []layout{{partitions: 1, masters: 1}, {partitions: 4, masters: 1}, {partitions: 12, masters: 3}, {partitions: 60, masters: 3}}

// stand is a shop in one of the layouts, with the same number of buyers in each partition, and nothing that runs out.
type stand struct {
	*shoptest.Shop
	name     string
	users    [][]int64 // by partition
	products []int64
	pick     func(n int) int // which product an order is of; nil: one after the other
	n        int

	orders int64
	cpu    map[string]time.Duration // of each master, for them
}

const (
	standBuyers = 16  // in a partition
	standOrders = 256 // a call
	standCalls  = 60  // a round, over all partitions in turn
)

func openStand(b *testing.B, l layout, products int) *stand {
	b.Helper()
	s := &stand{
		name: fmt.Sprintf("P=%d", l.partitions), users: make([][]int64, l.partitions), cpu: map[string]time.Duration{},
		Shop: shoptest.Start(b, stack.Options{RedisNodes: l.masters, RedisReplicas: l.replicas, Log: slog.New(slog.DiscardHandler)}, shop.Config{
			Partitions: l.partitions, Replica: l.acked, NoWriter: true, BacklogCap: 1 << 40, OperationTimeout: patience, Log: slog.New(slog.DiscardHandler),
		}),
	}
	for missing := l.partitions * standBuyers; missing > 0; {
		for _, user := range s.Users(missing, 1_000_000_000_000) {
			p := s.Engine.Keys().OfUser(user)
			if len(s.users[p]) < standBuyers {
				s.users[p] = append(s.users[p], user)
				missing--
			}
		}
	}
	for range products {
		s.products = append(s.products, s.Product(1, 1_000_000_000))
	}
	return s
}

// call places so many orders of one line in a partition.
func (s *stand) call(b *testing.B, partition, orders int) {
	b.Helper()
	ops := make([]*engine.Op, orders)
	for i := range ops {
		s.n++
		product := s.n % len(s.products)
		if s.pick != nil {
			product = s.pick(s.n)
		}
		ops[i] = s.Engine.PlaceOp(engine.PlaceRequest{
			UserID: s.users[partition][s.n%standBuyers], Key: strconv.Itoa(s.n), Lines: lines(s.products[product], 1),
		})
	}
	for i, outcome := range s.Engine.Send(s.Engine.KnownEpoch(partition), ops...) {
		if outcome.Err != nil || outcome.Replayed {
			b.Fatalf("order %d of a call: %+v", i, outcome)
		}
	}
}

// round makes calls in all partitions in turn and notes what they cost each master.
func (s *stand) round(b *testing.B) {
	b.Helper()
	before := s.used(b)
	for i := range standCalls {
		s.call(b, i%len(s.users), standOrders)
	}
	for master, used := range s.used(b) {
		s.cpu[master] += used - before[master]
	}
	s.orders += standCalls * standOrders
}

// used is the CPU time that each master has used.
func (s *stand) used(b *testing.B) map[string]time.Duration {
	b.Helper()
	all := map[string]time.Duration{}
	var mu sync.Mutex
	note := func(ctx context.Context, c *redis.Client) error {
		text, err := c.Info(ctx, "cpu").Result()
		if err != nil {
			return err
		}
		sum := time.Duration(0)
		for line := range strings.Lines(text) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name == "used_cpu_sys" || name == "used_cpu_user" {
				seconds, err := strconv.ParseFloat(value, 64)
				if err != nil {
					return err
				}
				sum += time.Duration(seconds * float64(time.Second))
			}
		}
		mu.Lock()
		defer mu.Unlock()
		all[c.Options().Addr] = sum
		return nil
	}
	var err error
	switch c := s.Redis.(type) {
	case *redis.ClusterClient:
		err = c.ForEachMaster(b.Context(), note)
	case *redis.Client:
		err = note(b.Context(), c)
	}
	if err != nil {
		b.Fatal(err)
	}
	return all
}

// cost is what an order has cost all masters together.
func (s *stand) cost() float64 {
	sum := time.Duration(0)
	for _, used := range s.cpu {
		sum += used
	}
	return float64(sum.Nanoseconds()) / 1000 / float64(s.orders)
}

// skew is by how much the busiest master was busier than all on average.
func (s *stand) skew() float64 {
	var all []float64
	sum := 0.0
	for _, used := range s.cpu {
		all = append(all, used.Seconds())
		sum += used.Seconds()
	}
	return slices.Max(all) / (sum / float64(len(all)))
}

// BenchmarkLayout compares, round by round in turns, what an order costs Redis in calls of 256 for different numbers of partitions and
// masters: of one hot product, and of many.
func BenchmarkLayout(b *testing.B) {
	for _, catalogue := range []struct {
		name     string
		products int
	}{{"hot", 1}, {"uniform", 1000}} {
		b.Run(catalogue.name, func(b *testing.B) {
			var stands []*stand
			for _, l := range layouts {
				stands = append(stands, openStand(b, l, catalogue.products))
			}
			for b.Loop() {
				for _, s := range stands {
					s.round(b)
				}
			}
			for _, s := range stands {
				b.ReportMetric(s.cost(), s.name+"-redis-us/order")
				b.ReportMetric(s.cost()/stands[0].cost(), s.name+"-ratio")
				b.ReportMetric(s.skew(), s.name+"-busiest/mean")
			}
		})
	}
}

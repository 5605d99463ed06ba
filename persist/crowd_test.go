package persist_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
)

func TestSale_CrowdOnOneProductClosesTheBooks(t *testing.T) {
	const buyers, attempts, units = 200, 50, 500
	s, conn := start(t, shop.Config{})
	product := s.Product(100, units)
	users := make([]int64, buyers)
	for i := range users {
		users[i] = s.User(1_000_000)
	}
	var sold, refused atomic.Int64
	var all sync.WaitGroup
	for _, user := range users {
		all.Go(func() {
			for n := range attempts {
				_, _, err := s.Engine.Place(context.Background(), engine.PlaceRequest{
					UserID: user, Key: fmt.Sprint(n), Lines: []engine.Line{line(product, 1)},
				})
				switch {
				case err == nil:
					sold.Add(1)
				case errors.Is(err, engine.ErrOutOfStock):
					refused.Add(1)
				default:
					t.Errorf("an order ends in %v", err)
				}
			}
		})
	}
	all.Wait()
	if sold.Load() != units || refused.Load() != buyers*attempts-units {
		t.Errorf("%d sold, %d refused", sold.Load(), refused.Load())
	}
	s.Written()
	for sql, want := range map[string]int64{
		"SELECT count(*) FROM orders WHERE status = 'SUCCESS'": units,
		"SELECT sum(quantity)::bigint FROM order_items":        units,
		"SELECT stock FROM products":                           0,
		"SELECT sum(balance)::bigint FROM users":               buyers*1_000_000 - units*100,
	} {
		if got := number(t, conn, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
	auditClean(t, s)
}

// An audit of a shop that sells must find nothing: Redis is always ahead of Postgres.
func TestAudit_OfARunningShopRaisesNoFalseAlarm(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprintf("P=%d", partitions), func(t *testing.T) {
			s, _ := start(t, shop.Config{Partitions: partitions})
			products := []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000)}
			ctx, cancel := context.WithCancel(context.Background())
			var all sync.WaitGroup
			for n := range 24 {
				user := s.User(int64(100 + 5000*(n%4)))
				all.Go(func() {
					random := rand.New(rand.NewPCG(uint64(n), 0))
					for i := 0; ctx.Err() == nil; i++ {
						key := fmt.Sprintf("%d-%d", n, i)
						switch random.IntN(8) {
						case 0:
							_, _, _ = s.Engine.Charge(context.Background(), engine.ChargeRequest{UserID: user, Amount: 50, Key: key})
						case 1:
							_, _, _ = s.Engine.Restock(context.Background(), engine.RestockRequest{
								ProductID: products[1], Delta: int64(random.IntN(5) + 1), Reason: "delivery", Key: key,
							})
						default:
							_, _, _ = s.Engine.Place(context.Background(), engine.PlaceRequest{UserID: user, Key: key, Lines: []engine.Line{
								line(products[random.IntN(3)], 1), line(products[random.IntN(3)], 2),
							}})
						}
					}
				})
			}
			for range 4 {
				time.Sleep(100 * time.Millisecond)
				auditClean(t, s)
			}
			cancel()
			all.Wait()
			s.Written()
			auditClean(t, s)
		})
	}
}

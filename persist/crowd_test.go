package persist_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/persist"
)

func TestSale_CrowdOnOneProductClosesTheBooks(t *testing.T) {
	t.Parallel()
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

// An audit of a shop that sells must find nothing: Redis is always ahead of Postgres, holds expire, carts change, orders
// leave Redis and come back.
func TestAudit_OfARunningShopRaisesNoFalseAlarm(t *testing.T) {
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprintf("P=%d", partitions), func(t *testing.T) {
			persist.KeepEvents(t, 200)
			s, _ := start(t, shop.Config{Partitions: partitions, Hold: 200 * time.Millisecond})
			products := []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000), s.Product(0, 100_000)}
			var users []int64
			for n := range 8 {
				users = append(users, s.User(int64(100+5000*(n%4))))
			}
			stop := busy(t, s.Shop, users, products, uint64(partitions))
			for range 2 {
				awaitEvents(t, s.Shop, 200)
				auditClean(t, s)
			}
			stop()
			s.Written()
			auditClean(t, s)
			v, err := s.Engine.Look(t.Context(), 0)
			if err != nil || v.LetGo.Events == 0 {
				t.Errorf("nothing has left Redis: %+v, %v", v, err)
			}
		})
	}
}

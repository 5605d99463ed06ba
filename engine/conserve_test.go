package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"stampede/engine"
)

// Many at once: whatever the interleaving, money and units are conserved.
func TestShop_ConservesMoneyAndUnitsUnderConcurrency(t *testing.T) {
	s := common.open(t)
	e, ctx, from := s.Engine, context.Background(), positions(t, s.Engine)
	const users, products, buyers, attempts = 12, 6, 24, 60
	stock := map[int64]int64{}
	funds := map[int64]int64{}
	var userIDs, productIDs []int64
	for i := range int64(users) {
		id := s.User(40 * i)
		userIDs, funds[id] = append(userIDs, id), 40*i
	}
	for i := range int64(products) {
		id := s.Product(1+i, 60*(1+i))
		productIDs, stock[id] = append(productIDs, id), 60*(1+i)
	}

	var mu sync.Mutex
	refused := map[string]int{}
	changes, placed := 0, 0
	var group sync.WaitGroup
	for b := range buyers {
		group.Go(func() {
			for i := range attempts {
				user := userIDs[(b*7+i)%users]
				at := (b + i*i) % products
				key := fmt.Sprintf("%d of %d", i, b)
				var err error
				switch i % 6 {
				case 0:
					_, _, err = e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: int64(i), Key: key})
					if i == 0 {
						wantErr(t, "charge of 0", err, engine.ErrInvalid)
						continue
					}
				case 1:
					r := engine.RestockRequest{ProductID: productIDs[at], Delta: int64(i%5 - 3), Key: fmt.Sprintf("%s for %d", key, productIDs[at])}
					err = inCrowd(func() error {
						_, _, err := e.Restock(ctx, r)
						return err
					})
					if i%5 == 3 {
						wantErr(t, "restock of 0", err, engine.ErrInvalid)
						continue
					}
				default:
					r := engine.PlaceRequest{UserID: user, Key: key, Lines: lines(
						productIDs[at], int64(1+i%3), productIDs[(at+2)%products], 1, productIDs[at], 1, productIDs[(at+5)%products], 2)}
					var order engine.Order
					order, err = placeInCrowd(e, r)
					if err == nil {
						mu.Lock()
						funds[user] -= order.Total
						for _, item := range order.Items {
							stock[item.ProductID] -= item.Quantity
						}
						placed++
						mu.Unlock()
					}
				}
				mu.Lock()
				switch {
				case err == nil:
					changes++
					switch i % 6 {
					case 0:
						funds[user] += int64(i)
					case 1:
						stock[productIDs[at]] += int64(i%5 - 3)
					}
				case errors.Is(err, engine.ErrOutOfStock), errors.Is(err, engine.ErrInsufficientBalance):
					refused[errors.Unwrap(err).Error()]++
				default:
					t.Errorf("%s: %v", key, err)
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()

	if placed == 0 || len(refused) != 2 {
		t.Errorf("%d orders, refusals %v: the mix lacks something", placed, refused)
	}
	for id, want := range funds {
		wantBalance(t, e, id, want)
		if want < 0 {
			t.Errorf("balance of user %d: %d", id, want)
		}
	}
	for id, want := range stock {
		wantStock(t, e, id, want)
		if want < 0 {
			t.Errorf("stock of product %d: %d", id, want)
		}
	}
	// entriesAfter finds every gap; here the number says that no change went unwritten, and none was written twice.
	events := slices.DeleteFunc(changesAfter(t, s, from), func(ev engine.Event) bool {
		return ev.Kind == engine.Restocked && ev.Key == "" // an initial stock: one of each partition
	})
	if set := users - 1; len(events) != set+changes { // first charges
		t.Errorf("%d events, %d changes", len(events), set+changes)
	}
	wantFold(t, s, from)
}

package engine_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"stampede/engine"
)

func TestPartitions_KeepUsersApartAndTheirBooksWhole(t *testing.T) {
	s := wide.open(t)
	e, k, ctx := s.Engine, s.Engine.Keys(), context.Background()
	from := positions(t, e)
	product := s.Product(2, 1000)
	users := map[int]int64{} // one in each partition
	for len(users) < wideness {
		user := s.User(100)
		users[k.OfUser(user)] = user
	}

	bought := int64(0)
	for p, user := range users {
		request := engine.PlaceRequest{UserID: user, Key: "key", Lines: lines(product, 3)}
		order, _, err := e.Place(ctx, request)
		if err != nil {
			t.Fatal(err)
		}
		bought += 3
		wantBalance(t, e, user, 94)
		for _, owner := range []int64{user, 0} {
			stored, err := e.Order(ctx, order.ID, owner)
			if err != nil || describe(stored) != describe(order) {
				t.Errorf("order %d read for user %d: %s, %v", order.ID, owner, describe(stored), err)
			}
		}
		_, err = e.Order(ctx, order.ID, users[(p+1)%wideness])
		wantErr(t, "order of another", err, engine.ErrOrderNotFound)
	}
	wantStock(t, e, product, 1000-bought)
	stock, replayed, err := e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: 5, Key: fmt.Sprint("restock of ", product)})
	if err != nil || replayed || stock != 1000-bought+5 {
		t.Errorf("restock: %d, %t, %v", stock, replayed, err)
	}
	wantFold(t, s, from)
	s.Written()
}

// The admins' keys are one scope, though the products lie in several partitions.
func TestPartitions_AdminsKeyServesOneProduct(t *testing.T) {
	s := wide.open(t)
	e, k, ctx := s.Engine, s.Engine.Keys(), context.Background()
	here, there := s.Product(1, 10), s.Product(1, 10)
	for k.Home(there) == k.Home(here) {
		there = s.Product(1, 10)
	}
	if _, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: here, Delta: 1, Key: fmt.Sprint("key of ", here)}); err != nil {
		t.Fatal(err)
	}
	_, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: there, Delta: 1, Key: fmt.Sprint("key of ", here)})
	wantErr(t, "the key of a product elsewhere", err, engine.ErrKeyReused)
	wantStock(t, e, there, 10)

	t.Run("at once", func(t *testing.T) {
		var both int
		for i := range 100 {
			var errs [2]error
			var group sync.WaitGroup
			for n, product := range []int64{here, there} {
				group.Go(func() {
					_, _, errs[n] = e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: 1, Key: fmt.Sprintf("%d at once of %d", i, here)})
				})
			}
			group.Wait()
			if errs[0] == nil && errs[1] == nil {
				both++
			}
		}
		if both > 0 {
			t.Errorf("%d of 100 keys had two effects", both)
		}
	})
}

package shop_test

import (
	"fmt"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// A hundred thousand products, or where each stands in several partitions as many records, are paged through by cursor,
// while some of them are sold: each comes once, in order, with the stock of the moment at which its page was read.
func TestCatalogue_IsPagedThroughWhileItSells(t *testing.T) {
	const page = 200
	s := shoptest.Start(t, stack.Options{}, shop.Config{NoWriter: true})
	partitions := int64(s.Engine.Keys().Partitions())
	products, stock := 100_000/partitions, 7*partitions // without a writer none is lent
	list(t, s, products, stock)
	buyer := buyerWith(t, s, 1_000_000)
	seen, sold := int64(0), int64(0)
	for more := true; more; {
		var got []engine.Product
		var err error
		// One of the page to come, and one of those behind: only the first is seen with less stock.
		for _, id := range []int64{seen + 1, seen - 1} {
			if id > 0 && id <= products {
				buy(t, s, buyer, id)
			}
		}
		sold = min(seen+1, products)
		got, more, err = s.Engine.Products(t.Context(), seen, page)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range got {
			want := stock
			if p.ID == sold {
				want--
			}
			if p.ID != seen+1+int64(i) || p.Stock != want || p.Name != fmt.Sprint("Thing ", p.ID) {
				t.Fatalf("behind %d comes %+v, want stock %d", seen, p, want)
			}
		}
		if seen += int64(len(got)); len(got) < page && more {
			t.Fatalf("a page of %d, and more to come", len(got))
		}
	}
	if seen != products {
		t.Errorf("%d products were listed, want %d", seen, products)
	}
}

// list puts products straight into Redis, as a repair does.
func list(t *testing.T, s *shoptest.Shop, products, stock int64) {
	t.Helper()
	listings := make([]engine.Listing, products)
	for i := range listings {
		id := int64(i) + 1
		listings[i] = engine.Listing{InitialStock: stock, Product: engine.Product{
			ID: id, Name: fmt.Sprint("Thing ", id), Price: 1, Version: 1, CreatedAt: time.Now(),
		}}
	}
	for p := range s.Engine.Keys().Partitions() {
		door, err := s.Engine.Look(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Engine.ListBehind(p, door.Epoch, listings); err != nil {
			t.Fatal(err)
		}
	}
}

// buyerWith opens an account straight in Redis: no Postgres has a part in this test.
func buyerWith(t *testing.T, s *shoptest.Shop, balance int64) int64 {
	t.Helper()
	const user = 1
	if err := s.Engine.Enroll(t.Context(), user); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Engine.Charge(t.Context(), engine.ChargeRequest{UserID: user, Amount: balance, Key: "charge"}); err != nil {
		t.Fatal(err)
	}
	return user
}

func buy(t *testing.T, s *shoptest.Shop, user, product int64) {
	t.Helper()
	_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{
		UserID: user, Lines: []engine.Line{{ProductID: product, Quantity: 1}}, Key: fmt.Sprint("buy ", product),
	})
	if err != nil {
		t.Fatal(err)
	}
}

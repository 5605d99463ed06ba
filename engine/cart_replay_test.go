package engine_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"stampede/engine"
)

func TestCart_AddUnderAKeyReplaysItsAnswerWhateverCameAfter(t *testing.T) {
	_, e := cartRoom(t, 3)
	ctx := context.Background()
	mustAdd(t, e, 1, 2, 1)
	request := engine.CartAddRequest{UserID: 1, ProductID: 1, Quantity: 3, Key: "once"}
	first, replayed, err := e.AddToCart(ctx, request)
	if err != nil || replayed || !slices.Equal(inCart(first), []int64{2, 1, 1, 3}) {
		t.Fatalf("%+v, %t, %v", first, replayed, err)
	}
	again := func(what string) {
		t.Helper()
		got, replayed, err := e.AddToCart(ctx, request)
		if err != nil || !replayed || !reflect.DeepEqual(got, first) {
			t.Errorf("%s: %+v, %t, %v, was %+v", what, got, replayed, err, first)
		}
	}
	again("at once")
	l := listing(1, 999, 0)
	l.Version, l.Name = 2, "Dearer thing"
	if err := e.List(ctx, l.Product, 0); err != nil {
		t.Fatal(err)
	}
	again("after another price and name")
	if _, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: 1, Delta: -500, Key: "less"}); err != nil {
		t.Fatal(err)
	}
	again("after another stock")
	mustAdd(t, e, 1, 3, 1)
	again("after another product")
	if _, err := e.RemoveFromCart(ctx, 1, 1); err != nil {
		t.Fatal(err)
	}
	again("after it was taken out")
	if _, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: 1, Key: "buy"}); err != nil {
		t.Fatal(err)
	}
	again("after the cart was bought")
	wantInCart(t, e, 1)
	request.Quantity++
	_, _, err = e.AddToCart(ctx, request)
	wantErr(t, "the key with another request", err, engine.ErrKeyReused)
	_, _, err = e.OrderCart(ctx, engine.CartOrderRequest{UserID: 1, Key: "once"})
	wantErr(t, "an order under the key of an add", err, engine.ErrKeyReused)

	// A hundred at once under one key add once.
	var group sync.WaitGroup
	carts := make([]engine.Cart, 100)
	for i := range carts {
		group.Go(func() {
			var err error
			if carts[i], _, err = e.AddToCart(ctx, engine.CartAddRequest{UserID: 2, ProductID: 2, Quantity: 3, Key: "crowd"}); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, c := range carts {
		if !reflect.DeepEqual(c, carts[0]) {
			t.Fatalf("two answers: %+v and %+v", c, carts[0])
		}
	}
	wantInCart(t, e, 2, 2, 3)
}

func TestCart_OfSeveralPartitionsShowsAllStock(t *testing.T) {
	const partitions, users = 4, 12
	r := lab.open(t).room(t, 0, engine.Config{Partitions: partitions})
	funds := slices.Repeat([]int64{1000}, users)
	r.fund(t, funds...)
	for id := range int64(8) {
		r.stock(t, listing(id+1, 2, 50))
	}
	e, ctx := r.run(t), context.Background()
	met := map[string]int{}
	for user := int64(1); user <= users; user++ {
		var want []int64
		for id := range int64(8) {
			if (id+user)%3 > 0 {
				continue
			}
			request := engine.CartAddRequest{UserID: user, ProductID: id + 1, Quantity: 1 + id%2, Key: fmt.Sprint("add ", id)}
			if id%2 == 0 {
				request.Key = ""
			}
			want = append(want, request.ProductID, request.Quantity)
			cart, _, err := e.AddToCart(ctx, request)
			if err != nil || !slices.Equal(inCart(cart), want) {
				t.Fatalf("%+v: %+v, %v", request, cart, err)
			}
			for _, item := range cart.Items {
				if p, err := e.Product(ctx, item.ProductID); err != nil || p.Stock != item.Stock || p.Name != item.Name || p.Price != item.Price {
					t.Errorf("%+v: the cart shows %+v, the product is %+v, %v", request, item, p, err)
				}
			}
		}
		wantInCart(t, e, user, want...)
		order, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: user, Later: user%2 == 0, Key: "buy"})
		if err != nil {
			wantErr(t, "stock in another partition", err, engine.ErrElsewhere)
			wantInCart(t, e, user, want...)
			met["elsewhere"]++
			continue
		}
		if !slices.Equal(linesOf(&order), lines(want...)) {
			t.Errorf("order %s", describe(order))
		}
		met["bought"]++
		wantInCart(t, e, user)
	}
	t.Logf("%v", met)
	// One that can be bought: a product at home where its buyer lives.
	for user := int64(1); user <= users; user++ {
		for id := int64(1); id <= 8; id++ {
			if r.e.Keys().Home(id) != r.e.Keys().OfUser(user) {
				continue
			}
			for i := range int64(8) {
				if _, err := e.RemoveFromCart(ctx, user, i+1); err != nil {
					t.Fatal(err)
				}
			}
			mustAdd(t, e, user, id, 1)
			if _, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: user, Key: fmt.Sprint("home ", id)}); err != nil {
				t.Errorf("user %d, product %d: %v", user, id, err)
			}
			wantInCart(t, e, user)
		}
	}
}

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

const cartFunds = 100_000_000

// cartRoom is a room with rich users 1 to 4 and products 1 to n of price 1 to n.
func cartRoom(t *testing.T, products int64) (*room, *engine.Engine) {
	t.Helper()
	r := lab.open(t).room(t, 0, engine.Config{})
	r.fund(t, cartFunds, cartFunds, cartFunds, cartFunds)
	for id := range products {
		r.stock(t, listing(id+1, id+1, 100_000))
	}
	return r, r.run(t)
}

func mustAdd(t *testing.T, e *engine.Engine, user, product, quantity int64) engine.Cart {
	t.Helper()
	cart, _, err := e.AddToCart(context.Background(), engine.CartAddRequest{UserID: user, ProductID: product, Quantity: quantity})
	if err != nil {
		t.Fatal(err)
	}
	return cart
}

// inCart is what a cart holds, as product, quantity, product, quantity, ...
func inCart(c engine.Cart) (flat []int64) {
	for _, i := range c.Items {
		flat = append(flat, i.ProductID, i.Quantity)
	}
	return flat
}

func wantInCart(t *testing.T, e *engine.Engine, user int64, want ...int64) {
	t.Helper()
	cart, err := e.Cart(context.Background(), user)
	if err != nil || !slices.Equal(inCart(cart), want) {
		t.Errorf("cart of user %d: %v (%v), want %v", user, inCart(cart), err, want)
	}
}

func TestCart_KeepsTheOrderInWhichProductsCame(t *testing.T) {
	_, e := cartRoom(t, 5)
	ctx := context.Background()
	for _, product := range []int64{3, 1, 5, 3, 1} {
		mustAdd(t, e, 1, product, 2)
	}
	wantInCart(t, e, 1, 3, 4, 1, 4, 5, 2)
	if _, err := e.RemoveFromCart(ctx, 1, 3); err != nil {
		t.Fatal(err)
	}
	for _, nothing := range []int64{3, 4, 99, engine.IDMax + 1} {
		cart, err := e.RemoveFromCart(ctx, 1, nothing)
		if err != nil || !slices.Equal(inCart(cart), []int64{1, 4, 5, 2}) {
			t.Errorf("removing product %d: %v, %v", nothing, inCart(cart), err)
		}
	}
	cart := mustAdd(t, e, 1, 3, 7)
	if !slices.Equal(inCart(cart), []int64{1, 4, 5, 2, 3, 7}) || cart.Total() != 4+10+21 {
		t.Errorf("cart %+v costs %d", cart, cart.Total())
	}
	order, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: 1, Key: "buy"})
	if err != nil || !slices.Equal(linesOf(&order), lines(1, 4, 5, 2, 3, 7)) || order.Total != 35 {
		t.Errorf("order %s, %v", describe(order), err)
	}
	wantInCart(t, e, 1)
	wantStock(t, e, 5, 100_000-2)
}

func TestCart_IsCappedByProductsAndUnits(t *testing.T) {
	r, e := cartRoom(t, engine.LinesMax+1)
	ctx := context.Background()
	for id := range int64(engine.LinesMax) {
		mustAdd(t, e, 1, id+1, 1)
	}
	before := dump(t, r.redis)
	for what, c := range map[string]struct {
		request engine.CartAddRequest
		want    engine.Refusal
	}{
		"one product too many":       {engine.CartAddRequest{ProductID: engine.LinesMax + 1, Quantity: 1}, engine.Refusal{Reason: engine.ErrCartFull, ProductID: engine.LinesMax + 1}},
		"one unit too many":          {engine.CartAddRequest{ProductID: 7, Quantity: engine.QuantityMax}, engine.Refusal{Reason: engine.ErrCartFull, ProductID: 7, Left: 1}},
		"one product too many, once": {engine.CartAddRequest{ProductID: engine.LinesMax + 1, Quantity: 1, Key: "a"}, engine.Refusal{Reason: engine.ErrCartFull, ProductID: engine.LinesMax + 1}},
		"one unit too many, once":    {engine.CartAddRequest{ProductID: 7, Quantity: engine.QuantityMax, Key: "b"}, engine.Refusal{Reason: engine.ErrCartFull, ProductID: 7, Left: 1}},
	} {
		c.request.UserID = 1
		_, _, err := e.AddToCart(ctx, c.request)
		wantRefusal(t, what, err, c.want)
	}
	if d := differences(before, dump(t, r.redis)); d != "" {
		t.Errorf("refusals changed:\n%s", d)
	}
	mustAdd(t, e, 1, 7, engine.QuantityMax-1)
	order, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: 1, Key: "all of it"})
	if err != nil || len(order.Items) != engine.LinesMax || order.Items[6].Quantity != engine.QuantityMax {
		t.Errorf("the largest cart: %d lines, %v", len(order.Items), err)
	}

	var group sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for i := range 40 {
		group.Go(func() {
			request := engine.CartAddRequest{UserID: 2, ProductID: 1, Quantity: engine.QuantityMax / 10}
			if i%2 == 0 {
				request.Key = fmt.Sprint(i)
			}
			_, _, err := e.AddToCart(ctx, request)
			if err != nil {
				wantErr(t, "over the cap", err, engine.ErrCartFull)
				return
			}
			mu.Lock()
			done++
			mu.Unlock()
		})
	}
	group.Wait()
	if done != 10 {
		t.Errorf("%d tenths fit", done)
	}
	wantInCart(t, e, 2, 1, engine.QuantityMax)
}

// units counts by product, for many at once.
type units struct {
	mu sync.Mutex
	of map[int64]int64
}

func (u *units) add(product, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.of[product] += n
}

// What comes into a cart while it is bought is either bought or stays.
func TestCart_AddsWhileItIsOrderedSurvive(t *testing.T) {
	const products, adders, adds = 3, 8, 60
	_, e := cartRoom(t, products)
	other, ctx := lab.engine(t, 0, engine.Config{}), context.Background()
	other.Start()
	awaitReady(t, other)
	engines := []*engine.Engine{e, other}

	added, bought := units{of: map[int64]int64{}}, units{of: map[int64]int64{}}
	var group, buyers sync.WaitGroup
	for a := range adders {
		group.Go(func() {
			for i := range adds {
				request := engine.CartAddRequest{UserID: 1, ProductID: int64((a+i)%products) + 1, Quantity: int64(1 + i%3)}
				if i%2 == 0 {
					request.Key = fmt.Sprintf("%d of %d", i, a)
				}
				_, replayed, err := engines[a%2].AddToCart(ctx, request)
				switch {
				case err == nil && !replayed:
					added.add(request.ProductID, request.Quantity)
				case !errors.Is(err, engine.ErrOverloaded): // the cart changed too fast: not done
					t.Errorf("add: replayed %t, %v", replayed, err)
				}
			}
		})
	}
	stop := make(chan struct{})
	for b := range 4 {
		buyers.Go(func() { buyCarts(t, engines[b%2], b, stop, &bought) })
	}
	group.Wait()
	close(stop)
	buyers.Wait()
	cart, err := e.Cart(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	left := map[int64]int64{}
	for _, item := range cart.Items {
		left[item.ProductID] += item.Quantity
	}
	t.Logf("added %v, bought %v, left %v", added.of, bought.of, left)
	for id := int64(1); id <= products; id++ {
		if bought.of[id]+left[id] != added.of[id] || bought.of[id] == 0 {
			t.Errorf("product %d: added %d, bought %d, left %d", id, added.of[id], bought.of[id], left[id])
		}
		wantStock(t, e, id, 100_000-bought.of[id])
	}
}

// buyCarts orders the cart of user 1 until stop, now or later.
func buyCarts(t *testing.T, e *engine.Engine, buyer int, stop <-chan struct{}, bought *units) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		order, replayed, err := e.OrderCart(context.Background(), engine.CartOrderRequest{
			UserID: 1, Later: buyer > 1, Key: fmt.Sprintf("order %d of %d", i, buyer),
		})
		switch {
		case err == nil && !replayed:
			for _, item := range order.Items {
				bought.add(item.ProductID, item.Quantity)
			}
		case !errors.Is(err, engine.ErrCartEmpty) && !errors.Is(err, engine.ErrOverloaded):
			t.Errorf("order: replayed %t, %v", replayed, err)
		}
	}
}

func TestCart_OrderedTwiceAtOnceIsBoughtOnce(t *testing.T) {
	_, e := cartRoom(t, 2)
	other, ctx := lab.engine(t, 0, engine.Config{}), context.Background()
	other.Start()
	awaitReady(t, other)
	for round := range 50 {
		mustAdd(t, e, 1, 1, 2)
		mustAdd(t, e, 1, 2, 1)
		sameKey := round%2 == 0
		var orders [2]engine.Order
		var errs [2]error
		var group sync.WaitGroup
		for i, e := range []*engine.Engine{e, other} {
			key := fmt.Sprintf("round %d, %d", round, i)
			if sameKey {
				key = fmt.Sprint("round ", round)
			}
			group.Go(func() { orders[i], _, errs[i] = e.OrderCart(ctx, engine.CartOrderRequest{UserID: 1, Key: key}) })
		}
		group.Wait()
		switch {
		case sameKey && (errs[0] != nil || errs[1] != nil || describe(orders[0]) != describe(orders[1])):
			t.Errorf("one key: %s and %s, %v", describe(orders[0]), describe(orders[1]), errs)
		case !sameKey && (errs[0] == nil) == (errs[1] == nil):
			t.Errorf("two keys: %v", errs)
		case !sameKey:
			wantErr(t, "the later one", errors.Join(errs[:]...), engine.ErrCartEmpty)
		}
		wantInCart(t, e, 1)
	}
	wantStock(t, e, 1, 100_000-100)
	wantBalance(t, e, 1, cartFunds-50*4)
}

func TestCart_OrderThatIsRefusedLeavesItAsItWas(t *testing.T) {
	r, e := cartRoom(t, 3)
	r.e.Keys()
	ctx := context.Background()
	if _, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: 2, Delta: -99_999, Key: "scarce"}); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, e, 1, 1, 5)
	mustAdd(t, e, 1, 2, 2)
	if err := e.Enroll(ctx, 9); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, e, 9, 3, 1)
	before := dump(t, r.redis)
	for _, later := range []bool{false, true} {
		_, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: 1, Later: later, Key: "scarce"})
		wantRefusal(t, "two of one", err, engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: 2, Left: 1})
	}
	_, _, err := e.OrderCart(ctx, engine.CartOrderRequest{UserID: 9, Key: "poor"})
	wantRefusal(t, "without money", err, engine.Refusal{Reason: engine.ErrInsufficientBalance})
	_, _, err = e.OrderCart(ctx, engine.CartOrderRequest{UserID: 2, Key: "empty"})
	wantErr(t, "an empty cart", err, engine.ErrCartEmpty)
	_, _, err = e.OrderCart(ctx, engine.CartOrderRequest{UserID: 77, Key: "nobody"})
	wantErr(t, "nobody's cart", err, engine.ErrUserNotFound)
	if d := differences(before, dump(t, r.redis)); d != "" {
		t.Errorf("refusals changed:\n%s", d)
	}
	wantInCart(t, e, 1, 1, 5, 2, 2)
}

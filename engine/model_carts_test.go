package engine_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"pgregory.net/rapid"

	"stampede/engine"
)

// cart is a user's cart with prices and stocks as they are now.
func (g *game) cart(user int64) engine.Cart {
	c := engine.Cart{UserID: user, Items: []engine.CartItem{}}
	for _, l := range g.m.carts[user] {
		c.Items = append(c.Items, engine.CartItem{
			ProductID: l.ProductID, Name: "Thing", Price: g.m.prices[l.ProductID], Quantity: l.Quantity, Stock: g.m.stocks[l.ProductID],
		})
	}
	return c
}

func (g *game) wantCart(t *rapid.T, what string, got, want engine.Cart) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("%s: %+v, the model says %+v", what, got, want)
	}
}

func (g *game) addToCart(t *rapid.T) {
	r := engine.CartAddRequest{
		UserID: oneOf(t, g.users, "user"), ProductID: oneOf(t, g.products, "product"),
		Quantity: rapid.SampledFrom([]int64{1, 2, 1, 3, engine.QuantityMax - 1, engine.QuantityMax}).Draw(t, "quantity"),
	}
	if rapid.Bool().Draw(t, "once") {
		r.Key = drawKey(t)
	}
	g.do(t, func(t *rapid.T) { g.doAdd(t, r) })
}

func (g *game) doAdd(t *rapid.T, r engine.CartAddRequest) {
	name, at, request := "add to cart", scopedKey{r.UserID, r.Key}, fmt.Sprintf("cart %d %d", r.ProductID, r.Quantity)
	var want any
	var replayed bool
	var wantErr error
	if r.Key != "" {
		name = "add to cart once"
		want, replayed, wantErr = g.m.known(at, request)
	}
	after := slices.Clone(g.m.carts[r.UserID])
	if wantErr == nil && !replayed {
		after, wantErr = g.judgeAdd(after, r)
	}
	got, gotReplayed, err := g.e.AddToCart(context.Background(), r)
	same(t, name, err, wantErr)
	g.meet(name, replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		g.m.carts[r.UserID] = after
		want = g.cart(r.UserID)
		if r.Key != "" {
			g.m.records[at] = record{request, want}
		}
	}
	g.wantCart(t, name, got, want.(engine.Cart))
	if gotReplayed != replayed {
		t.Fatalf("%s: replayed %t, the model says %t", name, gotReplayed, replayed)
	}
}

func (g *game) judgeAdd(cart []engine.Line, r engine.CartAddRequest) ([]engine.Line, error) {
	if _, known := g.m.balances[r.UserID]; !known {
		return nil, engine.ErrUserNotFound
	}
	if _, listed := g.m.prices[r.ProductID]; !listed {
		return nil, &engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: r.ProductID}
	}
	cart = merge(append(cart, engine.Line{ProductID: r.ProductID, Quantity: r.Quantity}))
	for _, l := range cart {
		if l.Quantity > engine.QuantityMax {
			return nil, &engine.Refusal{Reason: engine.ErrCartFull, ProductID: l.ProductID, Left: l.Quantity - r.Quantity}
		}
	}
	return cart, nil
}

func (g *game) removeFromCart(t *rapid.T) {
	user, product := oneOf(t, g.users, "user"), oneOf(t, g.products, "product")
	got, err := g.e.RemoveFromCart(context.Background(), user, product)
	if _, known := g.m.balances[user]; !known {
		same(t, "remove from nobody's cart", err, engine.ErrUserNotFound)
		return
	}
	same(t, "remove from the cart", err, nil)
	g.m.carts[user] = slices.DeleteFunc(slices.Clone(g.m.carts[user]), func(l engine.Line) bool { return l.ProductID == product })
	g.wantCart(t, "remove from the cart", got, g.cart(user))
}

func (g *game) readCart(t *rapid.T) { g.doReadCart(t, oneOf(t, g.users, "user")) }

func (g *game) doReadCart(t *rapid.T, user int64) {
	got, err := g.e.Cart(context.Background(), user)
	if _, known := g.m.balances[user]; !known {
		same(t, "nobody's cart", err, engine.ErrUserNotFound)
		return
	}
	same(t, "cart", err, nil)
	g.wantCart(t, "cart", got, g.cart(user))
}

func (g *game) orderCart(t *rapid.T) {
	r := engine.CartOrderRequest{UserID: oneOf(t, g.users, "user"), Key: drawKey(t), Later: rapid.Bool().Draw(t, "later")}
	g.do(t, func(t *rapid.T) { g.doOrderCart(t, r) })
}

func (g *game) doOrderCart(t *rapid.T, r engine.CartOrderRequest) {
	at, request := scopedKey{r.UserID, r.Key}, fmt.Sprint("order cart, later ", r.Later)
	want, replayed, wantErr := g.m.known(at, request)
	cart, total := g.m.carts[r.UserID], int64(0)
	if wantErr == nil && !replayed {
		if _, known := g.m.balances[r.UserID]; known && len(cart) == 0 {
			wantErr = engine.ErrCartEmpty
		} else {
			total, wantErr = g.m.judgeOrder(r.UserID, cart, r.Later)
		}
	}
	begin := g.now()
	got, gotReplayed, err := g.e.OrderCart(context.Background(), r)
	same(t, "order cart", err, wantErr)
	g.meet("order cart", replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		g.wantTime(t, "order cart", got.CreatedAt, begin)
		want = g.apply(r.UserID, cart, total, r.Later, got)
		g.m.records[at] = record{request, want}
		delete(g.m.carts, r.UserID)
	}
	if gotReplayed != replayed || describe(got) != describe(want.(engine.Order)) {
		t.Fatalf("order cart: %s, replayed %t; the model says %s, %t", describe(got), gotReplayed, describe(want.(engine.Order)), replayed)
	}
}

const edge = 20 * time.Second // before an edge: the rest of a game takes less

// turn turns the clock forward: by so much, or to an edge of an order's life.
func (g *game) turn(t *rapid.T) {
	by := rapid.SampledFrom([]time.Duration{
		time.Minute, 3 * time.Minute, 11 * time.Minute, time.Hour, 25 * time.Hour, 24*time.Hour + time.Minute, 71 * time.Hour,
	}).Draw(t, "by")
	if ids := slices.Sorted(maps.Keys(g.m.orders)); len(ids) > 0 && rapid.IntRange(0, 2).Draw(t, "to an edge") > 0 {
		o := g.m.orders[rapid.SampledFrom(ids).Draw(t, "order")]
		var edges []time.Time
		if o.Status == engine.Pending {
			edges = append(edges, o.ExpiresAt)
		}
		if o.Status == engine.Success {
			at := soldAt(&o)
			edges = append(edges, at.Add(turnedRefund), at.Truncate(time.Minute).Add(engine.Window))
		}
		for _, e := range edges {
			e = e.Add(rapid.SampledFrom([]time.Duration{-edge, time.Second}).Draw(t, "side"))
			if d := e.Sub(g.now()); d > 0 {
				by = d
			}
		}
	}
	turnForward(g.e, by)
	g.settle(t)
}

// sellers are the best sellers of the window that ends with a minute.
func (g *game) sellers(minute int64) []engine.Seller {
	units := map[int64]int64{}
	for _, o := range g.m.orders {
		if at := soldAt(&o); o.Status == engine.Success && at.Unix()/60 > minute-72*60 {
			for _, i := range o.Items {
				units[i.ProductID] += i.Quantity
			}
		}
	}
	var all []engine.Seller
	for id, n := range units {
		all = append(all, engine.Seller{Product: engine.Product{ID: id, Name: "Thing", Price: g.m.prices[id], Stock: g.m.stocks[id]}, Sold: n})
	}
	slices.SortFunc(all, func(a, b engine.Seller) int {
		return cmp.Or(cmp.Compare(b.Sold, a.Sold), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (g *game) top(t *rapid.T) {
	begin := g.now()
	limit := rapid.SampledFrom([]int{1, 2, 5, engine.TopMax}).Draw(t, "limit")
	at, got, err := g.e.Top(context.Background(), limit)
	end := g.now()
	same(t, "top", err, nil)
	if at.Before(begin.Add(-3*time.Millisecond)) || at.After(end) {
		t.Fatalf("top as of %v, it was %v to %v", at, begin, end)
	}
	for i := range got {
		got[i].Version, got[i].CreatedAt = 0, time.Time{}
	}
	// The minute may have changed while it was read.
	for _, minute := range []int64{begin.Unix() / 60, end.Unix() / 60} {
		want := g.sellers(minute)
		want = want[:min(limit, len(want))]
		if slices.Equal(got, want) {
			g.meet("top", false, nil)
			for i := 1; i < len(got); i++ {
				g.met["top: several"]++
				if got[i].Sold == got[i-1].Sold {
					g.met["top: a tie"]++
				}
			}
			return
		}
	}
	t.Fatalf("top: %+v, the model says %+v", got, g.sellers(end.Unix()/60))
}

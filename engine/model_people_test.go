package engine_test

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"stampede/engine"
)

func (g *game) createUser(t *rapid.T) {
	if len(g.users) > 6 {
		t.Skip("enough users")
	}
	id := g.s.User(0)
	g.users = append(g.users, id)
	g.m.balances[id] = 0
}

func (g *game) createProduct(t *rapid.T) {
	if len(g.products) > 6 {
		t.Skip("enough products")
	}
	price, stock := rapid.Int64Range(0, 9).Draw(t, "price"), rapid.Int64Range(0, 60).Draw(t, "stock")
	id := g.s.Product(price, stock)
	g.products = append(g.products, id)
	g.m.prices[id], g.m.stocks[id] = price, stock
}

// reprice changes a price; an older change that comes late must not.
func (g *game) reprice(t *rapid.T) {
	if len(g.m.prices) == 0 {
		t.Skip("no products")
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(g.m.prices))).Draw(t, "product")
	p, err := g.e.Product(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	late := rapid.Bool().Draw(t, "late")
	p.Price = rapid.Int64Range(0, 9).Draw(t, "price")
	if !late {
		p.Version++
		g.m.prices[id] = p.Price
	}
	if err := g.e.List(context.Background(), p, 5); err != nil {
		t.Fatal(err)
	}
}

func (g *game) charge(t *rapid.T) {
	r := engine.ChargeRequest{
		UserID: oneOf(t, g.users, "user"), Key: drawKey(t),
		Amount: rapid.SampledFrom([]int64{200, 60, 1, 200, 20, engine.BalanceMax - 50, engine.BalanceMax}).Draw(t, "amount"),
	}
	g.do(t, func(t *rapid.T) { g.doCharge(t, r) })
}

func (g *game) doCharge(t *rapid.T, r engine.ChargeRequest) {
	at, request := scopedKey{r.UserID, r.Key}, fmt.Sprintf("charge %d", r.Amount)
	want, replayed, wantErr := g.m.known(at, request)
	if wantErr == nil && !replayed {
		balance, known := g.m.balances[r.UserID]
		switch {
		case !known:
			wantErr = engine.ErrUserNotFound
		case balance+r.Amount > engine.BalanceMax:
			wantErr = &engine.Refusal{Reason: engine.ErrBalanceLimit, Balance: balance}
		}
	}
	got, gotReplayed, err := g.e.Charge(context.Background(), r)
	same(t, "charge", err, wantErr)
	g.meet("charge", replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		g.m.balances[r.UserID] += r.Amount
		want = engine.Charged{
			ChargeID: got.ChargeID, UserID: r.UserID, Amount: r.Amount, Balance: g.m.balances[r.UserID],
		}
		g.m.records[at] = record{request, want}
	}
	if gotReplayed != replayed || got != want {
		t.Fatalf("charge: %+v, replayed %t; the model says %+v, %t", got, gotReplayed, want, replayed)
	}
}

func (g *game) restock(t *rapid.T) {
	r := engine.RestockRequest{
		ProductID: oneOf(t, g.products, "product"), Key: g.admin + rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f"}).Draw(t, "key"),
		Delta:  rapid.SampledFrom([]int64{1, 3, 8, -1, -4, engine.StockMax, -engine.StockMax}).Draw(t, "delta"),
		Reason: rapid.SampledFrom([]string{"", "delivery", "Bruch"}).Draw(t, "reason"),
	}
	g.do(t, func(t *rapid.T) { g.doRestock(t, r) })
}

func (g *game) doRestock(t *rapid.T, r engine.RestockRequest) {
	at, request := scopedKey{0, r.Key}, fmt.Sprintf("restock %d by %d: %s", r.ProductID, r.Delta, r.Reason)
	want, replayed, wantErr := g.m.known(at, request)
	if wantErr == nil && !replayed {
		stock, known := g.m.stocks[r.ProductID]
		switch {
		case !known:
			wantErr = &engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: r.ProductID}
		case stock+r.Delta < 0:
			wantErr = &engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: r.ProductID, Left: stock}
		case stock+r.Delta > engine.StockMax:
			wantErr = &engine.Refusal{Reason: engine.ErrStockLimit, Left: stock}
		}
	}
	got, gotReplayed, err := g.e.Restock(context.Background(), r)
	same(t, "restock", err, wantErr)
	g.meet("restock", replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		g.m.stocks[r.ProductID] += r.Delta
		want = g.m.stocks[r.ProductID]
		g.m.records[at] = record{request, want}
	}
	if gotReplayed != replayed || got != want {
		t.Fatalf("restock: %d, replayed %t; the model says %d, %t", got, gotReplayed, want, replayed)
	}
}

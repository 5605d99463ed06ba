package engine_test

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"stampede/engine"
)

// step is an operation of a sequence.
type step struct {
	Kind     string // place, reserve, pay, cancel, expire, cart, keyed cart, charge, restock
	User     int64
	Product  int64
	Quantity []int64 // place, reserve: of product 1, 2, ...; 0: no line; none at all: what is in the cart
	Amount   int64   // charge, restock, cart
	Key      string
	Order    int64 // pay, cancel, expire
	Admin    bool
	Behind   bool  // cancel: the books were read before the order was let go
	ID       int64 // of what it makes

	// What is read before the script is asked; the same for both databases.
	order    engine.Order
	archived *engine.Archived
	cart     []engine.Line
}

// read does what the engine does before it asks a script.
func (w *world) read(t *rapid.T, st *step) {
	ctx := context.Background()
	switch st.Kind {
	case "place", "reserve":
		record, err := w.together.redis.Get(ctx, w.together.e.Keys().Cart(0, st.User)).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		st.cart = engine.MustDecodeCart(record)
	case "pay", "cancel", "expire":
		st.archived = nil
		found := false
		if st.order, found = w.stored(t, st.Order); found {
			return
		}
		o, known := w.archive[st.Order]
		if !known || st.Kind != "cancel" || o.UserID != st.User {
			return
		}
		v, err := w.together.e.Look(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		st.archived = &engine.Archived{Order: o, Events: v.LetGo.Events}
		if st.Behind {
			st.archived.Events--
		}
		st.order = o
	}
}

func (st *step) op(e *engine.Engine) *engine.Op {
	var op *engine.Op
	switch st.Kind {
	case "place", "reserve":
		later := st.Kind == "reserve"
		if len(st.Quantity) == 0 {
			op = e.CartOrderOp(engine.CartOrderRequest{UserID: st.User, Later: later, Key: st.Key}, st.cart)
			break
		}
		r := engine.PlaceRequest{UserID: st.User, Later: later, Key: st.Key}
		for i, n := range st.Quantity {
			if n > 0 {
				r.Lines = append(r.Lines, engine.Line{ProductID: int64(i + 1), Quantity: n})
			}
		}
		op = e.PlaceOp(r)
	case "pay":
		op = e.PayOp(engine.PayRequest{UserID: st.User, OrderID: st.Order, Key: st.Key}, st.order.Items)
	case "cancel":
		op = e.CancelOp(engine.CancelRequest{OrderID: st.Order, UserID: st.User, Admin: st.Admin, Reason: "no need", Key: st.Key}, st.order, st.archived)
	case "expire":
		read := st.order
		read.ID, read.UserID = st.Order, st.User
		op = e.ExpireOp(read)
	case "cart", "keyed cart":
		r := engine.CartAddRequest{UserID: st.User, ProductID: st.Product, Quantity: st.Amount}
		if st.Kind == "keyed cart" {
			r.Key = st.Key
		}
		// Of all products, so that no operation of a call meets one in the cart that it was not told of.
		products := []int64{st.Product}
		for id := range int64(sequenceProducts) {
			products = append(products, id+1)
		}
		op = e.CartOp(r, products, make([]int64, len(products)))
	case "charge":
		op = e.ChargeOp(engine.ChargeRequest{UserID: st.User, Amount: st.Amount, Key: st.Key})
	default:
		op = e.RestockOp(engine.RestockRequest{ProductID: st.Product, Delta: st.Amount, Reason: "because", Key: st.Key})
	}
	op.SetID(st.ID)
	return op
}

func genShape() *rapid.Generator[shape] {
	return rapid.Custom(func(t *rapid.T) shape {
		few := func(g *rapid.Generator[int64], n int, label string) []int64 {
			return rapid.SliceOfN(g, n, n).Draw(t, label)
		}
		balance := rapid.OneOf(rapid.Int64Range(0, 60), rapid.Int64Range(60, 200), rapid.Int64Range(engine.BalanceMax-30, engine.BalanceMax))
		stock := rapid.OneOf(rapid.Int64Range(0, 6), rapid.Int64Range(20, 90), rapid.Int64Range(20, 90), rapid.Int64Range(engine.StockMax-3, engine.StockMax))
		return shape{
			Balances: few(balance, sequenceUsers, "balances"),
			Prices:   few(rapid.Int64Range(0, 9), sequenceProducts, "prices"),
			Stocks:   few(stock, sequenceProducts, "stocks"),
		}
	})
}

// genStep draws a step. The user and the product that do not exist come up less often than the others.
func (w *world) genStep(kind string) *rapid.Generator[step] {
	user := rapid.SampledFrom([]int64{1, 1, 1, 2, 2, 2, 3, 3, sequenceUsers + 1})
	product := rapid.SampledFrom([]int64{1, 1, 1, 2, 2, 3, 3, 4, sequenceProducts + 1})
	quantity := rapid.SampledFrom([]int64{1, 0, 1, 0, 2, 5})
	keys := make([]string, sequenceKeys)
	for i := range keys {
		keys[i] = "key " + string(rune('a'+i))
	}
	return rapid.Custom(func(t *rapid.T) step {
		st := step{Kind: kind, User: user.Draw(t, "user"), Key: rapid.SampledFrom(keys).Draw(t, "key")}
		switch kind {
		case "place", "reserve":
			if rapid.IntRange(0, 3).Draw(t, "cart") == 3 {
				return st
			}
			st.Quantity = make([]int64, sequenceProducts+1)
			for i := range sequenceProducts {
				st.Quantity[i] = quantity.Draw(t, "quantity")
			}
			if p := product.Draw(t, "product") - 1; st.Quantity[p] == 0 {
				st.Quantity[p] = 1 // at least one line
			}
		case "charge":
			st.Amount = rapid.SampledFrom([]int64{1, 2, 10, 30, engine.BalanceMax - 20, engine.BalanceMax}).Draw(t, "amount")
		case "restock":
			st.User, st.Product = 0, product.Draw(t, "product")
			st.Amount = rapid.SampledFrom([]int64{1, 3, -1, -3, -8, 8, engine.StockMax, -engine.StockMax}).Draw(t, "delta")
		case "cart", "keyed cart":
			st.Product = product.Draw(t, "product")
			st.Amount = rapid.SampledFrom([]int64{1, 2, 1, 5, engine.QuantityMax - 2, 0}).Draw(t, "units")
			if kind == "keyed cart" {
				st.Amount = max(st.Amount, 1)
			}
		default:
			w.drawOrder(t, &st)
		}
		return st
	})
}

// drawOrder takes an order, mostly by its buyer.
func (w *world) drawOrder(t *rapid.T, st *step) {
	st.Order = 999
	if len(w.orders) > 0 && rapid.IntRange(0, 9).Draw(t, "unknown") < 9 {
		st.Order = rapid.SampledFrom(w.orders).Draw(t, "order")
	}
	o, found := w.stored(t, st.Order)
	if !found {
		o, found = w.archive[st.Order]
	}
	if found && rapid.IntRange(0, 9).Draw(t, "stranger") < 9 {
		st.User = o.UserID
	}
	st.Admin = st.Kind == "cancel" && rapid.Bool().Draw(t, "admin")
}

// outcomes are what each kind of operation can end in.
var outcomes = map[string][]string{
	"place":      sold("place", "done SUCCESS", engine.ErrInsufficientBalance.Error()),
	"reserve":    sold("reserve", "done PENDING"),
	"pay":        ended("pay", "done SUCCESS", "done FAILED", "replay", engine.ErrKeyReused.Error(), engine.ErrOrderNotFound.Error(), engine.ErrNotPayable.Error()),
	"cancel":     ended("cancel", "done CANCELED", "done REFUNDED", "replay", engine.ErrKeyReused.Error(), engine.ErrOrderNotFound.Error(), engine.ErrNotCancelable.Error(), engine.ErrOrderChanged.Error()),
	"expire":     ended("expire", "done EXPIRED", engine.ErrHoldNotDue.Error(), engine.ErrOrderNotFound.Error()),
	"cart":       ended("cart", "done", engine.ErrUserNotFound.Error(), engine.ErrProductNotFound.Error(), engine.ErrCartFull.Error()),
	"keyed cart": ended("keyed cart", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrUserNotFound.Error(), engine.ErrProductNotFound.Error(), engine.ErrCartFull.Error()),
	"charge":     ended("charge", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrUserNotFound.Error(), engine.ErrBalanceLimit.Error()),
	"restock": ended("restock", "done", "replay", engine.ErrKeyReused.Error(), engine.ErrProductNotFound.Error(),
		engine.ErrOutOfStock.Error(), engine.ErrStockLimit.Error()),
}

func sold(kind string, further ...string) []string {
	return ended(kind, append(further, "replay", engine.ErrKeyReused.Error(), engine.ErrUserNotFound.Error(),
		engine.ErrProductNotFound.Error(), engine.ErrOutOfStock.Error())...)
}

func ended(kind string, all ...string) []string {
	for i := range all {
		all[i] = kind + ": " + all[i]
	}
	return all
}

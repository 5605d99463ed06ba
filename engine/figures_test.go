package engine_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

func enroll(t *testing.T, s *shoptest.Shop, user, balance int64) {
	t.Helper()
	if err := s.Engine.Enroll(context.Background(), user); err != nil {
		t.Fatal(err)
	}
	if balance > 0 {
		mustCharge(t, s.Engine, user, balance, "funds")
	}
}

func list(t *testing.T, s *shoptest.Shop, id, price, stock int64) {
	t.Helper()
	p := engine.Product{ID: id, Name: "Thing", Price: price, Version: 1, CreatedAt: time.Now()}
	if err := s.Engine.List(context.Background(), p, stock); err != nil {
		t.Fatal(err)
	}
}

func wantText(t *testing.T, s *shoptest.Shop, key, want string) {
	t.Helper()
	if got, err := s.Redis.Get(context.Background(), key).Result(); err != nil || got != want {
		t.Errorf("%s: %q (%v), want %q", key, got, err, want)
	}
}

var figureRuns int64 // of this process, each with ids of its own

func TestFigures_AtTheirLimitsAreExactEverywhere(t *testing.T) {
	s := bare.open(t)
	e, k, ctx := s.Engine, s.Engine.Keys(), context.Background()
	below := 1000 * figureRuns
	figureRuns++

	t.Run("the largest balance pays the largest order", func(t *testing.T) {
		user, first := engine.IDMax-below, engine.IDMax-9-below
		from := positions(t, e)
		enroll(t, s, user, engine.BalanceMax)
		wantText(t, s, k.Balance(0, user), "100000000000000")
		var l []engine.Line
		for i := range int64(10) {
			list(t, s, first+i, engine.PriceMax, engine.StockMax)
			l = append(l, engine.Line{ProductID: first + i, Quantity: engine.QuantityMax})
		}
		wantText(t, s, k.Stock(0, first), "1000000000")
		order := mustPlace(t, e, user, "all of it", l)
		if order.Total != engine.BalanceMax || len(order.Items) != 10 || order.Items[9].ProductID != first+9 || order.Items[9].Price != engine.PriceMax {
			t.Errorf("order %s", describe(order))
		}
		wantText(t, s, k.Balance(0, user), "0")
		wantText(t, s, k.Stock(0, first+9), "999990000")
		if sold := soldOf(t, s, first+9); sold != engine.QuantityMax {
			t.Errorf("%d units of the largest product id sold", sold)
		}
		stored, err := e.Order(ctx, order.ID, user)
		if err != nil || describe(stored) != describe(order) {
			t.Errorf("stored as %s, %v", describe(stored), err)
		}
		events := changesAfter(t, s, from)
		ev := events[len(events)-1]
		if ev.UserID != user || ev.RefID != order.ID || ev.Order.Total != engine.BalanceMax || ev.Balance != 0 ||
			describe(ev.Order) != describe(order) || !slices.Equal(linesOf(&ev.Order), l) || ev.StocksAfter[9] != engine.StockMax-engine.QuantityMax {
			t.Errorf("event %+v", ev)
		}
		if events[0].Kind != engine.Credited || events[0].Amount != engine.BalanceMax || events[0].Balance != engine.BalanceMax {
			t.Errorf("event %+v", events[0])
		}
		wantFold(t, s, from)
	})

	t.Run("an order dearer than any balance is refused with exact figures", func(t *testing.T) {
		user, first := 1<<52-below, 1<<51-below
		enroll(t, s, user, engine.BalanceMax-1)
		var l []engine.Line
		for i := range int64(engine.LinesMax) {
			list(t, s, first+i, engine.PriceMax, engine.StockMax)
			l = append(l, engine.Line{ProductID: first + i, Quantity: engine.QuantityMax})
		}
		for _, later := range []bool{false, true} {
			_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "10^15", Lines: l, Later: later})
			wantRefusal(t, "order of 10^15", err, engine.Refusal{Reason: engine.ErrOrderLimit})
			one := append(slices.Clone(l[:10]), engine.Line{ProductID: l[10].ProductID, Quantity: 1})
			_, _, err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "10^14 and more", Lines: one, Later: later})
			wantRefusal(t, "order of more than 10^14", err, engine.Refusal{Reason: engine.ErrOrderLimit})
		}
		_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "10^14", Lines: l[:10]})
		wantRefusal(t, "order of one more than there is", err, engine.Refusal{Reason: engine.ErrInsufficientBalance, Balance: engine.BalanceMax - 1})
		wantText(t, s, k.Balance(0, user), "99999999999999")
		wantText(t, s, k.Stock(0, first), "1000000000")
	})

	t.Run("odd figures keep every digit", func(t *testing.T) {
		user, product := 9_007_199_254_740_881-below, 9_007_199_254_740_883-below // not round in binary
		enroll(t, s, user, 98_765_432_109_877)
		list(t, s, product, 999_999_937, engine.StockMax)
		order := mustPlace(t, e, user, "odd", lines(product, 9_973))
		const total = 999_999_937 * 9_973
		if order.Total != total || order.UserID != user || order.Items[0] != (engine.Item{ProductID: product, Quantity: 9_973, Price: 999_999_937}) {
			t.Errorf("order %s", describe(order))
		}
		wantText(t, s, k.Balance(0, user), strconv.FormatInt(98_765_432_109_877-total, 10))
		again, replayed, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "odd", Lines: lines(product, 9_973)})
		if err != nil || !replayed || describe(again) != describe(order) {
			t.Errorf("replay %s, %t, %v", describe(again), replayed, err)
		}
		charged, replayed, err := e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 98_765_432_109_877, Key: "funds"})
		if err != nil || !replayed || charged.Balance != 98_765_432_109_877 {
			t.Errorf("replay %+v, %t, %v", charged, replayed, err)
		}
	})

	t.Run("counters keep every digit", func(t *testing.T) {
		user, product, large := 20_000+below, 20_000+below, 4_503_599_627_370_497+100*below
		enroll(t, s, user, 1000)
		list(t, s, product, 1, 1000)
		for at := range int64(2) {
			s.Redis.HSet(ctx, k.Sold(0, time.Now().Unix()/60+at), product, large)
		}
		s.Redis.HSet(ctx, k.Meta(0), "seq", large, "bytes", large, "done", large)
		mustPlace(t, e, user, "counted", lines(product, 2))
		meta := s.Redis.HMGet(ctx, k.Meta(0), "seq", "bytes").Val()
		entry, err := s.Redis.XRevRangeN(ctx, k.Events(0), "+", "-", 1).Result()
		if err != nil || len(entry) != 1 {
			t.Fatal(entry, err)
		}
		want := fmt.Sprintf("%d-%d", e.KnownEpoch(0), large+1)
		parsed, err := engine.ParseEntry(entry[0].ID, entry[0].Values)
		if err != nil || entry[0].ID != want || parsed.First != large+1 {
			t.Errorf("entry %s beginning at %d (%v), want %s", entry[0].ID, parsed.First, err, want)
		}
		if meta[0] != strconv.FormatInt(large+1, 10) || meta[1] != strconv.FormatInt(large+parsed.Bytes(), 10) {
			t.Errorf("seq and bytes %v", meta)
		}
		minute := eventsOf(t, []engine.Entry{parsed})[0].At.Unix() / 60
		if got := s.Redis.HGet(ctx, k.Sold(0, minute), strconv.FormatInt(product, 10)).Val(); got != strconv.FormatInt(large+2, 10) {
			t.Errorf("units sold: %s", got)
		}
	})
}

func TestLimits_OfBalanceAndStockRefuseAndChangeNothing(t *testing.T) {
	s := common.open(t)
	e, k, ctx := s.Engine, s.Engine.Keys(), context.Background()
	user, product := s.User(engine.BalanceMax-5), s.Product(1, engine.StockMax-5)
	from := positions(t, e)
	restock := func(delta int64, key string) error {
		_, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: delta, Key: fmt.Sprintf("%s of %d", key, product)})
		return err
	}
	_, _, err := e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 6, Key: "a"})
	wantRefusal(t, "charge beyond the limit", err, engine.Refusal{Reason: engine.ErrBalanceLimit, Balance: engine.BalanceMax - 5})
	wantRefusal(t, "restock beyond the limit", restock(6, "a"), engine.Refusal{Reason: engine.ErrStockLimit, Left: engine.StockMax - 5})
	wantRefusal(t, "write-off beyond nothing", restock(-engine.StockMax, "a"),
		engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: product, Left: engine.StockMax - 5})
	if events := changesAfter(t, s, from); len(events) != 0 {
		t.Errorf("refusals have events: %+v", events)
	}
	// The keys were not used up.
	mustCharge(t, e, user, 5, "a")
	if err := restock(5, "a"); err != nil {
		t.Error(err)
	}
	wantText(t, s, k.Balance(k.OfUser(user), user), "100000000000000")
	wantStock(t, e, product, engine.StockMax)
	_, _, err = e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: engine.BalanceMax, Key: "b"})
	wantRefusal(t, "the largest charge on the largest balance", err, engine.Refusal{Reason: engine.ErrBalanceLimit, Balance: engine.BalanceMax})
	if err := restock(-engine.StockMax, "b"); err != nil {
		t.Error(err)
	}
	wantStock(t, e, product, 0)
}

func TestRequest_OutOfRangeIsInvalidAndNeverSent(t *testing.T) {
	s := common.open(t)
	e, ctx := s.Engine, context.Background()
	user, product := s.User(1000), s.Product(1, 100_000)
	from := positions(t, e)
	many := func(n int64) (l []engine.Line) {
		for i := range n {
			l = append(l, engine.Line{ProductID: product + i, Quantity: 1})
		}
		return l
	}
	long := longKey + "123456"
	for name, r := range map[string]engine.PlaceRequest{
		"no lines":                     {UserID: user, Key: "k"},
		"quantity 0":                   {UserID: user, Key: "k", Lines: lines(product, 0)},
		"a negative quantity":          {UserID: user, Key: "k", Lines: lines(product, -1)},
		"the smallest quantity":        {UserID: user, Key: "k", Lines: lines(product, math.MinInt64)},
		"one unit too many":            {UserID: user, Key: "k", Lines: lines(product, engine.QuantityMax+1)},
		"too many units added up":      {UserID: user, Key: "k", Lines: lines(product, engine.QuantityMax, product, 1)},
		"one product too many":         {UserID: user, Key: "k", Lines: many(engine.LinesMax + 1)},
		"product 0":                    {UserID: user, Key: "k", Lines: lines(0, 1)},
		"a negative product":           {UserID: user, Key: "k", Lines: lines(-product, 1)},
		"user 0":                       {UserID: 0, Key: "k", Lines: lines(product, 1)},
		"a negative user":              {UserID: -user, Key: "k", Lines: lines(product, 1)},
		"no key":                       {UserID: user, Lines: lines(product, 1)},
		"a key that is too long":       {UserID: user, Key: long, Lines: lines(product, 1)},
		"a key with a control letter":  {UserID: user, Key: "a\nb", Lines: lines(product, 1)},
		"a key that is no UTF-8":       {UserID: user, Key: "a\xff", Lines: lines(product, 1)},
		"a key with a zero byte":       {UserID: user, Key: "a\x00", Lines: lines(product, 1)},
		"more entries than are merged": {UserID: user, Key: "k", Lines: slices.Repeat(lines(product, 1), engine.RequestLinesMax+1)},
	} {
		_, _, err := e.Place(ctx, r)
		wantErr(t, name, err, engine.ErrInvalid)
	}
	for _, amount := range []int64{0, -1, engine.BalanceMax + 1, math.MinInt64, math.MaxInt64} {
		_, _, err := e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: amount, Key: "k"})
		wantErr(t, fmt.Sprint("charge of ", amount), err, engine.ErrInvalid)
	}
	for _, delta := range []int64{0, engine.StockMax + 1, -engine.StockMax - 1, math.MinInt64, math.MaxInt64} {
		_, _, err := e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: delta, Key: "k"})
		wantErr(t, fmt.Sprint("restock by ", delta), err, engine.ErrInvalid)
	}
	_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: math.MaxInt64, Key: "k", Lines: lines(product, 1)})
	wantErr(t, "a user beyond 2^53", err, engine.ErrUserNotFound)
	_, _, err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "k", Lines: lines(math.MaxInt64, 1)})
	wantErr(t, "a product beyond 2^53", err, engine.ErrProductNotFound)
	if events := changesAfter(t, s, from); len(events) != 0 {
		t.Errorf("what is invalid has events: %+v", events)
	}
	// Merged before any cap: as many entries as are allowed, of one product.
	order := mustPlace(t, e, user, "merged", slices.Repeat(lines(product, 1), 500))
	if len(order.Items) != 1 || order.Items[0].Quantity != 500 {
		t.Errorf("order %s", describe(order))
	}
}

// unpack fails near 8,000 values; a call with more products than that must not.
func TestCall_WithMoreKeysThanLuaUnpacks(t *testing.T) {
	s := bare.open(t)
	registry := prometheus.NewRegistry()
	e, from := furtherEngine(t, s, engine.Config{Metrics: registry}), positions(t, s.Engine)
	epoch := s.Engine.KnownEpoch(0)
	first := 100_000*figureRuns + 1
	user := first
	figureRuns++
	const orders, products = 90, 90 * engine.LinesMax
	listings := make([]engine.Listing, products)
	for i := range listings {
		listings[i] = engine.Listing{Product: engine.Product{ID: first + int64(i), Price: 1, Version: 1, CreatedAt: time.Now()}, InitialStock: 10}
	}
	if err := e.ListBehind(0, epoch, listings); err != nil {
		t.Fatal(err)
	}
	enroll(t, s, user, 1_000_000)
	ops := make([]*engine.Op, orders)
	for i := range ops {
		r := engine.PlaceRequest{UserID: user, Key: strconv.Itoa(i)}
		for l := range engine.LinesMax {
			r.Lines = append(r.Lines, engine.Line{ProductID: first + int64(i*engine.LinesMax+l), Quantity: 3})
		}
		ops[i] = e.PlaceOp(r)
	}
	for i, got := range e.Send(epoch, ops...) {
		if got.Err != nil || got.Order.Total != 3*engine.LinesMax {
			t.Fatalf("order %d: %+v", i, got)
		}
	}
	if fallbacks := figures(t, registry)["stampede_batch_fallbacks_total"]; fallbacks != 0 {
		t.Error("the script failed, and the orders were sent one by one")
	}
	wantBalance(t, s.Engine, user, 1_000_000-3*products)
	wantStock(t, s.Engine, first, 7)
	wantStock(t, s.Engine, first+products-1, 7)
	wantFold(t, s, from)
}

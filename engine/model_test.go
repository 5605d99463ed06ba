package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// model is what the shop must do, said in the plainest way.
type model struct {
	balances map[int64]int64
	stocks   map[int64]int64
	prices   map[int64]int64
	records  map[scopedKey]record
	orders   map[int64]engine.Order
}

type scopedKey struct {
	scope int64 // user, 0 for the admins
	key   string
}

type record struct {
	request string
	answer  any
}

// known answers what stands under the key; judge is asked only where nothing does.
func (m *model) known(at scopedKey, request string) (answer any, replayed bool, err error) {
	r, found := m.records[at]
	switch {
	case !found:
		return nil, false, nil
	case r.request != request:
		return nil, false, engine.ErrKeyReused
	}
	return r.answer, true, nil
}

// judgeOrder returns what the order costs, or why it is refused.
func (m *model) judgeOrder(user int64, merged []engine.Line) (total int64, err error) {
	balance, known := m.balances[user]
	if !known {
		return 0, engine.ErrUserNotFound
	}
	for _, l := range merged {
		price, listed := m.prices[l.ProductID]
		if !listed {
			return 0, &engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: l.ProductID}
		}
		total += price * l.Quantity
	}
	for _, l := range merged {
		if left := m.stocks[l.ProductID]; left < l.Quantity {
			return 0, &engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: l.ProductID, Left: left}
		}
	}
	if balance < total {
		return 0, &engine.Refusal{Reason: engine.ErrInsufficientBalance, Balance: balance}
	}
	return total, nil
}

// merge adds up equal products in the order of their first appearance.
func merge(all []engine.Line) []engine.Line {
	var merged []engine.Line
	for _, l := range all {
		if at := slices.IndexFunc(merged, func(m engine.Line) bool { return m.ProductID == l.ProductID }); at >= 0 {
			merged[at].Quantity += l.Quantity
		} else {
			merged = append(merged, l)
		}
	}
	return merged
}

// game is a random run against shop and model.
type game struct {
	s        *shoptest.Shop
	e        *engine.Engine
	m        model
	users    []int64
	products []int64
	admin    string // prefix of this game's keys in the admins' scope
	met      map[string]int
	again    []func(*rapid.T) // repeats the operations so far, as they were
}

var games int

func newGame(s *shoptest.Shop, met map[string]int) *game {
	games++
	g := &game{
		s: s, e: s.Engine, met: met, admin: fmt.Sprintf("game %d ", games),
		m: model{
			balances: map[int64]int64{}, stocks: map[int64]int64{}, prices: map[int64]int64{},
			records: map[scopedKey]record{}, orders: map[int64]engine.Order{},
		},
		// Those that do not exist.
		users:    []int64{1 << 40, engine.IDMax},
		products: []int64{1 << 40, engine.IDMax},
	}
	return g
}

// oneOf draws one in twelve times an id that does not exist: one of the first two.
func oneOf(t *rapid.T, ids []int64, label string) int64 {
	const unknown = 2
	if len(ids) == unknown || rapid.IntRange(0, 11).Draw(t, label+" unknown") == 11 {
		return rapid.SampledFrom(ids[:unknown]).Draw(t, label)
	}
	return rapid.SampledFrom(ids[unknown:]).Draw(t, label)
}

func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "é ü", "a:b", "1", "long " + longKey}).Draw(t, "key")
}

var longKey = func() string {
	b := make([]rune, engine.KeyMax-len("long "))
	for i := range b {
		b[i] = 'ж'
	}
	return string(b)
}()

// same compares two errors: reason and figures.
func same(t *rapid.T, what string, got, want error) {
	t.Helper()
	var figures, wanted *engine.Refusal
	switch {
	case want == nil && got == nil:
	case want == nil || got == nil:
		t.Fatalf("%s: %v, the model says %v", what, got, want)
	case errors.As(want, &wanted):
		if !errors.As(got, &figures) || *figures != *wanted {
			t.Fatalf("%s: %+v, the model says %+v", what, got, want)
		}
	case !errors.Is(got, want):
		t.Fatalf("%s: %v, the model says %v", what, got, want)
	}
}

// meet counts what came of operations, so that a test can tell whether it met everything there is to meet.
func (g *game) meet(operation string, replayed bool, err error) {
	what := "done"
	if errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	switch {
	case err != nil:
		what = err.Error()
	case replayed:
		what = "replay"
	}
	g.met[operation+": "+what]++
}

func (g *game) createUser(t *rapid.T) {
	if len(g.users) > 6 {
		t.Skip("enough users")
	}
	id := g.s.User(0)
	g.users = append(g.users, id)
	g.m.balances[id] = 0
}

func (g *game) createProduct(t *rapid.T) {
	if len(g.products) > 7 {
		t.Skip("enough products")
	}
	price, stock := rapid.Int64Range(0, 9).Draw(t, "price"), rapid.Int64Range(0, 40).Draw(t, "stock")
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
		Amount: rapid.SampledFrom([]int64{60, 1, 200, 20, engine.BalanceMax - 50, engine.BalanceMax}).Draw(t, "amount"),
	}
	g.doCharge(t, r)
	g.again = append(g.again, func(t *rapid.T) { g.doCharge(t, r) })
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
	g.doRestock(t, r)
	g.again = append(g.again, func(t *rapid.T) { g.doRestock(t, r) })
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

func (g *game) place(t *rapid.T) {
	r := engine.PlaceRequest{UserID: oneOf(t, g.users, "user"), Key: drawKey(t)}
	for range rapid.SampledFrom([]int{1, 2, 3, 5}).Draw(t, "lines") {
		r.Lines = append(r.Lines, engine.Line{
			ProductID: oneOf(t, g.products, "product"), Quantity: rapid.Int64Range(1, 4).Draw(t, "quantity"),
		})
	}
	g.doPlace(t, r)
	g.again = append(g.again, func(t *rapid.T) { g.doPlace(t, r) })
}

func (g *game) doPlace(t *rapid.T, r engine.PlaceRequest) {
	at, request := scopedKey{r.UserID, r.Key}, fmt.Sprintf("order %v", r.Lines)
	want, replayed, wantErr := g.m.known(at, request)
	merged, total := merge(r.Lines), int64(0)
	if wantErr == nil && !replayed {
		total, wantErr = g.m.judgeOrder(r.UserID, merged)
	}
	got, gotReplayed, err := g.e.Place(context.Background(), r)
	same(t, "place", err, wantErr)
	g.meet("place", replayed, err)
	if err != nil {
		return
	}
	if !replayed {
		want = g.apply(r.UserID, merged, total, got)
		g.m.records[at] = record{request, want}
	}
	if gotReplayed != replayed || describe(got) != describe(want.(engine.Order)) {
		t.Fatalf("place: %s, replayed %t; the model says %s, %t", describe(got), gotReplayed, describe(want.(engine.Order)), replayed)
	}
}

// apply makes the order in the model; its id and time are the shop's to choose.
func (g *game) apply(user int64, merged []engine.Line, total int64, got engine.Order) engine.Order {
	order := engine.Order{
		ID: got.ID, UserID: user, Status: engine.Success, Total: total, CreatedAt: got.CreatedAt,
		History: []engine.Step{{Status: engine.Pending, At: got.CreatedAt}, {Status: engine.Success, At: got.CreatedAt}},
	}
	for _, l := range merged {
		order.Items = append(order.Items, engine.Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: g.m.prices[l.ProductID]})
		g.m.stocks[l.ProductID] -= l.Quantity
	}
	g.m.balances[user] -= total
	g.m.orders[order.ID] = order
	return order
}

func describe(o engine.Order) string { return fmt.Sprintf("%+v", o) }

// retry repeats an operation, done or refused, as it was.
func (g *game) retry(t *rapid.T) {
	if len(g.again) == 0 {
		t.Skip("nothing to repeat")
	}
	rapid.SampledFrom(g.again).Draw(t, "operation")(t)
}

func (g *game) read(t *rapid.T) {
	if len(g.m.orders) == 0 {
		t.Skip("no orders")
	}
	ctx := context.Background()
	want := g.m.orders[rapid.SampledFrom(slices.Sorted(maps.Keys(g.m.orders))).Draw(t, "order")]
	for _, user := range []int64{want.UserID, 0} {
		got, err := g.e.Order(ctx, want.ID, user)
		if err != nil || describe(got) != describe(want) {
			t.Fatalf("order read: %s (%v), the model says %s", describe(got), err, describe(want))
		}
	}
	for _, stranger := range g.users {
		if stranger == want.UserID {
			continue
		}
		_, err := g.e.Order(ctx, want.ID, stranger)
		same(t, "order of another", err, engine.ErrOrderNotFound)
	}
}

func (g *game) check(t *rapid.T) {
	ctx := context.Background()
	for _, id := range g.users {
		got, err := g.e.Balance(ctx, id)
		want, known := g.m.balances[id]
		if !known {
			same(t, "balance of nobody", err, engine.ErrUserNotFound)
		} else if err != nil || got != want {
			t.Fatalf("balance of user %d: %d (%v), the model says %d", id, got, err, want)
		}
	}
	for _, id := range g.products {
		got, err := g.e.Product(ctx, id)
		stock, known := g.m.stocks[id]
		if !known {
			same(t, "no product", err, &engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: id})
		} else if err != nil || got.Stock != stock || got.Price != g.m.prices[id] {
			t.Fatalf("product %d: %+v (%v), the model says stock %d, price %d", id, got, err, stock, g.m.prices[id])
		}
	}
}

func TestShop_AnswersAsItsModelDoes(t *testing.T) {
	s := common.open(t)
	met := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		g, from := newGame(s, met), position(t, s.Engine, 0)
		g.createUser(t)
		g.createProduct(t)
		t.Repeat(map[string]func(*rapid.T){
			"":               g.check,
			"create user":    g.createUser,
			"create product": g.createProduct,
			"reprice":        g.reprice,
			"charge":         g.charge, "charge again": g.charge,
			"restock": g.restock, "restock again": g.restock, "retry": g.retry,
			"place": g.place, "place again": g.place, "place once more": g.place,
			"read": g.read,
		})
		wantFold(t, s, 0, from)
		if t.Failed() {
			t.FailNow()
		}
	})
	t.Logf("met: %v", met)
	for _, all := range outcomes {
		wantMet(t, met, all)
	}
}

// wantMet checks that random operations ran into every outcome there is.
func wantMet(t *testing.T, met map[string]int, all []string) {
	t.Helper()
	if checks, err := strconv.Atoi(flag.Lookup("rapid.checks").Value.String()); err != nil || checks < rapidChecks {
		return // somebody asked for fewer; rare ones may then be missing
	}
	for _, outcome := range all {
		if met[outcome] == 0 {
			t.Errorf("never met: %s", outcome)
		}
	}
}

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
	"time"

	"pgregory.net/rapid"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// model is what the shop must do, said in the plainest way.
type model struct {
	balances map[int64]int64
	stocks   map[int64]int64
	prices   map[int64]int64
	carts    map[int64][]engine.Line
	orders   map[int64]engine.Order
	records  map[scopedKey]record
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

// judgeOrder returns what the order costs, or why it is refused. An order that is paid later needs no balance.
func (m *model) judgeOrder(user int64, merged []engine.Line, later bool) (total int64, err error) {
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
	if balance < total && !later {
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

// newGame begins when everything that earlier games sold and held is over.
func newGame(t *rapid.T, s *shoptest.Shop, met map[string]int) *game {
	games++
	g := &game{
		s: s, e: s.Engine, met: met, admin: fmt.Sprintf("game %d ", games),
		m: model{
			balances: map[int64]int64{}, stocks: map[int64]int64{}, prices: map[int64]int64{}, carts: map[int64][]engine.Line{},
			records: map[scopedKey]record{}, orders: map[int64]engine.Order{},
		},
		// Those that do not exist.
		users:    []int64{1 << 40, engine.IDMax},
		products: []int64{1 << 40, engine.IDMax},
	}
	turnForward(g.e, engine.Window+time.Minute)
	await(t, "the end of all holds", func() bool {
		return s.Redis.ZCard(context.Background(), g.e.Keys().Holds(0)).Val() == 0
	})
	return g
}

var turnedBy time.Duration // the clock of the shop that is turned forward

func turnForward(e *engine.Engine, d time.Duration) {
	turnedBy += d
	e.SetClockOffset(turnedBy)
}

func (g *game) now() time.Time { return time.Now().Add(turnedBy) }

// oneOf draws one in twelve times an id that does not exist: one of the first two.
func oneOf(t *rapid.T, ids []int64, label string) int64 {
	const unknown = 2
	if len(ids) == unknown || rapid.IntRange(0, 11).Draw(t, label+" unknown") == 11 {
		return rapid.SampledFrom(ids[:unknown]).Draw(t, label)
	}
	return rapid.SampledFrom(ids[unknown:]).Draw(t, label)
}

func drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{
		"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "é ü", "a:b", "1", "long " + longKey,
	}).Draw(t, "key")
}

var longKey = func() string {
	b := make([]rune, engine.KeyMax-len("long "))
	for i := range b {
		b[i] = 'ж'
	}
	return string(b)
}()

// same compares two errors: reason and figures. An order in them is compared by those who expect it.
func same(t *rapid.T, what string, got, want error) {
	t.Helper()
	var figures, wanted *engine.Refusal
	switch {
	case want == nil && got == nil:
	case want == nil || got == nil:
		t.Fatalf("%s: %v, the model says %v", what, got, want)
	case errors.As(want, &wanted):
		if !errors.As(got, &figures) {
			t.Fatalf("%s: %+v, the model says %+v", what, got, want)
		}
		a, b := *figures, *wanted
		a.Order, b.Order = nil, nil
		if a != b || (figures.Order == nil) != (wanted.Order == nil) {
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
	case replayed:
		what = "replay"
	case err != nil:
		what = err.Error()
	}
	g.met[operation+": "+what]++
}

// do does an operation, and often at once again.
func (g *game) do(t *rapid.T, operation func(*rapid.T)) {
	operation(t)
	if rapid.IntRange(0, 3).Draw(t, "once more") == 3 {
		operation(t)
	}
	g.again = append(g.again, operation)
}

// retry repeats an operation, done or refused, as it was.
func (g *game) retry(t *rapid.T) {
	if len(g.again) == 0 {
		t.Skip("nothing to repeat")
	}
	again := g.again
	if rapid.Bool().Draw(t, "late") {
		again = again[max(0, len(again)-4):]
	}
	rapid.SampledFrom(again).Draw(t, "operation")(t)
}

func (g *game) check(t *rapid.T) {
	g.settle(t)
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

// finish compares everything.
func (g *game) finish(t *rapid.T) {
	g.check(t)
	for _, id := range slices.Sorted(maps.Keys(g.m.orders)) {
		g.readOrder(t, g.m.orders[id])
	}
	for _, user := range g.users {
		g.doReadCart(t, user)
	}
	g.top(t)
	held, err := g.s.Redis.ZRangeWithScores(context.Background(), g.e.Keys().Holds(0), 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{}
	for id, o := range g.m.orders {
		if o.Status == engine.Pending {
			want[idBytes(id)] = float64(o.ExpiresAt.UnixMilli())
		}
	}
	for _, h := range held {
		if member := h.Member.(string); want[member] != h.Score {
			t.Fatalf("hold %q until %v, the model says %v", member, h.Score, want[member])
		}
	}
	if len(held) != len(want) {
		t.Fatalf("%d holds, the model says %d", len(held), len(want))
	}
}

func TestShop_AnswersAsItsModelDoes(t *testing.T) {
	s := turned.open(t)
	met := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		g := newGame(t, s, met)
		from := positions(t, s.Engine)
		g.createUser(t)
		g.createProduct(t)
		g.createProduct(t)
		g.createProduct(t)
		t.Repeat(map[string]func(*rapid.T){
			"":               g.check,
			"create user":    g.createUser,
			"create product": g.createProduct,
			"reprice":        g.reprice,
			"charge":         g.charge, "charge again": g.charge,
			"restock": g.restock, "restock again": g.restock,
			"place": g.place, "place again": g.place, "place once more": g.place,
			"pay": g.pay, "pay again": g.pay, "cancel": g.cancel, "cancel again": g.cancel,
			"turn": g.turn, "retry": g.retry, "retry again": g.retry, "read": g.read,
			"add to cart": g.addToCart, "add again": g.addToCart, "remove from cart": g.removeFromCart, "read cart": g.readCart,
			"order cart": g.orderCart, "order cart again": g.orderCart, "top": g.top,
		})
		g.finish(t)
		wantFold(t, s, from)
		if t.Failed() {
			t.FailNow()
		}
	})
	t.Logf("met: %v", met)
	rare := 5 // of so few runs as the short test has
	if long {
		rare = 0
	}
	all := slices.Concat(outcomes["charge"], outcomes["restock"], modelOutcomes)
	if missing := slices.DeleteFunc(slices.Clone(all), func(what string) bool { return met[what] > 0 }); len(missing) > rare {
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

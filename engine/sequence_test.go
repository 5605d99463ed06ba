package engine_test

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// A call with N operations must equal the N run one after another (invariant 6). The same random operations run
// against two worlds of the same shape: in one as calls of N, in the other one by one. Ids differ between the worlds,
// so users, products and references are compared by their place in the world.

const (
	sequenceUsers    = 3 // and one that does not exist
	sequenceProducts = 4 // and one that does not exist
	sequenceKeys     = 16
)

type world struct {
	s        *shoptest.Shop
	prefix   string
	users    []int64
	products []int64
	from     engine.Position
	refs     map[int64]int // order or charge -> operation that made it
}

// shape is what both worlds start as.
type shape struct {
	Balances []int64
	Prices   []int64
	Stocks   []int64
}

// step is an operation in terms of a world's places.
type step struct {
	Kind     string // place, charge, restock
	User     int
	Product  int
	Quantity []int64 // place: of product 0, 1, ...; 0: no line
	Amount   int64   // charge, restock
	Key      int
}

var worlds int // numbers the prefixes of keys in the admins' scope

func newWorld(s *shoptest.Shop, sh shape) *world {
	worlds++
	w := &world{s: s, prefix: fmt.Sprintf("world %d ", worlds), refs: map[int64]int{}}
	for _, balance := range sh.Balances {
		w.users = append(w.users, s.User(balance))
	}
	for i, price := range sh.Prices {
		w.products = append(w.products, s.Product(price, sh.Stocks[i]))
	}
	w.users = append(w.users, engine.IDMax-int64(worlds))
	w.products = append(w.products, engine.IDMax-int64(worlds))
	return w
}

func (w *world) op(st step) *engine.Op {
	e := w.s.Engine
	key := fmt.Sprintf("key %d", st.Key)
	switch st.Kind {
	case "place":
		r := engine.PlaceRequest{UserID: w.users[st.User], Key: key}
		for i, n := range st.Quantity {
			if n > 0 {
				r.Lines = append(r.Lines, engine.Line{ProductID: w.products[i], Quantity: n})
			}
		}
		return e.PlaceOp(r)
	case "charge":
		return e.ChargeOp(engine.ChargeRequest{UserID: w.users[st.User], Amount: st.Amount, Key: key})
	}
	return e.RestockOp(engine.RestockRequest{
		ProductID: w.products[st.Product], Delta: st.Amount, Reason: "because", Key: w.prefix + key,
	})
}

// run sends the steps in calls of at most n and returns what came of each, in the world's terms.
func (w *world) run(steps []step, first, n int) []string {
	epoch := w.s.Engine.KnownEpoch(0)
	var all []string
	for part := range slices.Chunk(steps, n) {
		ops := make([]*engine.Op, len(part))
		for i, st := range part {
			ops[i] = w.op(st)
		}
		for _, o := range w.s.Engine.Send(epoch, ops...) {
			if o.Err == nil && !o.Replayed && o.RefID != 0 {
				w.refs[o.RefID] = first + len(all)
			}
			all = append(all, w.describe(o))
		}
	}
	return all
}

func (w *world) user(id int64) int    { return slices.Index(w.users, id) }
func (w *world) product(id int64) int { return slices.Index(w.products, id) }

func (w *world) ref(id int64) string {
	if at, known := w.refs[id]; known {
		return fmt.Sprintf("made by %d", at)
	}
	return "made by nobody"
}

func (w *world) describe(o engine.Outcome) string {
	var refusal *engine.Refusal
	switch {
	case errors.As(o.Err, &refusal):
		product := -1
		if refusal.ProductID != 0 {
			product = w.product(refusal.ProductID)
		}
		return fmt.Sprintf("%v: product %d, left %d, balance %d", refusal.Reason, product, refusal.Left, refusal.Balance)
	case o.Err != nil:
		return o.Err.Error()
	case o.Replayed:
		return fmt.Sprintf("replay: %s, after %d", w.ref(o.RefID), o.After)
	case o.RefID != 0 && o.Order.ID != 0:
		return "done: " + w.order(&o.Order)
	}
	return fmt.Sprintf("done: after %d", o.After)
}

func (w *world) order(o *engine.Order) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, user %d, %v, total %d", w.ref(o.ID), w.user(o.UserID), o.Status, o.Total)
	for _, i := range o.Items {
		fmt.Fprintf(&b, ", %d of product %d at %d", i.Quantity, w.product(i.ProductID), i.Price)
	}
	for _, h := range o.History {
		fmt.Fprintf(&b, ", %v %q after %v", h.Status, h.Reason, h.At.Sub(o.CreatedAt))
	}
	return b.String()
}

// state is everything that Redis holds of the world, in its terms, and its events.
func (w *world) state(t *rapid.T) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	e, ctx := w.s.Engine, context.Background()
	for i, id := range w.users {
		balance, err := e.Balance(ctx, id)
		add("balance of user %d: %d, %v", i, balance, err)
		for key := range sequenceKeys {
			n, err := w.s.Redis.Exists(ctx, e.Keys().Idempotency(0, id, fmt.Sprintf("key %d", key))).Result()
			add("record of user %d, key %d: %d, %v", i, key, n, err)
		}
	}
	for i, id := range w.products {
		product, err := e.Product(ctx, id)
		add("stock of product %d: %d, found %t", i, product.Stock, err == nil)
		add("sold of product %d: %d", i, soldOf(t, w.s, 0, id))
	}
	for key := range sequenceKeys {
		n, err := w.s.Redis.Exists(ctx, e.Keys().Idempotency(0, 0, fmt.Sprintf("%skey %d", w.prefix, key))).Result()
		add("record of the admins, key %d: %d, %v", key, n, err)
	}
	orders := map[int]string{}
	for id, at := range w.refs {
		if order, err := e.Order(ctx, id, 0); err == nil {
			orders[at] = w.order(&order)
		}
	}
	add("orders: %v", orders)
	for _, ev := range eventsOf(t, entriesAfter(t, w.s, 0, w.from)) {
		all = append(all, w.event(t, &ev))
	}
	return all
}

func (w *world) event(t *rapid.T, ev *engine.Event) string {
	if age := time.Since(ev.At); age < -time.Minute || age > time.Minute {
		t.Fatalf("an event of %v", ev.At)
	}
	text := fmt.Sprintf("event %d: key %q, fingerprint %t", ev.Kind, strings.TrimPrefix(ev.Key, w.prefix), ev.Fingerprint != engine.Fingerprint{})
	switch ev.Kind {
	case engine.Ordered:
		order := ev.Order
		return fmt.Sprintf("%s, %s, stocks %v, balance %d", text, w.order(&order), ev.StocksAfter, ev.Balance)
	case engine.Credited:
		return fmt.Sprintf("%s, user %d, %s, amount %d, balance %d", text, w.user(ev.UserID), w.ref(ev.RefID), ev.Amount, ev.Balance)
	default:
		return fmt.Sprintf("%s, product %d, delta %d, %q, stock %d", text, w.product(ev.ProductID), ev.Delta, ev.Reason, ev.Stock)
	}
}

func genShape() *rapid.Generator[shape] {
	return rapid.Custom(func(t *rapid.T) shape {
		few := func(g *rapid.Generator[int64], n int, label string) []int64 {
			return rapid.SliceOfN(g, n, n).Draw(t, label)
		}
		balance := rapid.OneOf(rapid.Int64Range(0, 60), rapid.Int64Range(60, 200), rapid.Int64Range(engine.BalanceMax-30, engine.BalanceMax))
		stock := rapid.OneOf(rapid.Int64Range(0, 6), rapid.Int64Range(6, 40), rapid.Int64Range(engine.StockMax-3, engine.StockMax))
		return shape{
			Balances: few(balance, sequenceUsers, "balances"),
			Prices:   few(rapid.Int64Range(0, 9), sequenceProducts, "prices"),
			Stocks:   few(stock, sequenceProducts, "stocks"),
		}
	})
}

func genStep(kind string) *rapid.Generator[step] {
	// The one that does not exist comes up less often than the others.
	user := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 1, 2, 2, sequenceUsers})
	product := rapid.SampledFrom([]int{0, 0, 0, 1, 1, 2, 2, 3, sequenceProducts})
	quantity := rapid.SampledFrom([]int64{1, 0, 1, 0, 2, 5})
	return rapid.Custom(func(t *rapid.T) step {
		st := step{Kind: kind, User: user.Draw(t, "user"), Key: rapid.IntRange(0, sequenceKeys-1).Draw(t, "key")}
		switch kind {
		case "place":
			st.Quantity = make([]int64, sequenceProducts+1)
			for i := range sequenceProducts {
				st.Quantity[i] = quantity.Draw(t, "quantity")
			}
			if p := product.Draw(t, "product"); st.Quantity[p] == 0 {
				st.Quantity[p] = 1 // at least one line
			}
		case "charge":
			st.Amount = rapid.SampledFrom([]int64{1, 2, 10, 30, engine.BalanceMax - 20, engine.BalanceMax}).Draw(t, "amount")
		case "restock":
			st.User, st.Product = 0, product.Draw(t, "product")
			st.Amount = rapid.SampledFrom([]int64{1, 3, -1, -3, -8, 8, engine.StockMax, -engine.StockMax}).Draw(t, "delta")
		}
		return st
	})
}

func testSequence(t *testing.T, kinds ...string) {
	s, met := common.open(t), map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		sh := genShape().Draw(t, "shape")
		together, oneByOne := newWorld(s, sh), newWorld(s, sh)
		var runs [][]step
		earlier := map[string][]step{}
		for range rapid.SampledFrom([]int{1, 2, 2 * len(kinds)}).Draw(t, "runs") {
			kind := rapid.SampledFrom(kinds).Draw(t, "kind")
			var run []step
			for range rapid.SampledFrom([]int{2, 5, 12, 25}).Draw(t, "steps") {
				st := genStep(kind).Draw(t, "step")
				if before := earlier[kind]; len(before) > 0 && rapid.IntRange(0, 3).Draw(t, "again") == 3 {
					st = rapid.SampledFrom(before).Draw(t, "earlier step")
				}
				earlier[kind] = append(earlier[kind], st)
				run = append(run, st)
			}
			runs = append(runs, run)
		}

		var replies [2][]string
		var states [2][]string
		for i, w := range []*world{together, oneByOne} {
			w.from = position(t, s.Engine, 0)
			for _, run := range runs {
				n := len(run)
				if w == oneByOne {
					n = 1
				}
				replies[i] = append(replies[i], w.run(run, len(replies[i]), n)...)
			}
			states[i] = w.state(t)
		}
		steps := slices.Concat(runs...)
		for i := range replies[0] {
			outcome, _, _ := strings.Cut(replies[0][i], ":")
			met[steps[i].Kind+": "+outcome]++
			if replies[0][i] != replies[1][i] {
				t.Fatalf("operation %d, %+v:\ntogether:   %s\none by one: %s", i, steps[i], replies[0][i], replies[1][i])
			}
		}
		if !reflect.DeepEqual(states[0], states[1]) {
			t.Fatalf("the states differ:\ntogether:\n%s\none by one:\n%s", strings.Join(states[0], "\n"), strings.Join(states[1], "\n"))
		}
	})
	t.Logf("met: %v", met)
	for _, kind := range kinds {
		wantMet(t, met, outcomes[kind])
	}
}

// outcomes are what each kind of operation can end in.
var outcomes = map[string][]string{
	"place": {
		"place: done", "place: replay", "place: " + engine.ErrKeyReused.Error(), "place: " + engine.ErrUserNotFound.Error(),
		"place: " + engine.ErrProductNotFound.Error(), "place: " + engine.ErrOutOfStock.Error(),
		"place: " + engine.ErrInsufficientBalance.Error(),
	},
	"charge": {
		"charge: done", "charge: replay", "charge: " + engine.ErrKeyReused.Error(), "charge: " + engine.ErrUserNotFound.Error(),
		"charge: " + engine.ErrBalanceLimit.Error(),
	},
	"restock": {
		"restock: done", "restock: replay", "restock: " + engine.ErrKeyReused.Error(), "restock: " + engine.ErrProductNotFound.Error(),
		"restock: " + engine.ErrOutOfStock.Error(), "restock: " + engine.ErrStockLimit.Error(),
	},
}

func TestCall_OfNOrdersEqualsNCalls(t *testing.T)    { testSequence(t, "place") }
func TestCall_OfNChargesEqualsNCalls(t *testing.T)   { testSequence(t, "charge") }
func TestCall_OfNRestocksEqualsNCalls(t *testing.T)  { testSequence(t, "restock") }
func TestCall_OfNOfAnyKindEqualsNCalls(t *testing.T) { testSequence(t, "place", "charge", "restock") }

package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// Held orders expire while their payments race them, by two processes that both sweep and both pay: each order is paid or
// its stock is back, never both and never neither.
func TestExpiry_RacesPaymentsAndStockAndMoneyStayExact(t *testing.T) {
	hold := 1200 * time.Millisecond
	if !shoptest.OnePartition() {
		hold *= 3 // with fewer orders in each call, placing all takes longer
	}
	w := startTwo(t, shop.Config{Hold: hold})
	seeds := counted(1, 300)
	for n := range seeds {
		r := newRace(w, seeded(t, n))
		r.place()
		r.pay()
		w.awaitNoHolds()
		w.Written()
		r.check()
		// The audit reads the whole journal, which grows with each seed.
		if n%10 == 9 || n == seeds-1 {
			w.audited()
		}
		if t.Failed() {
			t.Fatalf("this was round %d", n)
		}
	}
}

const (
	racedUsers    = 100
	racedOrders   = 1000
	racedProducts = 8
	racedStock    = 2000 // units of each
	racedBalance  = 1000 // minor units, of most users
	racedPoor     = 40   // of every fifth
)

// race is one seed: orders that fall due together, and payments around that moment.
type race struct {
	*world
	random   *rand.Rand
	users    []int64
	products []int64
	orders   []engine.Order
	payments []payment
}

// payment is one way of paying an order, and what came of it.
type payment struct {
	order  int
	shop   int
	key    string
	at     time.Time
	answer engine.Order
	err    error
}

func newRace(w *world, random *rand.Rand) *race {
	r := &race{world: w, random: random}
	for i := range racedProducts {
		r.products = append(r.products, w.Product(int64(1+i), racedStock))
	}
	r.users = append(w.Users(racedUsers/5, racedPoor), w.Users(racedUsers-racedUsers/5, racedBalance)...)
	random.Shuffle(len(r.users), func(i, j int) { r.users[i], r.users[j] = r.users[j], r.users[i] })
	return r
}

// place has every user hold ten orders of one to three lines.
func (r *race) place() {
	r.orders = make([]engine.Order, racedOrders)
	requests := make([]engine.PlaceRequest, racedOrders)
	for i := range requests {
		requests[i] = engine.PlaceRequest{UserID: r.users[i%racedUsers], Later: true, Key: fmt.Sprintf("place %d", i)}
		for range 1 + r.random.IntN(3) {
			product := r.products[r.random.IntN(racedProducts)]
			requests[i].Lines = append(requests[i].Lines, line(product, int64(1+r.random.IntN(3))))
		}
	}
	r.random.Shuffle(racedOrders, func(i, j int) { requests[i], requests[j] = requests[j], requests[i] })
	engines := r.engines()
	each(racedOrders, 64, func(i int) {
		order, _, err := definite(func() (engine.Order, bool, error) {
			return engines[i%2].Place(context.Background(), requests[i])
		})
		if err != nil || order.Status != engine.Pending {
			r.t.Errorf("hold %d: %v, %v", i, order.Status, err)
		}
		r.orders[i] = order
	})
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// pay fires a payment for each order around its deadline; some are paid twice, with another key or with the same one.
func (r *race) pay() {
	const around = 120 * time.Millisecond
	for i := range r.orders {
		at := r.orders[i].ExpiresAt.Add(time.Duration(r.random.Int64N(int64(2*around))) - around)
		p := payment{order: i, shop: r.random.IntN(2), key: fmt.Sprintf("pay %d", i), at: at}
		r.payments = append(r.payments, p)
		p.shop = 1 - p.shop
		switch r.random.IntN(8) {
		case 0:
			p.key += " again"
			r.payments = append(r.payments, p)
		case 1:
			r.payments = append(r.payments, p)
		}
	}
	r.random.Shuffle(len(r.payments), func(i, j int) { r.payments[i], r.payments[j] = r.payments[j], r.payments[i] })
	slices.SortStableFunc(r.payments, func(a, b payment) int { return a.at.Compare(b.at) })
	each(len(r.payments), 64, func(i int) {
		p := &r.payments[i]
		time.Sleep(time.Until(p.at))
		p.answer, _, p.err = r.ask(p)
	})
}

func (r *race) ask(p *payment) (engine.Order, bool, error) {
	order := &r.orders[p.order]
	return definite(func() (engine.Order, bool, error) {
		return r.engines()[p.shop].Pay(context.Background(), engine.PayRequest{UserID: order.UserID, OrderID: order.ID, Key: p.key})
	})
}

// check holds the answers against what became of the orders, and that against stock and money.
func (r *race) check() {
	final := make([]engine.Order, len(r.orders))
	paid, stock := map[int64]int64{}, map[int64]int64{}
	count := map[engine.Status]int{}
	var latest time.Duration
	for i := range r.orders {
		o, err := r.engines()[i%2].Order(context.Background(), r.orders[i].ID, r.orders[i].UserID)
		if err != nil {
			r.t.Fatalf("read %s: %v", describe(&r.orders[i]), err)
		}
		final[i] = o
		count[o.Status]++
		at := o.UpdatedAt()
		switch o.Status {
		case engine.Success:
			paid[o.UserID] += o.Total
			for _, item := range o.Items {
				stock[item.ProductID] += item.Quantity
			}
			fallthrough
		case engine.Failed:
			if !at.Before(o.ExpiresAt) {
				r.t.Errorf("judged after its deadline: %s", describe(&o))
			}
		case engine.Expired:
			if at.Before(o.ExpiresAt) {
				r.t.Errorf("expired before its deadline: %s", describe(&o))
			}
			latest = max(latest, at.Sub(o.ExpiresAt))
		default:
			r.t.Errorf("neither paid nor ended: %s", describe(&o))
		}
		if len(o.History) != 2 {
			r.t.Errorf("two steps, not: %s", describe(&o))
		}
	}
	r.t.Logf("%v, the last expiry %v after its deadline", count, latest)
	if count[engine.Success] == 0 || count[engine.Expired] == 0 {
		r.t.Errorf("no race: %v", count)
	}
	for _, product := range r.products {
		r.wantStock(product, racedStock-stock[product])
	}
	for _, user := range r.users {
		r.wantBalance(user, r.number("SELECT sum(amount)::bigint FROM balance_ledger WHERE user_id = $1 AND kind = 'charge'", user)-paid[user])
	}
	r.checkAnswers(final)
	for status, n := range count {
		sql := "SELECT count(*) FROM orders WHERE status = $1 AND id = ANY($2)"
		ids := make([]int64, len(final))
		for i := range final {
			ids[i] = final[i].ID
		}
		if got := r.number(sql, status.String(), ids); got != int64(n) {
			r.t.Errorf("%d orders are %v in Postgres, %d in Redis", got, status, n)
		}
	}
}

// checkAnswers holds every payment's answer against the order's end, and asks again for those that changed something.
func (r *race) checkAnswers(final []engine.Order) {
	takers := map[int]map[string]bool{} // the keys under which an order was paid, or failed
	for i := range r.payments {
		p := &r.payments[i]
		o := &final[p.order]
		var refusal *engine.Refusal
		switch {
		case p.err == nil, errors.As(p.err, &refusal) && refusal.Order != nil:
			answer := p.answer
			if refusal != nil {
				answer = *refusal.Order
				if !errors.Is(p.err, engine.ErrInsufficientBalance) || refusal.Balance >= o.Total {
					r.t.Errorf("refused for a balance of %d: %s", refusal.Balance, describe(o))
				}
			}
			if !answer.Equal(o) {
				r.t.Errorf("answered %s, it is %s", describe(&answer), describe(o))
			}
			if takers[p.order] == nil {
				takers[p.order] = map[string]bool{}
			}
			takers[p.order][p.key] = true
			again, replayed, err := r.ask(p)
			if !replayed || fmt.Sprint(err) != fmt.Sprint(p.err) || !again.Equal(&p.answer) {
				r.t.Errorf("asked again: %s, %t, %v; it was %s, %v", describe(&again), replayed, err, describe(&p.answer), p.err)
			}
		case errors.As(p.err, &refusal) && errors.Is(p.err, engine.ErrNotPayable):
			if refusal.Status != o.Status && (refusal.Status != engine.Pending || o.Status != engine.Expired) {
				r.t.Errorf("refused as %v: %s", refusal.Status, describe(o))
			}
		default:
			r.t.Errorf("a payment of %s ends in %v", describe(o), p.err)
		}
	}
	for i := range final {
		want := 1
		if final[i].Status == engine.Expired {
			want = 0
		}
		if got := len(takers[i]); got != want {
			r.t.Errorf("%d payments took effect on %s", got, describe(&final[i]))
		}
	}
}

// Holds whose deadline passed while no process ran end at once when one does.
func TestExpiry_OfWhatFellDueWhileTheShopWasDownComesWithinASecond(t *testing.T) {
	const orders, units = 300, 1000
	const hold = 2 * time.Second
	w := start(t, shop.Config{Hold: hold})
	products, users := []int64{w.Product(10, units), w.Product(3, units)}, w.Users(30, 1000)
	placed := make([]engine.Order, orders)
	each(orders, 32, func(i int) {
		var err error
		placed[i], _, err = w.Engine.Place(context.Background(), engine.PlaceRequest{
			UserID: users[i%len(users)], Key: fmt.Sprint(i), Later: i%10 != 0,
			Lines: []engine.Line{line(products[0], 1), line(products[1], 2)},
		})
		if err != nil {
			t.Errorf("order %d: %v", i, err)
		}
	})
	w.Stop()
	if held := w.holds(); held < int64(orders/2) {
		t.Fatalf("only %d of the holds are left when the shop is down: it went too slowly", held)
	}
	time.Sleep(time.Until(placed[orders-1].ExpiresAt.Add(hold / 4)))

	w.Reopen()
	opened := time.Now()
	if took := w.awaitNoHolds().Sub(opened); took > time.Second {
		t.Errorf("the holds end %v after the doors opened", took)
	}
	for i := range placed {
		o, err := w.Engine.Order(t.Context(), placed[i].ID, placed[i].UserID)
		want := engine.Expired
		if i%10 == 0 {
			want = engine.Success
		}
		if err != nil || o.Status != want {
			t.Errorf("want %v: %s, %v", want, describe(&o), err)
		}
	}
	w.Written()
	w.wantStock(products[0], units-orders/10)
	w.wantStock(products[1], units-2*orders/10)
	for _, user := range users {
		bought := w.number("SELECT count(*) FROM orders WHERE user_id = $1 AND status = 'SUCCESS'", user)
		w.wantBalance(user, 1000-16*bought)
	}
	w.audited()
}

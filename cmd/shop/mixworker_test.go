package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"stampede/engine"
)

// worker acts for one user, so that it always knows what the user has.
type worker struct {
	*mix
	n       int
	user    int64
	random  *rand.Rand
	keys    int
	deeds   []deed
	retries int

	balance   int64
	cart      []engine.Line
	orders    []engine.Order // as last seen
	restocked map[int64]int64
}

// deed is something that changed the shop, with the answer it got.
type deed struct {
	kind   string
	ask    ask
	answer string
}

// ask makes one attempt, the same one each time, and returns the answer as text.
type ask func(ctx context.Context, e *engine.Engine) (answer string, replayed bool, err error)

func newWorker(m *mix, n int, user int64, random *rand.Rand) *worker {
	return &worker{mix: m, n: n, user: user, random: random, balance: mixedBalance, restocked: map[int64]int64{}}
}

func (w *worker) run(ctx context.Context) {
	acts := []func(){
		w.charge, w.place, w.place, w.place, w.pay, w.pay, w.pay, w.cancel, w.addToCart, w.addToCart, w.addToCart,
		w.removeFromCart, w.orderCart, w.restock, w.look, w.look, w.repeat,
	}
	for ctx.Err() == nil && !w.t.Failed() {
		acts[w.random.IntN(len(acts))]()
		time.Sleep(time.Duration(w.random.IntN(8)) * time.Millisecond)
	}
}

func (w *worker) key() string {
	w.keys++
	return fmt.Sprintf("worker %d, %d", w.n, w.keys)
}

func (w *worker) errorf(format string, args ...any) {
	w.t.Errorf("worker %d: "+format, append([]any{w.n}, args...)...)
}

// do asks until the outcome is known, and keeps what changed something.
func (w *worker) do(kind string, ask ask) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		answer, _, err := ask(context.Background(), w.some(w.random))
		switch {
		case ambiguous(err) && time.Now().Before(deadline):
			w.retries++
			continue
		case ambiguous(err):
			w.errorf("%s is never decided: %v", kind, err)
		case err == nil || failedOrder(err) != nil:
			w.deeds = append(w.deeds, deed{kind, ask, answer})
		}
		return err
	}
}

// failedOrder is the order that a payment brought to its end for lack of balance.
func failedOrder(err error) *engine.Order {
	var refusal *engine.Refusal
	if errors.As(err, &refusal) {
		return refusal.Order
	}
	return nil
}

// askAgain repeats every deed: each gets the answer it got.
func (w *worker) askAgain() {
	for _, d := range w.deeds {
		w.repeated(&d)
	}
	for i := range w.orders {
		w.see(&w.orders[i])
	}
	w.lookAtBalance()
	w.lookAtCart()
}

func (w *worker) repeated(d *deed) {
	var answer string
	_, replayed, err := definite(func() (_ struct{}, replayed bool, err error) {
		answer, replayed, err = d.ask(context.Background(), w.some(w.random))
		return struct{}{}, replayed, err
	})
	if (err != nil && failedOrder(err) == nil) || !replayed || answer != d.answer {
		w.errorf("a %s again: %s, replayed %t, %v; it was %s", d.kind, answer, replayed, err, d.answer)
	}
}

func (w *worker) repeat() {
	if len(w.deeds) > 0 {
		w.repeated(&w.deeds[w.random.IntN(len(w.deeds))])
	}
}

func (w *worker) charge() {
	r := engine.ChargeRequest{UserID: w.user, Amount: int64(1 + w.random.IntN(100)), Key: w.key()}
	var last engine.Charged
	err := w.do("charge", func(ctx context.Context, e *engine.Engine) (string, bool, error) {
		c, replayed, err := e.Charge(ctx, r)
		last = c
		return fmt.Sprintf("%+v", c), replayed, err
	})
	w.balance += r.Amount
	if err != nil || last.Balance != w.balance {
		w.errorf("a charge ends in %+v, %v, want a balance of %d", last, err, w.balance)
	}
}

// ordering is an ask whose answer is an order, which it leaves in last.
func ordering(last *engine.Order, call func(ctx context.Context, e *engine.Engine) (engine.Order, bool, error)) ask {
	return func(ctx context.Context, e *engine.Engine) (string, bool, error) {
		o, replayed, err := call(ctx, e)
		if failed := failedOrder(err); failed != nil {
			o = *failed
		}
		*last = o
		text := describe(&o)
		if err != nil {
			text += ", " + err.Error()
		}
		return text, replayed, err
	}
}

func (w *worker) place() {
	r := engine.PlaceRequest{UserID: w.user, Later: w.random.IntN(2) == 0, Key: w.key()}
	for _, i := range w.random.Perm(len(w.products))[:1+w.random.IntN(3)] {
		r.Lines = append(r.Lines, line(w.products[i], int64(1+w.random.IntN(3))))
	}
	var o engine.Order
	err := w.do("place", ordering(&o, func(ctx context.Context, e *engine.Engine) (engine.Order, bool, error) { return e.Place(ctx, r) }))
	w.placed(r.Lines, r.Later, &o, err)
}

func (w *worker) orderCart() {
	r := engine.CartOrderRequest{UserID: w.user, Later: w.random.IntN(2) == 0, Key: w.key()}
	var o engine.Order
	err := w.do("cart order", ordering(&o, func(ctx context.Context, e *engine.Engine) (engine.Order, bool, error) { return e.OrderCart(ctx, r) }))
	if len(w.cart) == 0 {
		if !errors.Is(err, engine.ErrCartEmpty) {
			w.errorf("an order of an empty cart ends in %s, %v", describe(&o), err)
		}
		return
	}
	w.placed(w.cart, r.Later, &o, err)
	if err == nil {
		w.cart = nil
	}
}

// placed notes an order, or judges its refusal.
func (w *worker) placed(lines []engine.Line, later bool, o *engine.Order, err error) {
	var total int64
	for _, l := range lines {
		total += w.prices[l.ProductID] * l.Quantity
	}
	var refusal *engine.Refusal
	switch {
	case err == nil:
		want := engine.Pending
		if !later {
			want = engine.Success
			w.balance -= total
		}
		same := slices.EqualFunc(o.Items, lines, func(i engine.Item, l engine.Line) bool {
			return i.ProductID == l.ProductID && i.Quantity == l.Quantity && i.Price == w.prices[l.ProductID]
		})
		if o.Status != want || o.Total != total || !same {
			w.errorf("want %v of %v: %s", want, lines, describe(o))
		}
		w.orders = append(w.orders, *o)
	case errors.Is(err, engine.ErrInsufficientBalance) && errors.As(err, &refusal):
		if later || refusal.Balance != w.balance || total <= w.balance {
			w.errorf("refused with %v for %d of %d (later: %t)", err, total, w.balance, later)
		}
	case errors.Is(err, engine.ErrOutOfStock) && errors.As(err, &refusal):
		at := slices.IndexFunc(lines, func(l engine.Line) bool { return l.ProductID == refusal.ProductID })
		if at < 0 || refusal.Left >= lines[at].Quantity {
			w.errorf("refused with %v for %v", err, lines)
		}
	default:
		w.errorf("an order ends in %v", err)
	}
}

// pick returns an order, mostly one of the latest.
func (w *worker) pick() *engine.Order {
	n := len(w.orders)
	if n == 0 {
		return nil
	}
	return &w.orders[n-1-w.random.IntN(min(n, 6))]
}

func (w *worker) pay() {
	o := w.pick()
	if o == nil {
		return
	}
	r := engine.PayRequest{UserID: w.user, OrderID: o.ID, Key: w.key()}
	var now engine.Order
	err := w.do("payment", ordering(&now, func(ctx context.Context, e *engine.Engine) (engine.Order, bool, error) { return e.Pay(ctx, r) }))
	switch {
	case err == nil && o.Status == engine.Pending && now.Status == engine.Success:
		*o = now
		w.balance -= o.Total
	case failedOrder(err) != nil && o.Status == engine.Pending && now.Status == engine.Failed && o.Total > w.balance:
		*o = now
	case errors.Is(err, engine.ErrNotPayable):
		w.refusedAs(o, err)
	default:
		w.errorf("a payment of %s out of %d ends in %s, %v", describe(o), w.balance, describe(&now), err)
	}
}

func (w *worker) cancel() {
	o := w.pick()
	if o == nil {
		return
	}
	r := engine.CancelRequest{UserID: w.user, OrderID: o.ID, Admin: w.random.IntN(3) == 0, Key: w.key()}
	if r.Admin && w.random.IntN(2) == 0 {
		r.UserID = 0
	}
	var now engine.Order
	err := w.do("cancel", ordering(&now, func(ctx context.Context, e *engine.Engine) (engine.Order, bool, error) { return e.Cancel(ctx, r) }))
	switch {
	case err == nil && o.Status == engine.Pending && now.Status == engine.Canceled:
		*o = now
	case err == nil && o.Status == engine.Success && now.Status == engine.Refunded:
		*o = now
		w.balance += o.Total
	case errors.Is(err, engine.ErrNotCancelable):
		w.refusedAs(o, err)
	default:
		w.errorf("a cancel of %s ends in %s, %v", describe(o), describe(&now), err)
	}
}

// refusedAs judges a refusal by an order's status: only its deadline may have changed that without the worker.
func (w *worker) refusedAs(o *engine.Order, err error) {
	var refusal *engine.Refusal
	if !errors.As(err, &refusal) {
		w.errorf("no figures in %v", err)
		return
	}
	late := o.Status == engine.Pending && !time.Now().Before(o.ExpiresAt)
	switch refusal.Status {
	case engine.Pending:
		if !late {
			w.errorf("refused with %v before its deadline: %s", err, describe(o))
		}
	case engine.Expired:
		w.see(o)
	default:
		if refusal.Status != o.Status || (o.Status == engine.Success && !errors.Is(err, engine.ErrNotPayable)) {
			w.errorf("refused with %v: %s", err, describe(o))
		}
	}
}

// see reads an order, which only its deadline may have changed, and notes how it is now.
func (w *worker) see(o *engine.Order) {
	now, _, err := definite(func() (engine.Order, bool, error) {
		now, err := w.some(w.random).Order(context.Background(), o.ID, w.user)
		return now, false, err
	})
	if err != nil {
		w.errorf("reading %s: %v", describe(o), err)
		return
	}
	if !now.Equal(o) {
		before := now
		if n := len(now.History); o.Status == engine.Pending && now.Status == engine.Expired && n == 2 && !now.UpdatedAt().Before(o.ExpiresAt) {
			before.Status, before.History = engine.Pending, now.History[:1]
		}
		if !before.Equal(o) {
			w.errorf("it reads %s, it was %s", describe(&now), describe(o))
		}
	}
	*o = now
}

func (w *worker) addToCart() {
	r := engine.CartAddRequest{
		UserID: w.user, ProductID: w.products[w.random.IntN(len(w.products))], Quantity: int64(1 + w.random.IntN(2)), Key: w.key(),
	}
	var cart engine.Cart
	err := w.do("cart add", func(ctx context.Context, e *engine.Engine) (_ string, replayed bool, err error) {
		cart, replayed, err = e.AddToCart(ctx, r)
		return fmt.Sprintf("%+v", cart), replayed, err
	})
	if at := slices.IndexFunc(w.cart, func(l engine.Line) bool { return l.ProductID == r.ProductID }); at >= 0 {
		w.cart[at].Quantity += r.Quantity
	} else {
		w.cart = append(w.cart, line(r.ProductID, r.Quantity))
	}
	if got := linesOf(&cart); err != nil || !slices.Equal(got, w.cart) {
		w.errorf("the cart holds %v (%v), want %v", got, err, w.cart)
	}
}

func (w *worker) removeFromCart() {
	product := w.products[w.random.IntN(len(w.products))]
	cart, _, err := definite(func() (engine.Cart, bool, error) {
		cart, err := w.some(w.random).RemoveFromCart(context.Background(), w.user, product)
		return cart, false, err
	})
	w.cart = slices.DeleteFunc(w.cart, func(l engine.Line) bool { return l.ProductID == product })
	if got := linesOf(&cart); err != nil || !slices.Equal(got, w.cart) {
		w.errorf("the cart holds %v (%v), want %v", got, err, w.cart)
	}
}

func (w *worker) restock() {
	r := engine.RestockRequest{ProductID: w.products[len(w.products)-1], Delta: int64(1 + w.random.IntN(3)), Reason: "delivery", Key: w.key()}
	err := w.do("restock", func(ctx context.Context, e *engine.Engine) (string, bool, error) {
		stock, replayed, err := e.Restock(ctx, r)
		return fmt.Sprint(stock), replayed, err
	})
	if err != nil {
		w.errorf("a restock ends in %v", err)
	}
	w.restocked[r.ProductID] += r.Delta
}

// look reads something: what the worker knows must be there.
func (w *worker) look() {
	switch w.random.IntN(4) {
	case 0:
		w.lookAtBalance()
	case 1:
		w.lookAtCart()
	case 2:
		if o := w.pick(); o != nil {
			w.see(o)
		}
	default:
		_, sellers, err := w.some(w.random).Top(context.Background(), 5)
		if (err != nil && !ambiguous(err)) || len(sellers) > len(w.products) {
			w.errorf("best sellers: %v, %v", sellers, err)
		}
	}
}

func (w *worker) lookAtBalance() {
	balance, _, err := definite(func() (int64, bool, error) {
		balance, err := w.some(w.random).Balance(context.Background(), w.user)
		return balance, false, err
	})
	if err != nil || balance != w.balance {
		w.errorf("the balance is %d (%v), want %d", balance, err, w.balance)
	}
}

func (w *worker) lookAtCart() {
	cart, _, err := definite(func() (engine.Cart, bool, error) {
		cart, err := w.some(w.random).Cart(context.Background(), w.user)
		return cart, false, err
	})
	if got := linesOf(&cart); err != nil || !slices.Equal(got, w.cart) {
		w.errorf("the cart holds %v (%v), want %v", got, err, w.cart)
	}
}

package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/engine"
)

const (
	flashBuyers   = 200
	flashProducts = 12
	flashStock    = 40 // units of each: less than half of what is wanted
	flashPlenty   = 1_000_000
)

// flash is a sale in which everybody fills a cart and orders it.
type flash struct {
	*world
	scarce []int64
	plenty int64 // what some put into the cart while it is ordered
	buyers []*buyer

	soldOut atomic.Int64 // refusals
}

// buyer is one of the crowd, with what it did.
type buyer struct {
	*flash
	random *rand.Rand
	engine *engine.Engine
	user   int64
	cart   []engine.Line // without plenty
	added  int64         // units of plenty put into the cart
	bought int64         // units of plenty that left it
	orders []engine.Order
	keys   int
}

func TestCarts_FlashSaleSellsWhatThereIsAndLeavesTheRestInTheCarts(t *testing.T) {
	f := &flash{world: startTwo(t, shop.Config{Hold: 2 * time.Second})}
	for range flashProducts {
		f.scarce = append(f.scarce, f.Product(7, flashStock))
	}
	f.plenty = f.Product(1, flashPlenty)
	random := seeded(t, 0)
	users := append(f.Users(flashBuyers/8, 20), f.Users(flashBuyers-flashBuyers/8, 10_000)...)
	for i, user := range users {
		f.buyers = append(f.buyers, &buyer{
			flash: f, user: user, engine: f.engines()[i%2], random: rand.New(rand.NewPCG(random.Uint64(), 0)),
		})
	}
	crowd(flashBuyers, func(i int) { f.buyers[i].fill() })
	crowd(flashBuyers, func(i int) { f.buyers[i].buy() })
	if t.Failed() {
		t.FailNow()
	}
	f.audited() // while some hold stock unpaid
	f.check()
	f.awaitNoHolds()
	f.audited()
	f.check()
	left, kept := f.number("SELECT sum(stock)::bigint FROM products WHERE id = ANY($1)", f.scarce), f.number("SELECT count(*) FROM carts")
	t.Logf("%d refusals; of %d scarce units %d are left; %d carts; orders %v",
		f.soldOut.Load(), flashProducts*flashStock, left, kept, f.statuses())
	if f.soldOut.Load() == 0 || kept == 0 {
		t.Error("nothing was sold out, or nobody kept anything in the cart")
	}
}

func (f *flash) statuses() map[string]int64 {
	all := map[string]int64{}
	for s := engine.Pending; s <= engine.Refunded; s++ {
		all[s.String()] = f.number("SELECT count(*) FROM orders WHERE status = $1", s.String())
	}
	return all
}

func (b *buyer) key() string {
	b.keys++
	return fmt.Sprint("key ", b.keys)
}

// fill puts three lines into the cart, some in two steps, some under a key that is used twice.
func (b *buyer) fill() {
	for _, i := range b.random.Perm(flashProducts)[:3] {
		l := line(b.scarce[i], int64(1+b.random.IntN(3)))
		b.cart = append(b.cart, l)
		if l.Quantity == 3 {
			b.add(engine.CartAddRequest{UserID: b.user, ProductID: l.ProductID, Quantity: 2})
			l.Quantity = 1
		}
		r := engine.CartAddRequest{UserID: b.user, ProductID: l.ProductID, Quantity: l.Quantity}
		if b.random.IntN(2) == 0 {
			r.Key = b.key()
		}
		cart := b.add(r)
		if r.Key != "" {
			again, replayed, err := b.engine.AddToCart(context.Background(), r)
			if err != nil || !replayed || !slices.Equal(again.Items, cart.Items) {
				b.t.Errorf("key %q again: %+v, %t, %v; it was %+v", r.Key, again, replayed, err, cart)
			}
		}
		if got := linesOf(&cart); !slices.Equal(got, b.cart) {
			b.t.Errorf("the cart of %d holds %v, want %v", b.user, got, b.cart)
		}
	}
}

func (b *buyer) add(r engine.CartAddRequest) engine.Cart {
	cart, _, err := b.engine.AddToCart(context.Background(), r)
	if err != nil {
		b.t.Errorf("%+v: %v", r, err)
	}
	return cart
}

func linesOf(c *engine.Cart) (lines []engine.Line) {
	for _, i := range c.Items {
		lines = append(lines, line(i.ProductID, i.Quantity))
	}
	return lines
}

// buy orders the cart, gives up lines that are sold out, and pays, cancels, returns or leaves what it got. Some put
// more into the cart all the while.
func (b *buyer) buy() {
	more := make(chan struct{})
	go func() {
		defer close(more)
		if b.user%3 != 0 {
			return
		}
		for range 10 {
			b.add(engine.CartAddRequest{UserID: b.user, ProductID: b.plenty, Quantity: 2})
			b.added += 2
		}
	}()
	b.orderOnce()
	<-more
	if b.user%6 == 0 { // and once more what came in late
		b.orderOnce()
	}
}

// orderOnce orders until something is bought, or nothing can be.
func (b *buyer) orderOnce() {
	for {
		r := engine.CartOrderRequest{UserID: b.user, Later: b.random.IntN(2) == 0, Key: b.key()}
		order, _, err := definite(func() (engine.Order, bool, error) { return b.engine.OrderCart(context.Background(), r) })
		var refusal *engine.Refusal
		switch {
		case err == nil:
			b.took(&order)
			b.settle(order)
			return
		case errors.Is(err, engine.ErrOutOfStock) && errors.As(err, &refusal):
			at := slices.IndexFunc(b.cart, func(l engine.Line) bool { return l.ProductID == refusal.ProductID })
			if at < 0 || refusal.Left >= b.cart[at].Quantity {
				b.t.Errorf("refused with %v for a cart of %v", err, b.cart)
				return
			}
			if _, err := b.engine.RemoveFromCart(context.Background(), b.user, refusal.ProductID); err != nil {
				b.t.Errorf("remove product %d: %v", refusal.ProductID, err)
			}
			b.cart = slices.Delete(b.cart, at, at+1)
			b.soldOut.Add(1)
		case errors.Is(err, engine.ErrCartEmpty):
			if len(b.cart) > 0 {
				b.t.Errorf("empty, with %v in it", b.cart)
			}
			return
		case errors.Is(err, engine.ErrInsufficientBalance):
			return // it stays in the cart
		default:
			b.t.Errorf("an order of a cart ends in %v", err)
			return
		}
	}
}

// took notes what an order took out of the cart, which must be what was in it.
func (b *buyer) took(order *engine.Order) {
	var scarce []engine.Line
	for _, i := range order.Items {
		if i.ProductID == b.plenty {
			b.bought += i.Quantity
			continue
		}
		scarce = append(scarce, line(i.ProductID, i.Quantity))
	}
	if !slices.Equal(scarce, b.cart) {
		b.t.Errorf("%s, of a cart of %v", describe(order), b.cart)
	}
	b.cart = nil
}

// settle pays, cancels, returns or leaves an order.
func (b *buyer) settle(order engine.Order) {
	ctx := context.Background()
	want := order.Status
	var err error
	switch wish := b.random.IntN(4); {
	case wish < 2 && want == engine.Pending:
		_, _, err = b.engine.Pay(ctx, engine.PayRequest{UserID: b.user, OrderID: order.ID, Key: b.key()})
		want = engine.Success
		if errors.Is(err, engine.ErrInsufficientBalance) {
			want, err = engine.Failed, nil
		}
	case wish == 2:
		_, _, err = b.engine.Cancel(ctx, engine.CancelRequest{UserID: b.user, OrderID: order.ID, Key: b.key()})
		if want == engine.Pending {
			want = engine.Canceled
		} else {
			want = engine.Refunded
		}
	}
	// A hold of two seconds may have run out on a slow machine.
	if err != nil && !errors.Is(err, engine.ErrNotPayable) && !errors.Is(err, engine.ErrNotCancelable) {
		b.t.Errorf("settling %s: %v", describe(&order), err)
	}
	now, readErr := b.engine.Order(ctx, order.ID, b.user)
	if readErr != nil || (now.Status != want && now.Status != engine.Expired) {
		b.t.Errorf("want %v: %s, %v", want, describe(&now), readErr)
	}
	b.orders = append(b.orders, now)
}

// check holds stock, money and carts of the shop against what the buyers know, and carts in Postgres against Redis.
func (f *flash) check() {
	f.t.Helper()
	ended := f.holds() == 0 // else some may expire between a read and the next one
	sold := map[int64]int64{}
	for _, b := range f.buyers {
		paid := int64(0)
		for i := range b.orders {
			o, err := b.engine.Order(context.Background(), b.orders[i].ID, b.user)
			if err != nil {
				f.t.Fatalf("read %s: %v", describe(&b.orders[i]), err)
			}
			if o.Status != b.orders[i].Status && (b.orders[i].Status != engine.Pending || o.Status != engine.Expired) {
				f.t.Errorf("%s, it was %v", describe(&o), b.orders[i].Status)
			}
			b.orders[i] = o
			if o.Status == engine.Success {
				paid += o.Total
			}
			if o.Status == engine.Success || o.Status == engine.Pending {
				for _, item := range o.Items {
					sold[item.ProductID] += item.Quantity
				}
			}
		}
		charged := f.number("SELECT sum(amount)::bigint FROM balance_ledger WHERE user_id = $1 AND kind = 'charge'", b.user)
		f.wantBalance(b.user, charged-paid)
		b.checkCart()
	}
	if !ended {
		return
	}
	for _, product := range f.scarce {
		f.wantStock(product, flashStock-sold[product])
	}
	f.wantStock(f.plenty, flashPlenty-sold[f.plenty])
}

func (b *buyer) checkCart() {
	b.t.Helper()
	want := slices.Clone(b.cart)
	if left := b.added - b.bought; left > 0 {
		want = append(want, line(b.plenty, left))
	}
	cart, err := b.engine.Cart(b.t.Context(), b.user)
	if got := linesOf(&cart); err != nil || !slices.Equal(got, want) {
		b.t.Errorf("the cart of %d holds %v (%v), want %v", b.user, got, err, want)
	}
	var total int64
	for _, i := range cart.Items {
		total += i.Quantity * i.Price
	}
	if cart.Total() != total {
		b.t.Errorf("the cart of %d costs %d, want %d", b.user, cart.Total(), total)
	}
	b.wantCartWritten(b.user, want)
}

// wantCartWritten wants a cart in Postgres: its lines in order, and a row of its own only where there are any.
func (w *world) wantCartWritten(user int64, want []engine.Line) {
	w.t.Helper()
	found, err := w.conn.Query(w.t.Context(), "SELECT product_id, quantity FROM cart_items WHERE user_id = $1 ORDER BY line", user)
	if err != nil {
		w.t.Fatal(err)
	}
	lines, err := pgx.CollectRows(found, pgx.RowToStructByPos[engine.Line])
	if err != nil {
		w.t.Fatal(err)
	}
	if !slices.Equal(lines, want) {
		w.t.Errorf("the cart of %d in Postgres holds %v, want %v", user, lines, want)
	}
	carts := w.number("SELECT count(*) FROM carts WHERE user_id = $1", user)
	if (carts == 1) != (len(want) > 0) {
		w.t.Errorf("user %d has %d carts in Postgres, with %v in it", user, carts, want)
	}
}

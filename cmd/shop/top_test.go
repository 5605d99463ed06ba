package shop_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/engine"
)

// rank is a line of the best sellers.
type rank struct{ Product, Sold int64 }

// turned is a shop whose clock is turned.
type turned struct {
	*world
	random   *rand.Rand
	users    []int64
	products []int64
	orders   []engine.Order
	at       time.Time // of the shop
	keys     int
}

// Sales and refunds over days, with a clock that is turned: the best sellers are what the tables say of the last three
// days, also after Redis came back from a kill, and from nothing.
func TestTop_EqualsARecomputationFromTheTablesWhileDaysPass(t *testing.T) {
	d := &turned{world: start(t, shop.Config{}), random: seeded(t, 0)}
	d.users = d.Users(8, 50_000_000)
	for range 9 {
		d.products = append(d.products, d.Product(int64(d.random.IntN(20)), 1_000_000))
	}
	d.turnTo(time.Now())
	steps := counted(48, 400)
	for n := range steps {
		d.pass()
		d.trade(4 + d.random.IntN(5))
		d.compare()
		if n%(steps/3) == steps/3-1 {
			d.restart(int64(d.random.IntN(3000)))
			d.compare()
		}
		if t.Failed() {
			t.Fatalf("this was step %d", n)
		}
	}
	d.restore()
	d.turnTo(d.at)
	d.compare()
	d.turnTo(d.at.Add(30 * time.Hour)) // what was restored leaves as what was sold
	d.compare()
	d.trade(10)
	d.compare()
	d.turnTo(d.at.Add(engine.Window + time.Hour))
	if ranks := d.compare(); len(ranks) > 0 {
		t.Errorf("three days later %v are still among the best sellers", ranks)
	}
	d.audited()
}

// turnTo turns the clock to some time, at the fifth second of its minute: what happens next happens in one minute.
func (d *turned) turnTo(at time.Time) {
	d.at = at.Truncate(time.Minute).Add(5 * time.Second)
	d.Engine.SetClockOffset(time.Until(d.at))
}

// pass lets time pass: up to five hours, or up to half a day, or until an early sale is at the edge of the window: it
// still counts in one minute, and not in the next. Some 130 hours in 48 steps, so that the first days leave.
func (d *turned) pass() {
	d.t.Helper()
	switch d.random.IntN(4) {
	case 0:
		d.turnTo(d.at.Add(time.Duration(d.random.Int64N(int64(14 * time.Hour)))))
	case 1:
		edge := func(o engine.Order) time.Time {
			return o.UpdatedAt().Truncate(time.Minute).Add(engine.Window - time.Minute)
		}
		at := slices.IndexFunc(d.orders, func(o engine.Order) bool {
			return o.Status == engine.Success && edge(o).After(d.at)
		})
		if at < 0 || edge(d.orders[at]).Sub(d.at) > 12*time.Hour {
			return
		}
		d.turnTo(edge(d.orders[at]))
		d.compare()
		if d.random.IntN(2) == 0 {
			d.giveBack(&d.orders[at], fmt.Sprint("at the edge ", d.at))
			d.compare()
		}
		d.turnTo(d.at.Add(time.Minute))
		d.compare()
		d.giveBack(&d.orders[at], fmt.Sprint("behind the edge ", d.at))
	default:
		d.turnTo(d.at.Add(time.Duration(d.random.Int64N(int64(5 * time.Hour)))))
	}
}

// trade places, pays, cancels and refunds at random.
func (d *turned) trade(n int) {
	d.t.Helper()
	ctx := context.Background()
	for range n {
		d.keys++
		key, user := fmt.Sprint("trade ", d.keys), d.users[d.random.IntN(len(d.users))]
		if d.random.IntN(4) == 0 && len(d.orders) > 0 {
			among := len(d.orders)
			if d.random.IntN(2) == 0 {
				among = (among + 2) / 3 // an early one
			}
			d.giveBack(&d.orders[d.random.IntN(among)], key)
			continue
		}
		var lines []engine.Line
		for _, i := range d.random.Perm(len(d.products))[:1+d.random.IntN(3)] {
			lines = append(lines, line(d.products[i], int64(1+d.random.IntN(6))))
		}
		later := d.random.IntN(3) == 0
		order, _, err := d.Engine.Place(ctx, engine.PlaceRequest{UserID: user, Key: key, Lines: lines, Later: later})
		if err == nil && later && d.random.IntN(2) == 0 {
			order, _, err = d.Engine.Pay(ctx, engine.PayRequest{UserID: user, OrderID: order.ID, Key: key + " paid"})
		}
		if err != nil {
			d.t.Fatalf("trade: %v", err)
		}
		d.orders = append(d.orders, order)
	}
}

// giveBack cancels an order as its buyer or as an admin: the sale may have left the window, or the buyer be too late.
func (d *turned) giveBack(o *engine.Order, key string) {
	d.t.Helper()
	admin := d.random.IntN(3) > 0
	_, _, err := d.Engine.Cancel(context.Background(), engine.CancelRequest{OrderID: o.ID, UserID: o.UserID, Admin: admin, Key: key})
	var refusal *engine.Refusal
	if err == nil || (errors.As(err, &refusal) && errors.Is(err, engine.ErrNotCancelable)) {
		if refusal != nil && refusal.Status == engine.Success && (admin || d.at.Sub(o.UpdatedAt()) < 24*time.Hour) {
			d.t.Errorf("at %v no refund of %s (admin: %t)", d.at, describe(o), admin)
		}
		return
	}
	d.t.Fatalf("give back: %v", err)
}

// compare holds the best sellers against the tables, and returns them.
func (d *turned) compare() []rank {
	d.t.Helper()
	d.Written()
	var asOf time.Time
	sellers, _, err := definite(func() (sellers []engine.Seller, _ bool, err error) { // many minutes may have to leave first
		asOf, sellers, err = d.Engine.Top(context.Background(), engine.TopMax)
		return sellers, false, err
	})
	if err != nil {
		d.t.Fatalf("best sellers: %v", err)
	}
	got, want := ranksOf(sellers), d.recompute(asOf)
	if !slices.Equal(got, want) {
		d.t.Errorf("at %v the best sellers are %v, the tables say %v", asOf, got, want)
	}
	_, five, err := d.Engine.Top(context.Background(), 5)
	if err != nil || !slices.Equal(ranksOf(five), got[:min(5, len(got))]) {
		d.t.Errorf("the top five are %v (%v), of %v", five, err, got)
	}
	if asOf.Before(d.at.Add(-2*time.Millisecond)) || asOf.Sub(d.at) > time.Minute {
		d.t.Errorf("they are as of %v, at %v", asOf, d.at)
	}
	return got
}

func ranksOf(sellers []engine.Seller) (ranks []rank) {
	for _, s := range sellers {
		ranks = append(ranks, rank{s.ID, s.Sold})
	}
	return ranks
}

// recompute sums up the orders whose sale lies in the window's minutes and that were not given back.
func (d *turned) recompute(asOf time.Time) []rank {
	d.t.Helper()
	const sql = `SELECT i.product_id, sum(i.quantity)::bigint FROM orders o
		JOIN order_items i ON i.order_id = o.id
		JOIN order_history h ON h.order_id = o.id AND h.status = 'SUCCESS'
		WHERE o.status = 'SUCCESS' AND h.at >= date_trunc('minute', $1::timestamptz) - interval '4319 minutes'
		GROUP BY 1 ORDER BY 2 DESC, 1`
	found, err := d.conn.Query(d.t.Context(), sql, asOf)
	if err != nil {
		d.t.Fatal(err)
	}
	ranks, err := pgx.CollectRows(found, pgx.RowToStructByPos[rank])
	if err != nil {
		d.t.Fatal(err)
	}
	return ranks
}

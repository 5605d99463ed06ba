package shop_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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
	steps := counted(36, 400)
	for n := range steps {
		// From minutes to half a day: some 100 hours in 36 steps, so that the first days leave the window.
		jump := time.Duration(d.random.Int64N(int64(5 * time.Hour)))
		if d.random.IntN(8) == 0 {
			jump = time.Duration(d.random.Int64N(int64(14 * time.Hour)))
		}
		d.turnTo(d.at.Add(jump))
		d.trade(4 + d.random.IntN(5))
		d.compare()
		if n%(steps/3) == steps/3-1 {
			d.restart()
			d.compare()
		}
		if t.Failed() {
			t.Fatalf("this was step %d", n)
		}
	}
	d.restore()
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

// trade places, pays, cancels and refunds at random.
func (d *turned) trade(n int) {
	d.t.Helper()
	ctx := context.Background()
	for range n {
		d.keys++
		key, user := fmt.Sprint("trade ", d.keys), d.users[d.random.IntN(len(d.users))]
		if d.random.IntN(4) == 0 && len(d.orders) > 0 {
			d.giveBack(&d.orders[d.random.IntN(len(d.orders))], key)
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
	asOf, sellers, err := d.Engine.Top(context.Background(), engine.TopMax)
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
	if asOf.Before(d.at) || asOf.Sub(d.at) > time.Minute {
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

// restart kills Redis and waits until it sells again.
func (d *turned) restart() {
	d.t.Helper()
	if err := d.Stack.Redis().HaltNow(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	if err := d.Stack.Redis().Resume(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	d.awaitDoors()
}

// restore empties Redis and has it built anew from Postgres.
func (d *turned) restore() {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	d.Written()
	d.Stop()
	if err := d.Redis.FlushAll(ctx).Err(); err != nil {
		d.t.Fatal(err)
	}
	restored, err := shop.Open(ctx, shop.Config{
		RedisURL: d.Stack.RedisURL(), PostgresURL: d.Stack.PostgresURL(), Restore: true, NoWriter: true,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		d.t.Fatalf("restore: %v", err)
	}
	if err := restored.Engine.AwaitReady(ctx); err != nil {
		d.t.Fatalf("restore: %v", err)
	}
	if err := restored.Close(ctx); err != nil {
		d.t.Fatalf("restore: %v", err)
	}
	d.Reopen()
	d.Engine.SetClockOffset(time.Until(d.at))
}

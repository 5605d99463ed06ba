package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/engine"
)

func TestPay_AtTheDeadlineHasOneOutcome(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{Hold: sequenceHold})
	for _, c := range []struct {
		name  string
		after time.Duration // the deadline
		first string
		want  engine.Status
	}{
		{"paid a moment before", -time.Millisecond, "pay", engine.Success},
		{"expiry comes a moment too early", -time.Millisecond, "expire", engine.Success},
		{"paid at the deadline", 0, "pay", engine.Expired},
		{"expired at the deadline", 0, "expire", engine.Expired},
		{"paid a moment after", time.Millisecond, "pay", engine.Expired},
		{"expired a moment after", time.Millisecond, "expire", engine.Expired},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.empty(t)
			r.at = sequenceStart
			r.fund(t, 100)
			r.stock(t, listing(1, 5, 10))
			o := r.e.SendAt(1, sequenceStart, r.e.PlaceOp(engine.PlaceRequest{UserID: 1, Lines: lines(1, 2), Later: true, Key: "hold"}))[0].Order
			if !o.ExpiresAt.Equal(sequenceStart.Add(sequenceHold)) {
				t.Fatalf("held until %v", o.ExpiresAt)
			}
			at := o.ExpiresAt.Add(c.after)
			pay := func() engine.Outcome {
				return r.e.SendAt(1, at, r.e.PayOp(engine.PayRequest{UserID: 1, OrderID: o.ID, Key: "pay"}, o.Items))[0]
			}
			expire := func() engine.Outcome { return r.e.SendAt(1, at, r.e.ExpireOp(o))[0] }
			var paid, expired engine.Outcome
			if c.first == "pay" {
				paid, expired = pay(), expire()
			} else {
				expired, paid = expire(), pay()
			}
			balance, stock, refused := "100", "10", paid.Err
			if c.want == engine.Success {
				balance, stock, refused = "90", "8", expired.Err
			}
			if (paid.Err == nil) != (c.want == engine.Success) || (expired.Err == nil) != (c.want == engine.Expired) || refused == nil {
				t.Errorf("paid %v, expired %v", paid.Err, expired.Err)
			}
			k, ctx := r.e.Keys(), context.Background()
			if got := r.redis.MGet(ctx, k.Balance(0, 1), k.Stock(0, 1)).Val(); got[0] != balance || got[1] != stock {
				t.Errorf("balance and stock %v, want %s and %s", got, balance, stock)
			}
			if n := r.redis.ZCard(ctx, k.Holds(0)).Val(); n != 0 {
				t.Errorf("%d holds", n)
			}
		})
	}
}

// Two processes sweep, and others hurry the expiry, while every order is paid again and again around its deadline.
func TestPay_HammeredAroundTheDeadlineIsExact(t *testing.T) {
	const orders, users, funds, hold = 400, 8, 1_000_000, 400 * time.Millisecond
	l := lab.open(t)
	r := l.room(t, 0, engine.Config{Hold: hold})
	other := l.engine(t, 0, engine.Config{Hold: hold})
	r.fund(t, funds, funds, funds, funds, funds, funds, funds, funds)
	r.stock(t, listing(1, 3, orders), listing(2, 4, 2*orders))
	engines := []*engine.Engine{r.run(t), other}
	other.Start()
	awaitReady(t, other)

	ctx := context.Background()
	var group sync.WaitGroup
	var paid, late atomic.Int64
	ids := make([]int64, orders)
	for i := range orders {
		group.Go(func() {
			user := int64(i%users) + 1
			o, _, err := r.e.Place(ctx, engine.PlaceRequest{UserID: user, Lines: lines(1, 1, 2, 2), Later: true, Key: fmt.Sprint("hold ", i)})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = o.ID
			time.Sleep(time.Until(o.ExpiresAt) - time.Duration(rand.IntN(130_000)-10_000)*time.Microsecond)
			for try := range 20 {
				e := engines[(i+try)%2]
				if i%3 == 0 {
					_ = e.Send(1, e.ExpireOp(o))[0].Err // whatever comes of it
				}
				_, _, err := e.Pay(ctx, engine.PayRequest{UserID: user, OrderID: o.ID, Key: fmt.Sprintf("pay %d, try %d", i, try)})
				var refusal *engine.Refusal
				switch {
				case err == nil:
					paid.Add(1)
				case errors.As(err, &refusal) && errors.Is(refusal.Reason, engine.ErrNotPayable):
					if refusal.Status != engine.Success {
						late.Add(1)
					}
				default:
					t.Errorf("payment: %v", err)
				}
			}
		})
	}
	group.Wait()
	await(t, "the end of all holds", func() bool { return r.redis.ZCard(ctx, r.e.Keys().Holds(0)).Val() == 0 })

	success, expired := countEnds(t, r.e, ids)
	t.Logf("%d paid, %d expired, %d payments too late", success, expired, late.Load())
	if success == 0 || expired == 0 || success != paid.Load() {
		t.Errorf("%d paid and %d expired, %d payments were acknowledged", success, expired, paid.Load())
	}
	wantStock(t, r.e, 1, orders-success)
	wantStock(t, r.e, 2, 2*(orders-success))
	total := int64(0)
	for user := range int64(users) {
		balance, err := r.e.Balance(ctx, user+1)
		if err != nil {
			t.Fatal(err)
		}
		total += balance
	}
	if total != users*funds-11*success {
		t.Errorf("balances of %d, want %d", total, users*funds-11*success)
	}
}

// countEnds counts the orders that were paid before their deadline, and those that expired from then on; there must be no
// others.
func countEnds(t *testing.T, e *engine.Engine, ids []int64) (success, expired int64) {
	t.Helper()
	for _, id := range ids {
		o, err := e.Order(context.Background(), id, 0)
		if err != nil || len(o.History) != 2 {
			t.Fatalf("%s, %v", describe(o), err)
		}
		switch at := o.UpdatedAt(); {
		case o.Status == engine.Success && at.Before(o.ExpiresAt):
			success++
		case o.Status == engine.Expired && !at.Before(o.ExpiresAt):
			expired++
		default:
			t.Errorf("order %s", describe(o))
		}
	}
	return success, expired
}

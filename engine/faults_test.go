package engine_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

//servers:redis
func TestDoor_KillOfRedisUnderLoadLosesNothing(t *testing.T) {
	s := shoptest.Start(t, stack.Options{}, shop.Config{})
	from := positions(t, s.Engine)
	l := startLoad(s, 32)
	for range 3 {
		l.awaitOrders(t, 200)
		ctx := within(t, patience)
		if err := s.Servers().Restart(ctx); err != nil {
			t.Fatal(err)
		}
		awaitReady(t, s.Engine)
		l.awaitOrders(t, 200)
	}
	placed, notDone, unknown, others := count(l.end())
	t.Logf("%d orders placed, %d not done, %d unknown", placed, notDone, unknown)
	for _, err := range others {
		t.Errorf("an answer that says nothing: %v", err)
	}
	if unknown == 0 && notDone == 0 {
		t.Error("the kill hit nothing")
	}
	awaitReady(t, s.Engine)
	for p, now := range positions(t, s.Engine) {
		if now.Epoch != from[p].Epoch+3 {
			t.Errorf("partition %d is in epoch %d after three kills, %d before", p, now.Epoch, from[p].Epoch)
		}
	}
	l.settle(t)
	wantFold(t, s, from)
	s.Written()
	if err := s.Writer.Alarm(); err != nil {
		t.Error(err)
	}
}

//servers:redis
func TestCall_FrozenRedisIsBoundedAndResolves(t *testing.T) {
	const timeout, frozen = 500 * time.Millisecond, 3 * time.Second
	s := shoptest.Start(t, stack.Options{}, shop.Config{OperationTimeout: timeout})
	from := positions(t, s.Engine)
	l := startLoad(s, 100)
	l.awaitOrders(t, 1000)
	if err := s.Servers().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	froze, during := time.Now(), runtime.NumGoroutine()
	time.Sleep(frozen - 500*time.Millisecond) // the fault lasts; nothing is awaited
	if now := runtime.NumGoroutine(); now > during+100 {
		t.Errorf("%d goroutines while Redis stands still, %d before", now, during)
	}
	time.Sleep(frozen - time.Since(froze))
	if err := s.Servers().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	thawed := time.Now()
	l.awaitOrders(t, 500)
	attempts := l.end()

	placed, notDone, unknown, others := count(attempts)
	t.Logf("%d orders placed, %d not done, %d unknown", placed, notDone, unknown)
	for _, err := range others {
		t.Errorf("an answer that says nothing: %v", err)
	}
	if unknown == 0 || unknown > 2*100 || notDone == 0 {
		t.Errorf("%d unknown, %d not done: a buyer meets an unknown outcome at most twice, until the door is known to be shut", unknown, notDone)
	}
	// A wait in the queue and a wait for the call, and some time to get round to it.
	const bound = 2*timeout + time.Second
	for i := range attempts {
		if a := &attempts[i]; a.took > bound {
			t.Errorf("%v after %v: %v, more than %v", a.request.Key, a.took, a.err, bound)
			break
		}
	}
	first := time.Time{}
	for i := range attempts {
		if a := &attempts[i]; a.err == nil && a.ended.After(thawed) && (first.IsZero() || a.ended.Before(first)) {
			first = a.ended
		}
	}
	t.Logf("the first order %v after the thaw", first.Sub(thawed))
	awaitReady(t, s.Engine)
	l.settle(t)
	wantFold(t, s, from)
	s.Written()
}

func TestCall_CallersOfAFrozenRedisLeaveNoGoroutines(t *testing.T) {
	s := common.open(t)
	user, product := s.User(1000), s.Product(1, 1000)
	mustPlace(t, s.Engine, user, "one", lines(product, 1))
	before := runtime.NumGoroutine()
	if err := s.Servers().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for i := range 300 {
		group.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			_, _, err := s.Engine.Place(ctx, engine.PlaceRequest{UserID: user, Key: strconv.Itoa(i), Lines: lines(product, 1)})
			// The caller is gone; what it asked for goes on.
			wantErr(t, "order of a caller that left", err, engine.ErrUnknown)
		})
	}
	group.Wait()
	if err := s.Servers().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	awaitReady(t, s.Engine)
	await(t, "an empty queue", func() bool { return s.Engine.Queued(s.Engine.Keys().OfUser(user)) == 0 })
	await(t, "no more goroutines than before", func() bool { return runtime.NumGoroutine() <= before+20 })
	placed := int64(1)
	for i := range 300 {
		order := mustPlace(t, s.Engine, user, strconv.Itoa(i), lines(product, 1))
		if order.ID == 0 {
			t.Error("no order")
		}
		placed++
	}
	wantStock(t, s.Engine, product, 1000-placed)
}

func TestDoor_CallOfAnotherEpochChangesNothing(t *testing.T) {
	s := single.open(t)
	e := s.Engine
	user, product := s.User(100), s.Product(1, 100)
	from := position(t, e, 0)
	for _, epoch := range []int64{from.Epoch - 1, from.Epoch + 1, 0, -1} {
		for name, op := range map[string]*engine.Op{
			"place":   e.PlaceOp(engine.PlaceRequest{UserID: user, Key: "place", Lines: lines(product, 1)}),
			"charge":  e.ChargeOp(engine.ChargeRequest{UserID: user, Key: "charge", Amount: 1}),
			"restock": e.RestockOp(engine.RestockRequest{ProductID: product, Key: fmt.Sprint("stale ", product), Delta: 1}),
		} {
			got := e.Send(epoch, op)[0]
			wantErr(t, fmt.Sprintf("%s in epoch %d instead of %d", name, epoch, from.Epoch), got.Err, engine.ErrUnavailable)
		}
	}
	if now := position(t, e, 0); now != from {
		t.Errorf("events moved from %v to %v", from, now)
	}
	wantBalance(t, e, user, 100)
	wantStock(t, e, product, 100)
	if err := e.Ready(); err != nil {
		t.Errorf("a stale call shut the door: %v", err)
	}
}

func TestDoor_ShutByHandSellsNothingUntilRepaired(t *testing.T) {
	s := common.open(t)
	e, ctx := s.Engine, context.Background()
	user, product := s.User(100), s.Product(1, 100)
	p := e.Keys().OfUser(user)
	from := position(t, e, p)
	// Together, so that the keeper cannot open the door in between.
	op := e.PlaceOp(engine.PlaceRequest{UserID: user, Key: "shut", Lines: lines(product, 1)})
	if err := s.Redis.HSet(ctx, e.Keys().Meta(p), "open", 0).Err(); err != nil {
		t.Fatal(err)
	}
	got := e.Send(from.Epoch, op)[0]
	wantErr(t, "order before a shut door", got.Err, engine.ErrUnavailable)
	await(t, "a repair", func() bool { return e.KnownEpoch(p) > from.Epoch })
	wantStock(t, e, product, 100)
	wantBalance(t, e, user, 100)
	order, replayed, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "shut", Lines: lines(product, 1)})
	if err != nil || replayed {
		t.Fatalf("after the repair: %s, %t, %v", describe(order), replayed, err)
	}
	got = e.Send(from.Epoch, e.PlaceOp(engine.PlaceRequest{UserID: user, Key: "old", Lines: lines(product, 1)}))[0]
	wantErr(t, "order in the epoch before the repair", got.Err, engine.ErrUnavailable)
	if events := eventsOf(t, entriesAfter(t, s, p, from)); len(events) != 1 {
		t.Errorf("%d events, want 1", len(events))
	}
	s.Written()
}

func TestDoor_TwoEnginesGoOnAfterARepair(t *testing.T) {
	s := common.open(t)
	ctx := context.Background()
	other := s.Open()
	defer func() {
		if err := other.Close(within(t, patience)); err != nil {
			t.Error(err)
		}
	}()
	user, product := s.User(100), s.Product(1, 100)
	p := s.Engine.Keys().OfUser(user)
	epoch := s.Engine.KnownEpoch(p)
	if err := s.Redis.HSet(ctx, s.Engine.Keys().Meta(p), "open", 0).Err(); err != nil {
		t.Fatal(err)
	}
	for i, e := range []*engine.Engine{s.Engine, other.Engine} {
		await(t, "an order after the repair", func() bool {
			_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: strconv.Itoa(i), Lines: lines(product, 1)})
			if err != nil && !errors.Is(err, engine.ErrUnavailable) {
				t.Fatal(err)
			}
			return err == nil
		})
		if e.KnownEpoch(p) <= epoch {
			t.Errorf("engine %d sells in epoch %d", i, e.KnownEpoch(p))
		}
	}
	wantStock(t, s.Engine, product, 98)
	s.Written()
}

//servers:redis
func TestCall_ScriptFlushUnderLoadCostsNoError(t *testing.T) {
	s := common.open(t)
	e, ctx, from := s.Engine, context.Background(), positions(t, s.Engine)
	product := s.Product(1, 1_000_000)
	users := []int64{s.User(1_000_000), s.User(1_000_000), s.User(1_000_000), s.User(1_000_000)}
	stop, flushes := make(chan struct{}), 0
	var flusher, buyers sync.WaitGroup
	flusher.Go(func() {
		for tick := time.NewTicker(3 * time.Millisecond); ; flushes++ {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
			}
			if err := s.Redis.ScriptFlush(ctx).Err(); err != nil {
				t.Errorf("flush: %v", err)
			}
		}
	})
	for b := range 12 {
		buyers.Go(func() {
			user := users[b%len(users)]
			for i := range 150 {
				key := fmt.Sprintf("%d of %d", i, b)
				var err error
				switch b % 3 {
				case 0:
					_, _, err = e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 1, Key: key})
				case 1:
					_, _, err = e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: 1, Key: fmt.Sprintf("%s for %d", key, product)})
				default:
					_, _, err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: key, Lines: lines(product, 1)})
				}
				if err != nil {
					t.Errorf("%s: %v", key, err)
					return
				}
			}
		})
	}
	buyers.Wait()
	close(stop)
	flusher.Wait()
	if flushes < 5 {
		t.Errorf("only %d flushes", flushes)
	}
	wantStock(t, e, product, 1_000_000)
	wantFold(t, s, from)
}

//servers:redis
func TestCall_FullRedisRefusesAndChangesNothing(t *testing.T) {
	s := common.open(t)
	e, ctx := s.Engine, context.Background()
	user, product := s.User(1000), s.Product(1, 100)
	mustPlace(t, e, user, "before", lines(product, 1))
	was := engine.Memory(ctx, s.Redis)
	limit := func(memory string) {
		t.Helper()
		err := s.EachRedis(ctx, func(ctx context.Context, c *redis.Client) error { return c.ConfigSet(ctx, "maxmemory", memory).Err() })
		if err != nil {
			t.Fatal(err)
		}
	}
	limit("1mb")
	_, _, placeErr := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "full", Lines: lines(product, 1)})
	_, _, chargeErr := e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 1, Key: "full too"})
	limit(strconv.FormatInt(was, 10))
	wantErr(t, "order of a full Redis", placeErr, engine.ErrUnavailable)
	wantErr(t, "charge of a full Redis", chargeErr, engine.ErrUnavailable)
	awaitReady(t, e)
	wantStock(t, e, product, 99)
	wantBalance(t, e, user, 999)
	_, replayed, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "full", Lines: lines(product, 1)})
	if err != nil || replayed {
		t.Errorf("with room again: replayed %t, %v", replayed, err)
	}
}

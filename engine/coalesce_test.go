package engine_test

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"stampede/engine"
)

// calls is how often Redis ran a command.
func (r *room) calls(t *testing.T, command string) int {
	t.Helper()
	info, err := r.redis.Info(context.Background(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`cmdstat_` + command + `:calls=(\d+)`).FindStringSubmatch(info)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// freezeLab stops the lab's Redis.
func freezeLab(t *testing.T) (thaw func()) {
	t.Helper()
	if err := lab.stack.Redis().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw = sync.OnceFunc(func() {
		if err := lab.stack.Redis().Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(thaw)
	return thaw
}

func TestRead_ManyWaitingReadersShareACall(t *testing.T) {
	const readers = 400
	r := lab.open(t).room(t, 0, engine.Config{})
	r.fund(t, 100, 200)
	r.stock(t, listing(1, 7, 10), listing(2, 8, 20))
	e := r.run(t)
	var group, arrived sync.WaitGroup
	before := r.calls(t, "mget")
	thaw := freezeLab(t)
	for i := range readers {
		arrived.Add(1)
		group.Go(func() {
			arrived.Done()
			user := int64(i%2) + 1
			if i%4 < 2 {
				if got, err := e.Balance(context.Background(), user); err != nil || got != 100*user {
					t.Errorf("balance %d, %v", got, err)
				}
				return
			}
			p, err := e.Product(context.Background(), user)
			if err != nil || p.Stock != 10*user || p.Price != 6+user {
				t.Errorf("product %+v, %v", p, err)
			}
		})
	}
	arrived.Wait()
	time.Sleep(100 * time.Millisecond) // for all of them to queue; late ones would only cost a further call
	thaw()
	group.Wait()
	// What was in flight when the first came, the calls that the rest share, and the sweeper's.
	if n := r.calls(t, "mget") - before; n < 2 || n > 10 {
		t.Errorf("%d calls for %d readers", n, readers)
	} else {
		t.Logf("%d calls for %d readers", n, readers)
	}
}

func TestTop_ManyWaitingReadersShareAReading(t *testing.T) {
	const readers = 300
	r := lab.open(t).room(t, 0, engine.Config{})
	r.fund(t, 100)
	r.stock(t, listing(1, 7, 10))
	e := r.run(t)
	order := mustPlace(t, e, 1, "one", lines(1, 2))
	var group, arrived sync.WaitGroup
	before := r.calls(t, "zrange")
	thaw := freezeLab(t)
	for range readers {
		arrived.Add(1)
		group.Go(func() {
			arrived.Done()
			_, sellers, err := e.Top(context.Background(), 5)
			if err != nil || len(sellers) != 1 || sellers[0].Sold != order.Items[0].Quantity {
				t.Errorf("%+v, %v", sellers, err)
			}
		})
	}
	arrived.Wait()
	time.Sleep(100 * time.Millisecond) // as above
	thaw()
	group.Wait()
	if n := r.calls(t, "zrange") - before; n < 1 || n > 5 {
		t.Errorf("%d readings for %d readers", n, readers)
	}
}

// A crowd that keeps asking for the best sellers leaves Redis to those who buy.
func TestTop_CrowdIsReadForInPauses(t *testing.T) {
	const readers, lasts = 20, 500 * time.Millisecond
	r := lab.open(t).room(t, 0, engine.Config{})
	r.stock(t, listing(1, 7, 10))
	e := r.run(t)
	before := r.calls(t, "zrange")
	var group sync.WaitGroup
	var answers atomic.Int64
	end := time.Now().Add(lasts)
	for range readers {
		group.Go(func() {
			for time.Now().Before(end) {
				if _, _, err := e.Top(context.Background(), 5); err != nil {
					t.Error(err)
				}
				answers.Add(1)
			}
		})
	}
	group.Wait()
	if n := r.calls(t, "zrange") - before; n < 2 || n > int(lasts/(5*time.Millisecond))+10 {
		t.Errorf("%d readings for %d answers in %v", n, answers.Load(), lasts)
	} else {
		t.Logf("%d readings for %d answers in %v", n, answers.Load(), lasts)
	}
}

// Whoever asks after a change was answered sees it, however many read at the same time.
func TestRead_SeesWhatWasAnsweredBeforeItBegan(t *testing.T) {
	const writers, each = 4, 150
	r := lab.open(t).room(t, 0, engine.Config{})
	r.fund(t, 0, 0, 0, 0, engine.BalanceMax)
	r.stock(t, listing(1, 1, engine.StockMax))
	e, ctx := r.run(t), context.Background()
	stop := make(chan struct{})
	var crowd, group sync.WaitGroup
	var reads, sold atomic.Int64
	for i := range 16 {
		crowd.Go(func() { readOn(t, e, i, stop, &reads) })
	}
	for w := range int64(writers) {
		group.Go(func() {
			for i := range int64(each) {
				charged, _, err := e.Charge(ctx, engine.ChargeRequest{UserID: w + 1, Amount: 1, Key: fmt.Sprint("charge ", i)})
				if err != nil {
					t.Error(err)
					return
				}
				if got, err := e.Balance(ctx, w+1); err != nil || got != charged.Balance {
					t.Errorf("balance %d (%v), answered was %d", got, err, charged.Balance)
				}
				_, _, err = e.Place(ctx, engine.PlaceRequest{UserID: 5, Lines: lines(1, 1), Key: fmt.Sprintf("%d of %d", i, w)})
				if err != nil {
					t.Error(err)
					return
				}
				known := sold.Add(1)
				if p, err := e.Product(ctx, 1); err != nil || p.Stock > engine.StockMax-known {
					t.Errorf("stock %d (%v) after %d were sold", p.Stock, err, known)
				}
				if _, sellers, err := e.Top(ctx, 1); err != nil || len(sellers) != 1 || sellers[0].Sold < known {
					t.Errorf("top %+v (%v) after %d were sold", sellers, err, known)
				}
				cart, _, err := e.AddToCart(ctx, engine.CartAddRequest{UserID: w + 1, ProductID: 1, Quantity: 1})
				if err != nil || cart.Items[0].Quantity != i+1 {
					t.Errorf("cart %+v, %v", cart, err)
				}
				wantInCart(t, e, w+1, 1, i+1)
			}
		})
	}
	group.Wait()
	close(stop)
	crowd.Wait()
	t.Logf("%d reads beside", reads.Load())
}

// readOn reads one thing or another until stop.
func readOn(t *testing.T, e *engine.Engine, what int, stop <-chan struct{}, reads *atomic.Int64) {
	ctx := context.Background()
	for {
		select {
		case <-stop:
			return
		default:
		}
		var err error
		switch what % 4 {
		case 0:
			_, err = e.Balance(ctx, reads.Load()%4+1)
		case 1:
			_, err = e.Product(ctx, 1)
		case 2:
			_, _, err = e.Top(ctx, 5)
		default:
			_, err = e.Cart(ctx, 1)
		}
		if err != nil {
			t.Error(err)
			return
		}
		reads.Add(1)
	}
}

func TestRead_FromAFrozenRedisIsBounded(t *testing.T) {
	const timeout, readers = 300 * time.Millisecond, 200
	r := lab.open(t).room(t, 0, engine.Config{OperationTimeout: timeout})
	r.fund(t, 100)
	e := r.run(t)
	before := runtime.NumGoroutine()
	thaw := freezeLab(t)
	begin := time.Now()
	var group sync.WaitGroup
	for range readers {
		group.Go(func() {
			_, err := e.Balance(context.Background(), 1)
			if !errors.Is(err, engine.ErrUnavailable) && !errors.Is(err, engine.ErrOverloaded) || errors.Is(err, engine.ErrUnknown) {
				t.Errorf("balance: %v", err)
			}
			_, _, err = e.Top(context.Background(), 5)
			if !errors.Is(err, engine.ErrUnavailable) && !errors.Is(err, engine.ErrOverloaded) || errors.Is(err, engine.ErrUnknown) {
				t.Errorf("top: %v", err)
			}
		})
	}
	group.Wait()
	if took := time.Since(begin); took > 6*timeout+time.Second {
		t.Errorf("%v until all readers were answered", took)
	}
	thaw()
	awaitReady(t, e)
	wantBalance(t, e, 1, 100)
	await(t, "no more goroutines than before", func() bool { return runtime.NumGoroutine() <= before+10 })
}

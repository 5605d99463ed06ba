package shop_test

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
)

const (
	mixedWorkers = 32
	mixedBalance = 2_000 // minor units to begin with
	mixedHold    = 700 * time.Millisecond
)

// mix is a shop whose servers die while all kinds of buyers work.
type mix struct {
	*world
	products []int64
	prices   map[int64]int64
	stocks   map[int64]int64 // to begin with
	guest    atomic.Pointer[shop.Shop]
	workers  []*worker
}

// Whatever a client does, every outcome becomes known when it asks again, what was acknowledged stays, and the books
// close: through kills of Redis and Postgres, and with a second process that comes and goes.
//
//servers:redis,postgres
func TestMix_WhatWasAcknowledgedOutlivesKills(t *testing.T) {
	m := &mix{world: start(t, shop.Config{Hold: mixedHold}), prices: map[int64]int64{}, stocks: map[int64]int64{}}
	for _, p := range []struct{ price, stock int64 }{{3, 1_000_000}, {10, 1_000_000}, {0, 500}, {5, 60}} {
		id := m.Product(p.price, p.stock)
		m.products = append(m.products, id)
		m.prices[id], m.stocks[id] = p.price, p.stock
	}
	random := seeded(t, 0)
	for n, user := range m.Users(mixedWorkers, mixedBalance) {
		m.workers = append(m.workers, newWorker(m, n, user, rand.New(rand.NewPCG(random.Uint64(), 0))))
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		crowd(mixedWorkers, func(n int) { m.workers[n].run(ctx) })
	}()
	m.haunt(random, counted(4, 200))
	stop()
	<-done
	m.setGuest(nil)
	m.awaitDoors()
	m.awaitNoHolds()
	if t.Failed() {
		t.FailNow()
	}

	crowd(mixedWorkers, func(n int) { m.workers[n].askAgain() })
	m.checkStock()
	m.audited()
	var made, asked int
	kinds := map[string]int{}
	for _, w := range m.workers {
		made += len(w.deeds)
		asked += w.retries
		for _, d := range w.deeds {
			kinds[d.kind]++
		}
	}
	t.Logf("%d deeds, %d attempts had to be made again: %v", made, asked, kinds)
	if asked == 0 || made < 10*mixedWorkers {
		t.Errorf("%d deeds with %d attempts made again: the kills met no load", made, asked)
	}
}

// haunt kills servers in turn, with a second shop that comes before one kill and goes before the next.
func (m *mix) haunt(random *rand.Rand, kills int) {
	m.t.Helper()
	pause := func() { time.Sleep(time.Duration(200+random.IntN(500)) * time.Millisecond) }
	for n := range kills {
		if n%2 == 0 {
			m.setGuest(m.Open())
		} else {
			m.setGuest(nil)
		}
		pause()
		servers := m.Servers()
		victim := servers[random.IntN(len(servers))].Child
		if n%4 == 3 {
			victim = m.Stack.Postgres()
		}
		if err := victim.HaltNow(m.t.Context()); err != nil {
			m.t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(300)) * time.Millisecond)
		ctx, cancel := context.WithTimeout(m.t.Context(), patience)
		err := victim.Resume(ctx)
		cancel()
		if err != nil {
			m.t.Fatal(err)
		}
		m.awaitDoors()
	}
	m.connect()
	pause()
}

// setGuest lets a second shop in, or the one that is there go.
func (m *mix) setGuest(s *shop.Shop) {
	m.t.Helper()
	before := m.guest.Swap(s)
	if before == nil {
		return
	}
	// While others sell there is always something left to write: the first shop's writer will.
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	if err := before.Close(ctx); err != nil {
		m.t.Errorf("close the second shop: %v", err)
	}
}

// some is one of the engines that run now.
func (m *mix) some(random *rand.Rand) *engine.Engine {
	if guest := m.guest.Load(); guest != nil && random.IntN(2) == 0 {
		return guest.Engine
	}
	return m.Engine
}

// checkStock holds each product's stock against what the workers hold.
func (m *mix) checkStock() {
	m.t.Helper()
	m.Written()
	want := map[int64]int64{}
	for id, units := range m.stocks {
		want[id] = units
	}
	for _, w := range m.workers {
		for id, units := range w.restocked {
			want[id] += units
		}
		for _, o := range w.orders {
			if o.Status == engine.Success {
				for _, i := range o.Items {
					want[i.ProductID] -= i.Quantity
				}
			}
		}
		m.wantBalance(w.user, w.balance)
		m.wantCartWritten(w.user, w.cart)
	}
	for id, units := range want {
		m.wantStock(id, units)
	}
}

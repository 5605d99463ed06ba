package persist_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// Restores are cut short at random, some by the death of Redis or Postgres: the one that ends has built everything.
//
//servers:redis,postgres
func TestRestore_CutShortAnywhereIsTakenUp(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 3, Hold: time.Hour})
	users, products := s.Users(40, 10_000), []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000)}
	stop := busy(t, s.Shop, users, products, 5)
	awaitEvents(t, s.Shop, 500)
	stop()
	settled(t, s, conn)
	before := holdings(t, s)
	flush(t, s)

	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	var took time.Duration
	for n := 0; ; n++ {
		ctx, cancel := context.WithCancel(t.Context())
		// Sometimes long enough for the end: a restore takes less than what the bound grows to.
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(n+1)*int64(40*time.Millisecond))), cancel)
		if n%5 == 4 {
			victim := s.Stack.Redis()
			if n%2 == 0 {
				victim = s.Stack.Postgres()
			}
			if err := errors.Join(victim.HaltNow(t.Context()), victim.Resume(t.Context())); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		err := shop.Restore(ctx, servers(s), &persist.RestoreProgress{})
		took = time.Since(began)
		timer.Stop()
		cancel()
		if err == nil {
			t.Logf("restored at attempt %d, in %v", n+1, took)
			break
		}
		if errors.Is(err, persist.ErrRefused) && !strings.Contains(err.Error(), "context canceled") {
			t.Fatalf("attempt %d: %v", n+1, err)
		}
	}
	wantSame(t, withoutRuns(before), withoutRuns(holdings(t, s)))
	s.Reopen()
	auditClean(t, s)
	stop = busy(t, s.Shop, users, products, 6)
	awaitEvents(t, s.Shop, 100)
	stop()
	s.Written()
	auditClean(t, s)
}

// withoutRuns leaves out which process Redis is: it was killed in between.
func withoutRuns(all map[string]string) map[string]string {
	for name := range all {
		if strings.HasSuffix(name, "}meta node") || strings.HasSuffix(name, "}meta run") {
			delete(all, name)
		}
	}
	return all
}

// atFill is a log that does something when a restore has begun and nothing is loaded yet.
type atFill struct {
	slog.Handler
	do func()
}

func (h atFill) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "restoring" {
		h.do()
	}
	return nil
}

// restoreUntil is a restore in whose beginning something happens.
func restoreUntil(ctx context.Context, s *shoptest.Shop, do func()) error {
	c := servers(s)
	c.Log = slog.New(atFill{c.Log.Handler(), do})
	return shop.Restore(ctx, c, &persist.RestoreProgress{})
}

// half leaves a restore behind that got no further than its beginning.
func half(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	if err := restoreUntil(ctx, s, cancel); err == nil || ctx.Err() == nil {
		t.Fatalf("a restore that is cut short ends with %v", err)
	}
}

func TestRestore_HalfOfOneSellsNothing(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Partitions: 2})
	user, product := s.User(1000), s.Product(1, 100)
	s.Written()
	before := holdings(t, s)
	if err := s.EmptyRedis(t.Context()); err != nil { // under the running shop
		t.Fatal(err)
	}
	half(t, s)
	if _, err := s.Engine.Balance(t.Context(), user); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("half a Redis answers for a balance with %v", err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := s.Engine.Ready()
		if err != nil && strings.Contains(err.Error(), "run `stampede restore` again") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the door does not name the way out: %v", err)
		}
	}
	if _, err := shop.Open(t.Context(), servers(s)); !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "run `stampede restore` again") {
		t.Errorf("a shop on half a Redis opens with %v", err)
	}
	for p := range 2 {
		if door, err := s.Engine.Look(t.Context(), p); err != nil || door.Epoch != 0 || door.Open {
			t.Errorf("the door is %+v, %v", door, err)
		}
	}
	restore(t, s)
	awaitOpen(t, s) // the running shop sells again
	wantSame(t, before, holdings(t, s))
	if s.Engine.Keys().OfUser(user) == s.Engine.Keys().Home(product) {
		place(t, s, user, "again", line(product, 1))
	}
	s.Written()
	auditClean(t, s)
}

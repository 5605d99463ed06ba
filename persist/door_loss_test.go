package persist_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// losses are those that the books know of, by epoch.
func losses(t *testing.T, s *shoptest.Shop) map[int64]persist.Loss {
	t.Helper()
	all, err := s.Books.Losses(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	byEpoch := map[int64]persist.Loss{}
	for _, l := range all {
		byEpoch[l.Epoch] = l
	}
	return byEpoch
}

func wantLoss(t *testing.T, l persist.Loss, first, last, beyond int64, durability string) {
	t.Helper()
	if l.First != first || l.Last != last || l.Events != last-first+1 || l.Beyond != beyond || l.Durability != durability {
		t.Errorf("lost %+v; want seq %d to %d, %d beyond what %s promises", l, first, last, beyond, durability)
	}
}

// An AOF of several epochs ago, and a writer that has not come far since: what the epochs in between are cut back by is lost
// for good, and named.
func TestLosses_AreNamedInEveryEpochThatIsCutBack(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	aof, old := filepath.Join(s.Stack.RedisDir(), "appendonlydir"), filepath.Join(t.TempDir(), "old")
	place(t, s, user, "in the old AOF", line(product, 1))
	restart(t, s, func() {
		if err := os.CopyFS(old, os.DirFS(aof)); err != nil {
			t.Fatal(err)
		}
	})
	for n := range 3 {
		place(t, s, user, fmt.Sprint("epoch 2: ", n), line(product, 1))
	}
	restart(t, s, func() {})
	place(t, s, user, "epoch 3", line(product, 1))
	if lost := losses(t, s); len(lost) != 0 {
		t.Errorf("restarts without a loss: %+v", lost)
	}
	restart(t, s, func() {
		if err := errors.Join(os.RemoveAll(aof), os.CopyFS(aof, os.DirFS(old))); err != nil {
			t.Fatal(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); len(losses(t, s)) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("lost: %+v", losses(t, s))
		}
	}
	lost := losses(t, s)
	wantLoss(t, lost[2], 1, 3, 0, engine.DurabilityUnknown) // nobody remembers what was acknowledged then
	wantLoss(t, lost[3], 1, 1, 1, engine.DurabilityFsync)
	balance, err := s.Engine.Balance(t.Context(), user)
	if err != nil || balance != 1_000_000-100 {
		t.Errorf("the balance is %d, %v", balance, err)
	}
	write(t, s)
	auditClean(t, s)
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != 1 {
		t.Errorf("the books hold %d orders, the old AOF held one", n)
	}
}

// Each engine knows what it acknowledged itself: the greatest counts, whoever comes first and however often.
func TestLosses_OfSeveralEnginesAreOne(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	restart(t, s, func() {}) // epoch 1 has ended at 0
	told := func(seq, settled int64, holder string) {
		t.Helper()
		a := engine.Acknowledged{Position: engine.Position{Epoch: 1, Seq: seq}, Settled: settled, Durability: engine.DurabilityEverySec}
		for range 2 {
			if err := s.Books.Ended(t.Context(), 0, a, holder); err != nil {
				t.Fatal(err)
			}
		}
	}
	told(0, 0, "nothing acknowledged")
	if lost := losses(t, s); len(lost) != 0 {
		t.Errorf("lost: %+v", lost)
	}
	told(7, 2, "a")
	wantLoss(t, losses(t, s)[1], 1, 7, 2, engine.DurabilityEverySec)
	told(5, 4, "b")
	wantLoss(t, losses(t, s)[1], 1, 7, 4, engine.DurabilityEverySec)
	told(9, 0, "c")
	wantLoss(t, losses(t, s)[1], 1, 9, 4, engine.DurabilityEverySec)
	if n := testutil.ToFloat64(s.Books.LostCounter()); n != 9 {
		t.Errorf("%v events are counted as lost, 9 are", n)
	}
	// An epoch that is open has lost nothing yet, and one of other books is none.
	open := engine.Acknowledged{Position: engine.Position{Epoch: 2, Seq: 5}, Settled: 5}
	if err := s.Books.Ended(t.Context(), 0, open, "d"); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("an open epoch: %v", err)
	}
	open.Epoch = 77
	if err := s.Books.Ended(t.Context(), 0, open, "d"); err != nil {
		t.Errorf("an epoch of other books: %v", err)
	}
	if lost := losses(t, s); len(lost) != 1 {
		t.Errorf("lost: %+v", lost)
	}
}

// Redis dies again and again while it is being repaired.
//
//servers:redis
func TestDoor_RedisKilledDuringItsRepair(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kill := func() {
		t.Helper()
		if err := s.Servers().HaltNow(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 4 {
		order := place(t, s, user, fmt.Sprint(n), line(product, 1))
		s.Written()
		kill()
		cutTail(t, s, int64(random.IntN(900)))
		for range 2 {
			if err := s.Servers().Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Engine.CheckDoors(t.Context()) //nolint:errcheck // it wakes the keeper
			time.Sleep(time.Duration(random.IntN(12_000)) * time.Microsecond)
			kill()
		}
		if err := s.Servers().Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitOpen(t, s)
		again, replayed, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(n), Lines: []engine.Line{line(product, 1)}})
		if err != nil || !replayed || again.ID != order.ID {
			t.Errorf("order %d: now %d, replayed %t, %v", order.ID, again.ID, replayed, err)
		}
	}
	s.Written()
	auditClean(t, s)
	if lost := losses(t, s); len(lost) != 0 {
		t.Errorf("the books had everything, and yet lost: %+v", lost)
	}
}

// Without Postgres nobody can tell what Redis lacks: its door stays shut, and opens by itself once the books answer.
//
//servers:postgres
func TestDoor_StaysShutWhilePostgresIsDown(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for n := range 3 {
		order := place(t, s, user, fmt.Sprint(n), line(product, 1))
		s.Written()
		if err := s.Servers().HaltNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		cutTail(t, s, 900)
		before := func() error { return s.Stack.Postgres().HaltNow(t.Context()) }
		if n > 0 { // in the middle of it
			before = func() error {
				s.Engine.CheckDoors(t.Context()) //nolint:errcheck // it wakes the keeper
				time.Sleep(time.Duration(random.IntN(10_000)) * time.Microsecond)
				return s.Stack.Postgres().HaltNow(t.Context())
			}
		}
		resume := func() error { return s.Servers().Resume(t.Context()) }
		steps := []func() error{before, resume}
		if n > 0 {
			steps = []func() error{resume, before}
		}
		for _, step := range steps {
			if err := step(); err != nil {
				t.Fatal(err)
			}
		}
		v, err := s.Engine.Look(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 && v.Standing {
			t.Errorf("opened without the books: %+v", v)
		}
		for until := time.Now().Add(time.Second); n == 0 && time.Now().Before(until); {
			_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint("down ", n), Lines: []engine.Line{line(product, 1)}})
			if !errors.Is(err, engine.ErrUnavailable) && !errors.Is(err, engine.ErrUnknown) {
				t.Fatalf("an order while Postgres is down: %v", err)
			}
		}
		if err := s.Stack.Postgres().Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitOpen(t, s)
		again, replayed, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(n), Lines: []engine.Line{line(product, 1)}})
		if err != nil || !replayed || again.ID != order.ID {
			t.Errorf("order %d: now %d, replayed %t, %v", order.ID, again.ID, replayed, err)
		}
	}
	s.Written()
	auditClean(t, s)
}

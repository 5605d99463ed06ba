package persist_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// endEpoch writes into the books what the repair of another Redis writes: the epoch of this one ends at a seq.
func endEpoch(t *testing.T, s *shoptest.Shop, seq int64) {
	t.Helper()
	err := s.Books.Exec(t.Context(), fmt.Sprintf("UPDATE epochs SET last_seq = %d WHERE last_seq IS NULL;", seq)+
		"INSERT INTO epochs (partition, epoch, reason) SELECT partition, fence + 1, 'elsewhere' FROM checkpoints;"+
		"UPDATE checkpoints SET fence = fence + 1")
	if err != nil {
		t.Fatal(err)
	}
}

// A Redis that a failover left behind has an open door, of an epoch that has ended in the books.
//
//servers:redis
func TestFence_RedisThatWasLeftBehindSellsNothing(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1000), s.Product(100, 10)
	for _, key := range []string{"a", "b", "c"} {
		place(t, s, user, key, line(product, 1))
	}
	before, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	endEpoch(t, s, before.Seq-2)
	began := time.Now()
	for s.Engine.Ready() == nil {
		if time.Sleep(time.Millisecond); time.Since(began) > 5*time.Second {
			t.Fatal("it never notices")
		}
	}
	t.Logf("noticed after %v", time.Since(began))
	wantShut := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	order := engine.PlaceRequest{UserID: user, Key: "d", Lines: []engine.Line{line(product, 1)}}
	_, _, err = s.Engine.Place(t.Context(), order)
	wantShut("an order", err)
	_, err = s.Engine.Balance(t.Context(), user)
	wantShut("a balance", err)
	_, err = s.Engine.Balance(t.Context(), user+1)
	wantShut("nobody's balance", err)
	_, err = s.Books.CreateUser(t.Context(), "Late", "late@example.com")
	wantShut("a new user", err)
	awaitReason(t, s.Shop, "left behind")
	if err := s.Engine.CheckDoors(t.Context()); err == nil || !strings.Contains(err.Error(), "left behind") {
		t.Errorf("a look at the doors says %v", err)
	}
	if !s.Engine.LeftBehind(0) {
		t.Error("a writer would take the lead")
	}
	// What it acknowledged behind the end is lost, and named, once the keeper of the shut door has looked into the books.
	lost, err := s.Books.Losses(t.Context())
	for deadline := time.Now().Add(5 * time.Second); err == nil && len(lost) == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		lost, err = s.Books.Losses(t.Context())
	}
	if err != nil || len(lost) != 1 {
		t.Fatalf("lost: %+v, %v", lost, err)
	}
	if l := lost[0]; l.Epoch != before.Epoch || l.First != before.Seq-1 || l.Last != before.Seq || l.Beyond != 2 || l.Durability != engine.DurabilityFsync {
		t.Errorf("lost: %+v", l)
	}

	// An engine that starts on it sells nothing either, not for a moment.
	s.Stop()
	fresh, err := shop.Open(t.Context(), shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), NoWriter: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close(t.Context()) //nolint:errcheck // nothing is pending
	for deadline := time.Now().Add(5 * time.Second); !strings.Contains(fmt.Sprint(fresh.Engine.Ready()), "left behind"); {
		_, _, err = fresh.Engine.Place(t.Context(), order)
		wantShut("an order of an engine that starts", err)
		if time.Now().After(deadline) {
			t.Fatalf("it gives no reason: %v", fresh.Engine.Ready())
		}
	}
	after, err := fresh.Engine.Look(t.Context(), 0)
	if err != nil || after.Position != before.Position || !after.Standing {
		t.Errorf("Redis stands at %+v (%v), it stood at %v", after, err, before.Position)
	}
}

// awaitReason waits until the doors say why they are shut.
func awaitReason(t *testing.T, s *shop.Shop, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := s.Engine.Ready()
		if err != nil && strings.Contains(err.Error(), want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the door says %v, want %q", err, want)
		}
	}
}

// An old master that was restarted has another node, so its door is shut; but what it sold behind the end of its epoch
// never reached the books, and a replay of the journal would leave it standing among what did.
func TestFence_RedisThatWentAstrayIsNotRepaired(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(100, 10)
	place(t, s, user, "a", line(product, 1))
	s.Written()
	fork, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	s.Stop()
	open := func(c shop.Config) {
		t.Helper()
		c.Redis, c.PostgresURL = engine.Redis{URL: s.Stack.RedisURL()}, s.Stack.PostgresURL()
		if s.Shop, err = shop.Open(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	open(shop.Config{NoWriter: true})
	awaitOpen(t, s)
	place(t, s, user, "astray", line(product, 1))
	// The Redis that sold in its place did so from the fork on, for an epoch, and an event of it is in the books.
	endEpoch(t, s, fork.Seq)
	exec(t, conn, "UPDATE checkpoints SET epoch = fence, seq = 1, events = events + 1")
	restartShut(t, s)
	awaitReason(t, s.Shop, "stampede restore")
	if v, err := s.Engine.Look(t.Context(), 0); err != nil || v.Standing || v.Epoch != fork.Epoch || v.Seq != fork.Seq+1 {
		t.Errorf("Redis stands at %+v, %v", v, err)
	}
	exec(t, conn, "UPDATE checkpoints SET epoch = fence - 1, seq = $1, events = events - 1", fork.Seq)
}

// restartShut kills Redis and has it come back.
func restartShut(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	if err := s.Servers().Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// The old master comes back while its replica sells in its place. A process that still goes to it must not take the sale
// over: what the replica sold and the writer has not seen would be gone.
func TestFence_OldMasterIsNotOpenedBesideItsSuccessor(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1000), s.Product(100, 10)
	place(t, s, user, "before", line(product, 1))
	server, promoted := replica(t, s)
	var fork engine.DoorView
	awaitThat(t, "the replica follows", func() bool {
		at, err := promoted.HMGet(t.Context(), s.Engine.Keys().Meta(0), "epoch", "seq", "open", "node").Result()
		fork, _ = s.Engine.Look(t.Context(), 0)
		return err == nil && fork.Standing && fmt.Sprintln(at...) == fmt.Sprintln(fork.Epoch, fork.Seq, 1, fork.Node)
	})
	if err := promoted.Do(t.Context(), "replicaof", "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
	successor, err := shop.Open(t.Context(), shop.Config{Redis: engine.Redis{URL: server.RedisURL()}, PostgresURL: s.Stack.PostgresURL()})
	if err != nil {
		t.Fatal(err)
	}
	if err := successor.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	order := engine.PlaceRequest{UserID: user, Key: "after", Lines: []engine.Line{line(product, 1)}}
	sold, _, err := successor.Engine.Place(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	awaitReason(t, s.Shop, "left behind")
	restartShut(t, s)
	awaitReason(t, s.Shop, "older than the one that other processes sell from")
	if _, _, err := s.Engine.Place(t.Context(), order); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("an order at the old master: %v", err)
	}
	if again, replayed, err := successor.Engine.Place(t.Context(), order); err != nil || !replayed || again.ID != sold.ID {
		t.Errorf("the successor has %+v, replayed %t, %v", again, replayed, err)
	}
	// Once nobody sells from the successor, the old master may be opened, as the books have it.
	if err := successor.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitOpen(t, s)
	if again, replayed, err := s.Engine.Place(t.Context(), order); err != nil || !replayed || again.ID != sold.ID {
		t.Errorf("the old master has %+v, replayed %t, %v", again, replayed, err)
	}
	write(t, s)
	auditClean(t, s)
	if lost := losses(t, s); len(lost) != 0 {
		t.Errorf("lost: %+v", lost)
	}
}

func awaitThat(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not in 20 s: %s", what)
		}
	}
}

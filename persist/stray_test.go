package persist_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
	"stampede/persist"
)

// copied starts a Redis on a copy of the files of a shop's Redis, which runs on.
func copied(t *testing.T, s *shoptest.Shop) *stack.Stack {
	t.Helper()
	other := stacktest.Start(t, stack.Options{NoPostgres: true})
	if err := other.Redis().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	const aof = "appendonlydir"
	to := filepath.Join(other.RedisDir(), aof)
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(filepath.Join(s.Stack.RedisDir(), aof)))); err != nil {
		t.Fatal(err)
	}
	if err := other.Redis().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	return other
}

// openOn opens a shop of a test's books on another Redis, without waiting until it sells.
func openOn(t *testing.T, s *shoptest.Shop, redisURL string, c shop.Config) *shop.Shop {
	t.Helper()
	c.Redis, c.PostgresURL = engine.Redis{URL: redisURL}, s.Stack.PostgresURL()
	opened, err := shop.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func closeShop(t *testing.T, s *shop.Shop) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second) // what a copy holds cannot be written
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// A process on a copy of the files of the Redis that sells is refused, each time, and the shop that sells does not notice.
func TestStray_OnCopiedFilesIsRefusedAndTheShopSellsOn(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	users, product := s.Users(4, 1_000_000), s.Product(1, 1_000_000)
	stop := load(t, s.Engine.Place, users, product)
	for range 4 {
		awaitEvents(t, s.Shop, 50)
		other := copied(t, s)
		began := time.Now()
		stray := openOn(t, s, other.RedisURL(), shop.Config{})
		awaitReason(t, stray, "copy of the one that sells")
		t.Logf("refused after %v", time.Since(began))
		for _, user := range users {
			r := engine.PlaceRequest{UserID: user, Key: "stray", Lines: []engine.Line{line(product, 1)}}
			if _, _, err := stray.Engine.Place(t.Context(), r); !errors.Is(err, engine.ErrUnavailable) {
				t.Errorf("an order at the stray: %v", err)
			}
		}
		if err := s.Engine.Ready(); err != nil {
			t.Errorf("the shop that sells: %v", err)
		}
		awaitEvents(t, s.Shop, 50)
		closeShop(t, stray)
	}
	acknowledged, open := stop()
	if len(open) > 0 {
		t.Errorf("%d orders without an answer", len(open))
	}
	s.Written()
	auditClean(t, s)
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != int64(len(acknowledged)) {
		t.Errorf("%d orders in the books, %d were acknowledged", n, len(acknowledged))
	}
	if fence := number(t, conn, "SELECT fence FROM checkpoints"); fence != 1 {
		t.Errorf("epoch %d, it was 1", fence)
	}
	if lost := losses(t, s); len(lost) != 0 {
		t.Errorf("lost: %+v", lost)
	}
}

// The Redis that sells restarts while a stray asks again and again who sells: the stray does not slip in.
func TestStray_DoesNotSlipInWhileTheShopsRedisRestarts(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(1, 1000)
	place(t, s, user, "before", line(product, 1))
	other := copied(t, s)
	stray := openOn(t, s, other.RedisURL(), shop.Config{})
	defer closeShop(t, stray)
	awaitReason(t, stray, "copy of the one that sells")
	for n := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		asking := make(chan struct{})
		go func() {
			defer close(asking)
			for ctx.Err() == nil {
				_ = stray.Books.Repair(ctx, 0)
				time.Sleep(50 * time.Millisecond)
			}
		}()
		began := time.Now()
		restart(t, s, func() { time.Sleep(300 * time.Millisecond) })
		t.Logf("open after %v", time.Since(began))
		cancel()
		<-asking
		place(t, s, user, fmt.Sprint("after ", n), line(product, 1))
		if v, err := stray.Engine.Look(t.Context(), 0); err != nil || v.Standing {
			t.Fatalf("the stray is open: %+v, %v", v, err)
		}
	}
	s.Written()
	auditClean(t, s)
}

// cloned starts a Redis with all that a shop's Redis holds, which takes it for the one that it was opened on: as on the clone of a
// whole machine.
func cloned(t *testing.T, s *shoptest.Shop) (*stack.Stack, redis.UniversalClient) {
	t.Helper()
	server, client := replica(t, s)
	var was engine.DoorView
	meta := s.Engine.Keys().Meta(0)
	awaitThat(t, "the replica follows", func() bool {
		at, err := client.HMGet(t.Context(), meta, "epoch", "seq", "open", "node").Result()
		was, _ = s.Engine.Look(t.Context(), 0)
		return err == nil && was.Standing && fmt.Sprintln(at...) == fmt.Sprintln(was.Epoch, was.Seq, 1, was.Node)
	})
	if err := client.Do(t.Context(), "replicaof", "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.HSet(t.Context(), meta, "node", info(t, client, "replication", "master_replid"), "run", info(t, client, "server", "run_id")).Err(); err != nil {
		t.Fatal(err)
	}
	return server, client
}

func info(t *testing.T, c redis.UniversalClient, section, field string) string {
	t.Helper()
	_, rest, _ := strings.Cut(c.Info(t.Context(), section).Val(), field+":")
	value, _, found := strings.Cut(rest, "\r\n")
	if !found {
		t.Fatalf("no %s", field)
	}
	return value
}

// fork has a shop sell on while it cannot move the pulse, and another at the clone of its Redis, which can. The one that hung loses.
type fork struct {
	clone *shop.Shop
	redis redis.UniversalClient
	at    int64 // seq that both have
}

func forked(t *testing.T, s *shoptest.Shop, user, product int64, realSells, cloneSells int) fork {
	t.Helper()
	s.Written()
	release := persist.HoldBeats(s.Books)
	server, client := cloned(t, s)
	at, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	clone := openOn(t, s, server.RedisURL(), shop.Config{})
	awaitThat(t, "the clone sells", func() bool { return clone.Engine.Ready() == nil })
	sell := func(at *shop.Shop, what string, n int) {
		for i := range n {
			r := engine.PlaceRequest{UserID: user, Key: fmt.Sprint(what, i), Lines: []engine.Line{line(product, 1)}}
			if _, _, err := at.Engine.Place(t.Context(), r); err != nil {
				t.Fatalf("an order %s: %v", what, err)
			}
		}
	}
	sell(s.Shop, "real", realSells)
	sell(clone, "clone", cloneSells)
	release()
	began := time.Now()
	awaitThat(t, "the one that hung fences itself", func() bool { return s.Engine.Copied(0, at.Epoch) })
	t.Logf("fenced after %v", time.Since(began))
	return fork{clone, client, at.Seq}
}

// Of two Redises that hold the same and take themselves for the one that was opened, one goes on. What was acknowledged at the other
// is named, and it does not mix with what the books hold, whatever stops afterwards.
func TestStray_OfAMachineAndItsCloneOneGoesOn(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(1, 1000)
	place(t, s, user, "before", line(product, 1))
	f := forked(t, s, user, product, 7, 5)
	r := engine.PlaceRequest{UserID: user, Key: "after", Lines: []engine.Line{line(product, 1)}}
	if _, _, err := s.Engine.Place(t.Context(), r); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("an order at the loser: %v", err)
	}
	if _, err := s.Engine.Balance(t.Context(), user); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("a balance at the loser: %v", err)
	}
	if _, _, err := f.clone.Engine.Place(t.Context(), r); err != nil {
		t.Errorf("an order at the winner: %v", err)
	}
	awaitReason(t, s.Shop, "copy of the one that sells")
	awaitThat(t, "the loss is named", func() bool {
		lost, _ := f.clone.Books.Losses(t.Context())
		return len(lost) > 0
	})
	lost, err := f.clone.Books.Losses(t.Context())
	if err != nil || len(lost) != 1 || !lost[0].Copy || lost[0].First != f.at+1 || lost[0].Last != f.at+7 {
		t.Errorf("lost %+v, %v; want seq %d to %d of a copy", lost, err, f.at+1, f.at+7)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := f.clone.AwaitWritten(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := f.clone.Books.Audit(t.Context(), f.redis, func(v persist.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
		t.Error(err)
	}
	// The winner stops. The loser holds events that contradict the books, and stays fenced.
	closeShop(t, f.clone)
	awaitReason(t, s.Shop, "holds events that the books do not have")
	closeShop(t, s.Shop) // what it holds cannot be written: a further wait would be in vain
	s.Shop = nil
}

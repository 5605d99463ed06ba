package persist_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// cutTail cuts bytes off the newest AOF file, as a power cut would.
func cutTail(t *testing.T, s *shoptest.Shop, bytes int64) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(s.Stack.RedisDir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no AOF files: %v", err)
	}
	file := slices.MaxFunc(files, func(a, b string) int { // 10 comes after 9
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	})
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, max(0, info.Size()-bytes)); err != nil {
		t.Fatal(err)
	}
}

func awaitOpen(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if s.Engine.CheckDoors(ctx) == nil && s.Engine.AwaitReady(ctx) == nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("the door stays shut: %v", s.Engine.Ready())
}

//servers:redis
func TestDoor_TailCutOffIsReplayedFromTheJournal(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	var orders []engine.Order
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		orders = append(orders, place(t, s, user, key, line(product, 2)))
	}
	s.Written()
	before, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}

	restart(t, s, func() { cutTail(t, s, 900) }) // a few orders

	after, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if after.Epoch != before.Epoch+1 || after.Seq != 0 || after.Base != before.Events() {
		t.Errorf("the new epoch stands at %+v after %+v", after, before)
	}
	for _, want := range orders {
		got, err := s.Engine.Order(t.Context(), want.ID, user)
		if err != nil || !got.Equal(&want) {
			t.Errorf("order %d is %+v (%v), it was %+v", want.ID, got, err, want)
		}
	}
	again, replayed, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "f", Lines: []engine.Line{line(product, 2)}})
	if err != nil || !replayed || again.ID != orders[5].ID {
		t.Errorf("the last key gives %v, replayed %v, %v", again.ID, replayed, err)
	}
	place(t, s, user, "after", line(product, 1))
	s.Written()
	auditClean(t, s)
	if n := number(t, conn, "SELECT count(*) FROM epochs WHERE last_seq IS NULL"); n != 1 {
		t.Errorf("%d epochs are open", n)
	}
}

func TestDoor_LossBeforeTheWriterIsGoneForGood(t *testing.T) {
	t.Parallel()
	// Without a writer Postgres knows nothing of the orders; the cut takes the last ones for good, and nothing else.
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		place(t, s, user, key, line(product, 2))
	}
	restart(t, s, func() { cutTail(t, s, 900) })
	stream, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 2, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		persist.NewWriter(s.Books, stream).Run(ctx)
	}()
	place(t, s, user, "after", line(product, 1))
	s.Written()
	stop()
	<-done
	auditClean(t, s)
	balance, err := s.Engine.Balance(t.Context(), user)
	if err != nil || balance <= 1_000_000-1300 || balance > 1_000_000-100 {
		t.Errorf("the balance is %d, %v: the cut should have cost some of the six orders, not all", balance, err)
	}
}

func TestDoor_RestartWithoutLossStartsAnEpochAndLosesNothing(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	place(t, s, user, "a", line(product, 2))
	for range 3 {
		restart(t, s, func() {})
		place(t, s, user, time.Now().String(), line(product, 1))
	}
	s.Written()
	// Each repair had Redis begin a new AOF, lest the end of the old one comes back.
	old := []string{""}
	for deadline := time.Now().Add(10 * time.Second); len(old) > 0; time.Sleep(10 * time.Millisecond) {
		old, _ = filepath.Glob(filepath.Join(s.Stack.RedisDir(), "appendonlydir", "appendonly.aof.[12].incr.aof"))
		if time.Now().After(deadline) {
			t.Fatalf("the AOF goes on in %v", old)
		}
	}
	auditClean(t, s)
}

// restart kills Redis and waits until its door is open again.
func restart(t *testing.T, s *shoptest.Shop, between func()) {
	t.Helper()
	if err := s.Servers().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	between()
	if err := s.Servers().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitOpen(t, s)
}

// replica runs a replica of a shop's Redis until the test ends.
func replica(t *testing.T, s *shoptest.Shop) (server *stack.Stack, client redis.UniversalClient) {
	t.Helper()
	server = stacktest.Start(t, stack.Options{NoPostgres: true})
	client, err := engine.Connect(engine.Redis{URL: server.RedisURL()}, 4, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	master, err := url.Parse(s.Stack.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := master.User.Password()
	// Redis does not end on SIGTERM while it writes the first AOF behind a full synchronization: this one keeps none.
	for _, command := range [][]any{
		{"config", "set", "appendonly", "no"},
		{"config", "set", "masterauth", password},
		{"replicaof", master.Hostname(), master.Port()},
	} {
		if err := client.Do(t.Context(), command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	return server, client
}

// A first replica gives its master a new replication id: the door shuts, and opens again in the same epoch.
//
//servers:redis
func TestDoor_FirstReplicaIsAFalseAlarm(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	before, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, client := replica(t, s)
	var after engine.DoorView
	for deadline := time.Now().Add(20 * time.Second); !after.Standing || after.Node == before.Node; time.Sleep(5 * time.Millisecond) {
		if after, err = s.Engine.Look(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the door is %+v", after)
		}
	}
	if after.Epoch != before.Epoch {
		t.Errorf("epoch %d after a false alarm, it was %d", after.Epoch, before.Epoch)
	}
	awaitOpen(t, s)
	place(t, s, user, "a", line(product, 1))

	// The replica sells nothing.
	asReplica, err := engine.New(engine.Config{Redis: client, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		v, err := asReplica.Look(t.Context(), 0)
		if err == nil && v.Epoch == after.Epoch {
			if v.Standing || !v.Replica {
				t.Errorf("the replica's door is %+v", v)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the replica never followed: %+v, %v", v, err)
		}
	}
	s.Written()
	auditClean(t, s)
}

func TestDoor_WriterFollowsThroughEpochsItSlept(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	place(t, s, user, "epoch 1", line(product, 1))
	nothing := func() {}
	restart(t, s, nothing)
	place(t, s, user, "epoch 2", line(product, 1))
	place(t, s, user, "epoch 2 again", line(product, 1))
	restart(t, s, nothing)
	restart(t, s, nothing) // epoch 3 stays empty
	place(t, s, user, "epoch 4", line(product, 1))
	s.Stop()
	opened, err := shop.Open(t.Context(), shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL()})
	if err != nil {
		t.Fatal(err)
	}
	s.Shop = opened
	s.Written()
	auditClean(t, s)
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != 4 {
		t.Errorf("%d orders in Postgres, 4 were placed", n)
	}
}

// keepDump restarts Redis, and returns what puts its files back as they were then, while it is down.
func keepDump(t *testing.T, s *shoptest.Shop) (putBack func()) {
	t.Helper()
	old := filepath.Join(t.TempDir(), "old")
	aof := filepath.Join(s.Stack.RedisDir(), "appendonlydir")
	restart(t, s, func() {
		if err := os.CopyFS(old, os.DirFS(aof)); err != nil {
			t.Fatal(err)
		}
	})
	return func() {
		t.Helper()
		if err := errors.Join(os.RemoveAll(aof), os.CopyFS(aof, os.DirFS(old))); err != nil {
			t.Fatal(err)
		}
	}
}

//servers:redis
func TestDoor_OldDumpIsBroughtForwardThroughEpochs(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	place(t, s, user, "in the dump", line(product, 1))
	putBack := keepDump(t, s)
	late := s.User(500) // Redis' dump knows neither the user nor the product
	second := s.Product(7, 70)
	place(t, s, late, "after the dump", line(product, 2), line(second, 3))
	restart(t, s, func() {})
	place(t, s, user, "an epoch later", line(product, 4))
	s.Written()
	before := dump(t, s)
	restart(t, s, putBack)
	after := dump(t, s)
	for key, value := range before {
		if after[key] != value {
			t.Errorf("%s is %q, it was %q", key, after[key], value)
		}
	}
	place(t, s, late, "and on", line(second, 1))
	s.Written()
	auditClean(t, s)
}

// A repair that dies between its replay and the new epoch leaves Redis at the last event of the journal, but in an epoch whose
// base is that of an older one. The next repair must count the events of all epochs all the same.
func TestDoor_RepairThatDiedAfterItsReplayCountsAllEvents(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	place(t, s, user, "in the dump", line(product, 1))
	putBack := keepDump(t, s)
	place(t, s, user, "an epoch later", line(product, 4))
	s.Written()
	if err := s.Servers().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	putBack()
	exec(t, conn, "CREATE FUNCTION no_epoch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no epoch'; END $$")
	exec(t, conn, "CREATE TRIGGER no_epoch BEFORE INSERT ON epochs FOR EACH ROW EXECUTE FUNCTION no_epoch()")
	if err := s.Servers().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	end := engine.Position{
		Epoch: number(t, conn, "SELECT epoch FROM checkpoints"), Seq: number(t, conn, "SELECT seq FROM checkpoints"),
	}
	awaitThat(t, "the journal is replayed", func() bool {
		v, err := s.Engine.Look(t.Context(), 0)
		return err == nil && v.Position == end
	})
	exec(t, conn, "DROP TRIGGER no_epoch ON epochs")
	awaitOpen(t, s)
	v, err := s.Engine.Look(t.Context(), 0)
	if events := number(t, conn, "SELECT events FROM checkpoints"); err != nil || v.Events() != events {
		t.Errorf("Redis counts %d events, the journal has %d, %v", v.Events(), events, err)
	}
	place(t, s, user, "and on", line(product, 1))
	s.Written()
	auditClean(t, s)
}

// An entry of the stream that is no longer readable, of an event that the journal has, does not keep a partition fenced.
func TestDoor_OpensBesideAWrittenEntryThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(100, 10)
	place(t, s, user, "before", line(product, 1))
	s.Written()
	key := s.Engine.Keys().Events(0)
	id := fmt.Sprintf("%d-%d", number(t, conn, "SELECT epoch FROM checkpoints"), number(t, conn, "SELECT seq FROM checkpoints"))
	s.Redis.Del(t.Context(), key)
	if err := s.Redis.Do(t.Context(), "XADD", key, id, "v", "none").Err(); err != nil {
		t.Fatal(err)
	}
	restart(t, s, func() {})
	place(t, s, user, "after", line(product, 1))
}

// Repairs that are cut off at random, by several processes at once: whatever they leave behind, the next one opens.
func TestDoor_RepairsThatDieLeaveNothingBroken(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	other := s.Open()
	user, product := s.User(1_000_000), s.Product(100, 1000)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	for n := range 12 {
		place(t, s, user, fmt.Sprint(n), line(product, 1))
		if err := s.Servers().HaltNow(t.Context()); err != nil {
			t.Fatal(err)
		}
		if random.IntN(2) == 0 {
			cutTail(t, s, int64(random.IntN(300)))
		}
		dying, stop := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			seed := random.Uint64()
			all.Go(func() {
				mine := rand.New(rand.NewPCG(seed, 1))
				for dying.Err() == nil {
					ctx, cancel := context.WithTimeout(dying, time.Duration(mine.IntN(15_000))*time.Microsecond)
					_ = s.Books.Repair(ctx, 0)
					cancel()
				}
			})
		}
		if err := s.Servers().Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond)
		stop()
		all.Wait()
		awaitOpen(t, s)
		// An order of the cut-off tail that the writer had not seen yet is gone for good; its key may be used again.
		_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(n), Lines: []engine.Line{line(product, 1)}})
		if err != nil {
			t.Fatalf("after repair %d: %v", n, err)
		}
	}
	s.Written()
	auditClean(t, s)
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDoor_EmptiedRedisSellsNothingAndNamesTheWayOut(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(100, 1000)
	place(t, s, user, "a", line(product, 2))
	s.Written()
	s.Redis.FlushAll(t.Context())

	_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "b", Lines: []engine.Line{line(product, 1)}})
	if !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("an emptied Redis answers an order with %v", err)
	}
	if _, err := s.Engine.Balance(t.Context(), user); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("an emptied Redis answers for a balance with %v", err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for !strings.Contains(s.Engine.Ready().Error(), "stampede restore") {
		if time.Now().After(deadline) {
			t.Fatalf("the door does not name the way out: %v", s.Engine.Ready())
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.Stop()
	c := shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL()}
	if _, err := shop.Open(t.Context(), c); !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "stampede restore") {
		t.Errorf("a shop on an emptied Redis opens with %v", err)
	}
}

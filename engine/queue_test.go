package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// nodeOfTests is leased to nobody: leases begin at 0.
const nodeOfTests = engine.NodesMax - 1

// furtherEngine is one more on a shop's Redis, without Postgres.
func furtherEngine(t *testing.T, s *shoptest.Shop, c engine.Config) *engine.Engine {
	t.Helper()
	timeout := c.OperationTimeout
	if timeout == 0 {
		timeout = 2 * time.Second
	}
	client, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 16, timeout)
	if err != nil {
		t.Fatal(err)
	}
	c.Redis, c.Partitions, c.Node = client, s.Engine.Keys().Partitions(), nodeOfTests
	c.Log, c.Durable = slog.New(slog.NewTextHandler(t.Output(), nil)), s.Books.Durable
	e, err := engine.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func freeze(t *testing.T, s *shoptest.Shop) (thaw func()) {
	t.Helper()
	if err := s.Servers().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	thaw = func() {
		once.Do(func() {
			if err := s.Servers().Signal(syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(thaw)
	return thaw
}

func TestQueue_ExpiredIsDroppedUnsentAndChangesNothing(t *testing.T) {
	s := common.open(t)
	e := furtherEngine(t, s, engine.Config{Workers: 1, BatchMax: 1, OperationTimeout: 300 * time.Millisecond})
	user, product := s.User(100), s.Product(1, 100)
	sent := engine.PlaceRequest{UserID: user, Key: "sent", Lines: lines(product, 1)}
	waits := engine.PlaceRequest{UserID: user, Key: "waits", Lines: lines(product, 1)}
	e.Start()
	awaitReady(t, e)

	thaw := freeze(t, s)
	ops := []*engine.Op{e.PlaceOp(sent), e.PlaceOp(waits)}
	if err := e.Enqueue(ops...); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{engine.ErrUnknown, engine.ErrOverloaded} {
		got, err := ops[i].Wait(within(t, patience))
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, fmt.Sprintf("operation %d of a frozen Redis", i), got.Err, want)
	}
	thaw()
	awaitReady(t, e)
	awaitReady(t, s.Engine)
	_, replayed, err := s.Engine.Place(context.Background(), waits)
	if err != nil || replayed {
		t.Errorf("what expired was done: replay %t, %v", replayed, err)
	}
	mustPlace(t, s.Engine, user, "sent", sent.Lines)
	wantStock(t, s.Engine, product, 98)
}

// A worker sends the kinds of a batch one after the other, so the later ones wait on for as long as a call lasts.
func TestQueue_ExpiredWhileAnotherKindWasSentIsDroppedToo(t *testing.T) {
	s := common.open(t)
	e := furtherEngine(t, s, engine.Config{Workers: 1, OperationTimeout: 300 * time.Millisecond})
	user, product := s.User(100), s.Product(1, 100)
	e.Start()
	awaitReady(t, e)

	thaw := freeze(t, s)
	ops := []*engine.Op{
		e.PlaceOp(engine.PlaceRequest{UserID: user, Key: "sent", Lines: lines(product, 1)}),
		e.ChargeOp(engine.ChargeRequest{UserID: user, Key: "waits", Amount: 1}),
	}
	if err := e.Enqueue(ops...); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{engine.ErrUnknown, engine.ErrOverloaded} {
		got, err := ops[i].Wait(within(t, patience))
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, fmt.Sprintf("operation %d of a frozen Redis", i), got.Err, want)
	}
	thaw()
	awaitReady(t, s.Engine)
}

// A batch whose script fails is sent one by one. When Redis stops answering in the middle of that, the rest must not
// wait for one timeout each.
func TestCall_FrozenWhileSentOneByOneIsBounded(t *testing.T) {
	s := single.open(t)
	const timeout, operations = 300 * time.Millisecond, 250
	registry := prometheus.NewRegistry()
	e := furtherEngine(t, s, engine.Config{Workers: 1, OperationTimeout: timeout, Metrics: registry})
	user, product, bad := s.User(1000), s.Product(1, 1000), s.Product(1, 1000)
	for _, key := range soldKeys(s) {
		if err := s.Redis.HSet(context.Background(), key, bad, "not a number").Err(); err != nil {
			t.Fatal(err)
		}
		defer s.Redis.HDel(context.Background(), key, strconv.FormatInt(bad, 10))
	}
	e.Start()
	awaitReady(t, e)
	ops := make([]*engine.Op, operations)
	for i := range ops {
		l := lines(product, 1)
		if i == operations-1 {
			l = lines(bad, 1)
		}
		ops[i] = e.PlaceOp(engine.PlaceRequest{UserID: user, Key: strconv.Itoa(i), Lines: l})
	}
	if err := e.Enqueue(ops...); err != nil {
		t.Fatal(err)
	}
	await(t, "a batch that is sent one by one", func() bool { return figures(t, registry)["stampede_batch_fallbacks_total"] == 1 })
	thaw := freeze(t, s)
	begin := time.Now()
	const bound = 10 * timeout
	ends := map[string]int{}
	for _, op := range ops {
		got, err := op.Wait(within(t, bound-time.Since(begin)))
		switch {
		case err != nil:
			ends["still waiting"]++
		case got.Err == nil:
			ends["placed"]++
		case errors.Is(got.Err, engine.ErrUnknown):
			ends["unknown"]++
		default:
			ends["not done"]++
		}
	}
	thaw()
	t.Logf("%v after %v", ends, time.Since(begin))
	if ends["still waiting"] > 0 {
		t.Errorf("after %v: %v", bound, ends)
	}
	awaitReady(t, s.Engine)
}

func TestQueue_FullRefusesAtOnceAndChangesNothing(t *testing.T) {
	s := common.open(t)
	e := furtherEngine(t, s, engine.Config{QueueMax: 3}) // not started: nobody takes
	user, product := s.User(100), s.Product(1, 100)
	ctx := context.Background()
	var queued sync.WaitGroup
	for i := range 3 {
		queued.Go(func() {
			_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: fmt.Sprint("queued ", i), Lines: lines(product, 1)})
			if err != nil { // a worker may come before the door is known to be open
				wantErr(t, fmt.Sprint("queued operation ", i), err, engine.ErrUnavailable)
			}
		})
	}
	await(t, "a full queue", func() bool { return e.Queued(e.Keys().OfUser(user)) == 3 })
	// Not at once would be never: nobody takes anything.
	_, _, err := e.Place(within(t, time.Second), engine.PlaceRequest{UserID: user, Key: "one too many", Lines: lines(product, 1)})
	wantErr(t, "order for a full queue", err, engine.ErrOverloaded)
	e.Start()
	queued.Wait()
}

func TestQueue_CallerThatLeavesHasItsOrderAllTheSame(t *testing.T) {
	s := common.open(t)
	user, product := s.User(100), s.Product(1, 100)
	ctx, leave := context.WithCancel(context.Background())
	leave()
	r := engine.PlaceRequest{UserID: user, Key: "left", Lines: lines(product, 1)}
	_, _, err := s.Engine.Place(ctx, r)
	if err != nil { // the answer may have been quicker
		wantErr(t, "order of a caller that left", err, engine.ErrUnknown)
	}
	await(t, "the order that nobody waits for", func() bool {
		p, err := s.Engine.Product(context.Background(), product)
		return err == nil && p.Stock == 99
	})
	_, replayed, err := s.Engine.Place(context.Background(), r)
	if err != nil || !replayed {
		t.Errorf("asked again: replay %t, %v", replayed, err)
	}
}

func TestEngine_DrainEndsWhatWaitsAndRefusesTheRest(t *testing.T) {
	s := common.open(t)
	e := furtherEngine(t, s, engine.Config{})
	user, product := s.User(100), s.Product(1, 100)
	e.Start()
	awaitReady(t, e)
	const callers = 50
	var ended sync.WaitGroup
	var mu sync.Mutex
	placed := int64(0)
	for i := range callers {
		ended.Go(func() {
			_, _, err := e.Place(context.Background(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(i), Lines: lines(product, 1)})
			if err != nil {
				wantErr(t, "order while the engine drains", err, engine.ErrOverloaded)
				return
			}
			mu.Lock()
			placed++
			mu.Unlock()
		})
	}
	e.Drain()
	ended.Wait()
	wantStock(t, s.Engine, product, 100-placed)
	_, _, err := e.Charge(context.Background(), engine.ChargeRequest{UserID: user, Amount: 1, Key: "late"})
	wantErr(t, "charge after the drain", err, engine.ErrOverloaded)
}

// What cannot work is refused before anything is sold: a lifetime below a second, say, would make the scripts fail
// behind their first write.
func TestNew_RefusesAConfigThatCannotWork(t *testing.T) {
	client, err := engine.Connect(engine.Redis{URL: "redis://127.0.0.1:1/0"}, 1, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // it was never used
	good := engine.Config{Redis: client, Partitions: 1}
	if _, err := engine.New(good); err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(c *engine.Config){
		"no Redis":                    func(c *engine.Config) { c.Redis = nil },
		"no partitions":               func(c *engine.Config) { c.Partitions = 0 },
		"too many partitions":         func(c *engine.Config) { c.Partitions = engine.PartitionsMax + 1 },
		"a negative node":             func(c *engine.Config) { c.Node = -1 },
		"a node that is not leased":   func(c *engine.Config) { c.Node = engine.NodesMax },
		"more operations than unpack": func(c *engine.Config) { c.BatchMax = 1001 },
		"no operations a call":        func(c *engine.Config) { c.BatchMax = -1 },
		"no lines a call":             func(c *engine.Config) { c.BatchLinesMax = -1 },
		"no room in the queue":        func(c *engine.Config) { c.QueueMax = -1 },
		"no workers":                  func(c *engine.Config) { c.Workers = -1 },
		"a deadline in the past":      func(c *engine.Config) { c.OperationTimeout = -time.Second },
		"a record that never lived":   func(c *engine.Config) { c.IdempotencyTTL = -time.Hour },
		"a record for half a second":  func(c *engine.Config) { c.IdempotencyTTL = 500 * time.Millisecond },
	} {
		c := good
		change(&c)
		if _, err := engine.New(c); err == nil {
			t.Errorf("%s was accepted", what)
		}
	}
}

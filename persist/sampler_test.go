package persist_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/persist"
)

// alarms is a log that keeps what samplers find.
type alarms struct {
	mu   sync.Mutex
	rest []byte
	all  []string
}

func (a *alarms) Write(text []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rest = append(a.rest, text...)
	for {
		line, rest, ended := bytes.Cut(a.rest, []byte("\n"))
		if !ended {
			return len(text), nil
		}
		if a.rest = rest; bytes.Contains(line, []byte("the books do not hold")) {
			a.all = append(a.all, string(line))
		}
	}
}

// naming returns the alarms that name something as what is wrong.
func (a *alarms) naming(what string) (lines []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, line := range a.all {
		if subject, _, _ := strings.Cut(line, " detail="); strings.Contains(subject, what) {
			lines = append(lines, line)
		}
	}
	return lines
}

// sampled runs a shop whose books are sampled in a quick rhythm.
func sampled(t *testing.T, o stack.Options, c shop.Config) (*shoptest.Shop, *prometheus.Registry, *alarms) {
	t.Helper()
	persist.SampleEvery(t, 5*time.Millisecond)
	log, registry := &alarms{}, prometheus.NewRegistry()
	c.Log, c.Metrics = slog.New(slog.NewTextHandler(log, nil)), registry
	return shoptest.Start(t, o, c), registry, log
}

// measured reads a metric, with the value of its label in brackets.
func measured(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			full := f.GetName()
			for _, l := range m.GetLabel() {
				full += "{" + l.GetValue() + "}"
			}
			if full == name {
				return m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	t.Fatalf("there is no metric %s", name)
	return 0
}

// awaitSamples waits until each piece was looked at so often.
func awaitSamples(t *testing.T, registry *prometheus.Registry, n float64) {
	t.Helper()
	for _, piece := range persist.Pieces() {
		name := "stampede_audit_samples_total{" + piece + "}"
		before := measured(t, registry, name)
		awaitThat(t, name+" grows", func() bool { return measured(t, registry, name) >= before+n })
	}
}

func TestSampler_FindsTampering(t *testing.T) {
	s, registry, log := sampled(t, stack.Options{}, shop.Config{Hold: time.Hour})
	conn := connect(t, s)
	user, product := s.User(10_000), s.Product(100, 50)
	order := place(t, s, user, "an order", line(product, 2))
	another := place(t, s, user, "another order", line(product, 2))
	held := reserve(t, s, user, "a hold", line(product, 1))
	addToCart(t, s, user, product, 3)
	s.Written()
	awaitSynced(t, conn)
	awaitSamples(t, registry, 3)
	if found := log.naming(""); len(found) > 0 || measured(t, registry, "stampede_audit_violations") != 0 {
		t.Fatalf("alarms before anything was tampered with: %v", found)
	}
	keys, ctx := s.Engine.Keys(), t.Context()
	putBack := keepAside(t, conn)
	set := func(key, value string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(key, func(p redis.Pipeliner) { p.Set(ctx, key, value, 0) })
	}
	gone := func(key string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inRedis(key, func(p redis.Pipeliner) { p.Del(ctx, key) })
	}
	on := func(table, change string) func(*testing.T, *shoptest.Shop, *pgx.Conn) func() {
		return inPostgres("UPDATE "+table+" SET "+change, putBack(table, "true"))
	}
	before := 0.0
	for _, c := range []tampering{
		{"balance in Redis", set(keys.Balance(0, user), "9501"), keys.Balance(0, user)},
		{"stock in Redis", set(keys.Stock(0, product), "44"), keys.Stock(0, product)},
		{"catalogue in Redis", set(keys.Catalogue(0, product), "x"), keys.Catalogue(0, product)},
		{"a missing order in Redis", gone(keys.Order(0, order.ID)), keys.Order(0, order.ID)},
		{"holds", gone(keys.Holds(0)), keys.Order(0, held.ID)},
		{"cart in Redis", gone(keys.Cart(0, user)), keys.Cart(0, user)},
		{"an invented hold", inRedis(keys.Holds(0), func(p redis.Pipeliner) { p.ZAdd(ctx, keys.Holds(0), redis.Z{Score: 4e12, Member: "87654321"}) }), keys.Holds(0)},
		{"an order in Redis", set(keys.Order(0, another.ID), "x"), keys.Order(0, another.ID)},
		{"answer under a key", set(keys.Idempotency(0, user, "an order"), "x"), keys.Idempotency(0, user, "an order")},
		{"counters", inRedis(keys.Meta(0), func(p redis.Pipeliner) { p.HIncrBy(ctx, keys.Meta(0), "bytes", 1) }), keys.Meta(0)},
		{"total of an order", on("orders", "total_price = total_price + 1"), "orders id="},
		{"the state of an order", on("orders", "status = 'FAILED'"), "order states"},
		{"a posting", on("balance_ledger", "amount = amount - 1"), "balance_ledger partition=0"},
		{"a stock posting", on("stock_ledger", "held = held + 1"), "stock_ledger partition=0"},
	} {
		undo := c.do(t, s, conn)
		awaitThat(t, c.name+" is found", func() bool { return len(log.naming(c.named)) > 0 })
		undo()
		n := measured(t, registry, "stampede_audit_violations")
		if n <= before {
			t.Errorf("%s: the gauge stays at %v", c.name, n)
		}
		before = n
	}
	awaitSamples(t, registry, 3)
	seen := map[string]bool{}
	for _, line := range log.naming("") {
		_, what, _ := strings.Cut(line, "check=")
		what, _, _ = strings.Cut(what, " detail=")
		if seen[what] {
			t.Errorf("logged twice: %s", what)
		}
		seen[what] = true
	}
	if n := measured(t, registry, "stampede_audit_violations"); n != float64(len(seen)) {
		t.Errorf("the gauge says %v of %d violations in the log", n, len(seen))
	}
}

func TestSampler_FindsTamperingWithShares(t *testing.T) {
	s, registry, log := sampled(t, stack.Options{}, shop.Config{Partitions: 4})
	conn := connect(t, s)
	product := s.Product(1, 40)
	place(t, s, s.User(100), "from all shares", line(product, 40))
	settled(t, s, conn)
	awaitSamples(t, registry, 3)
	if found := log.naming(""); len(found) > 0 {
		t.Fatalf("alarms before anything was tampered with: %v", found)
	}
	keys, ctx := s.Engine.Keys(), t.Context()
	var to int
	if err := conn.QueryRow(ctx, "SELECT partition FROM stock_ledger WHERE kind = 'received' LIMIT 1").Scan(&to); err != nil {
		t.Fatal(err)
	}
	share, record, moving := keys.Stock(2, product), keys.Transfers(to, product), keys.Moving(1)
	for _, c := range []tampering{
		{"a share", inRedis(share, func(p redis.Pipeliner) { p.Incr(ctx, share) }), "products id="},
		{"a missing share", inRedis(share, func(p redis.Pipeliner) { p.Del(ctx, share) }), share},
		{"what came", inRedis(record, func(p redis.Pipeliner) { p.Del(ctx, record) }), record},
		{"what moves", inRedis(moving, func(p redis.Pipeliner) { p.ZAdd(ctx, moving, redis.Z{Score: 4e12, Member: engine.Moving(product, 3)}) }), moving},
	} {
		undo := c.do(t, s, conn)
		awaitThat(t, c.name+" is found", func() bool { return len(log.naming(c.named)) > 0 })
		undo()
	}
}

// Users do everything, connections break, Redis loses its tail and is repaired, and is emptied in the end.
func TestSampler_RaisesNoFalseAlarm(t *testing.T) {
	rounds := 1
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		rounds = 50
	}
	persist.KeepEvents(t, 200)
	s, registry, log := sampled(t, stack.Options{Durability: stack.DurabilityEverySec}, shop.Config{Partitions: 2, Hold: 200 * time.Millisecond})
	conn := connect(t, s)
	products := []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000)}
	stop := busy(t, s.Shop, s.Users(4, 5000), products, 1)
	awaitSamples(t, registry, 2)
	for n := range rounds {
		exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()")
		restart(t, s, func() { cutTail(t, s, int64(n)*500) })
		awaitSamples(t, registry, 1)
	}
	stop()
	s.Written()
	awaitSamples(t, registry, 2)
	if err := s.EmptyRedis(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := measured(t, registry, "stampede_audit_skipped_total")
	awaitThat(t, "samples are skipped", func() bool {
		return measured(t, registry, "stampede_audit_skipped_total") >= before+float64(2*len(persist.Pieces()))
	})
	for _, line := range log.naming("") {
		t.Error(line)
	}
}

func TestSampler_OneProcessSamplesAPartition(t *testing.T) {
	s, registry, _ := sampled(t, stack.Options{}, shop.Config{})
	s.User(100)
	awaitSamples(t, registry, 1)
	other := prometheus.NewRegistry()
	c := servers(s)
	c.Metrics = other
	opened, err := shop.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := opened.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	awaitSamples(t, registry, 5)
	for _, piece := range persist.Pieces() {
		if n := measured(t, other, "stampede_audit_samples_total{"+piece+"}"); n != 0 {
			t.Errorf("the second process took %v samples of %s", n, piece)
		}
	}
	s.Stop()
	awaitSamples(t, other, 1)
}

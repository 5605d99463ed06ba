package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// long asks for the full counts of the long tests (make test-long).
var long = os.Getenv("STAMPEDE_TEST_LONG") != ""

// rapidChecks is how many random runs a property gets in the short tests.
const rapidChecks = 25

func TestMain(m *testing.M) {
	flag.Parse()
	// What rapid found goes to the output with its seed; a file in the source tree would go stale.
	mustSet("rapid.nofailfile", "true")
	if !isSet("rapid.checks") {
		checks := rapidChecks
		if long {
			checks *= 80
		}
		mustSet("rapid.checks", strconv.Itoa(checks))
	}
	if !isSet("rapid.steps") {
		mustSet("rapid.steps", "80")
	}
	code := m.Run()
	closeShops()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func mustSet(name, value string) {
	if err := flag.Set(name, value); err != nil {
		panic(err)
	}
}

func isSet(name string) (set bool) {
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == name })
	return set
}

// Shops that tests share. Each starts with the first test that asks for it and ends with the package; each test takes
// users and products of its own.
var (
	common packageShop                                       // for what injects no fault, or none that lasts
	single = packageShop{config: shop.Config{Partitions: 1}} // the same, for what looks at one call of one partition
	wide   = packageShop{config: shop.Config{Partitions: wideness}}
	// Its clock is turned, there and back. The minute that it follows is a partition's own.
	clocked = packageShop{config: shop.Config{Partitions: 1}}
	// Users and products need not stand in Postgres. Nothing could be lent without a writer.
	bare = packageShop{config: shop.Config{NoWriter: true, Partitions: 1}}
	// Its clock is turned forward, by days, and no writer lets go what is old then.
	turned = packageShop{config: shop.Config{NoWriter: true, Partitions: 1, Hold: turnedHold, RefundWindow: turnedRefund}}
)

const (
	wideness     = 3
	turnedHold   = 10 * time.Minute
	turnedRefund = 24 * time.Hour
)

// packageLife is the testing.TB under which something lives whose end is the end of the package.
type packageLife struct {
	testing.TB // of no test: what is not defined below panics

	test     *testing.T // that uses it now; nil before and after all
	start    sync.Once
	cleanups []func()
}

type packageShop struct {
	packageLife
	config shop.Config
	shop   *shoptest.Shop
}

func (p *packageShop) open(t *testing.T) *shoptest.Shop {
	t.Helper()
	if p == &single && shoptest.OnePartition() {
		p = &common // it is the same
	}
	p.test = t
	p.start.Do(func() {
		p.config.Log = slog.New(slog.NewTextHandler(p.Output(), nil))
		p.shop = shoptest.Start(p, stack.Options{Log: p.config.Log}, p.config)
	})
	if p.shop == nil {
		t.Fatal("the shop of this test did not start")
	}
	return p.shop
}

func closeShops() {
	var all sync.WaitGroup
	for _, p := range []*packageLife{
		&common.packageLife, &single.packageLife, &bare.packageLife, &clocked.packageLife, &turned.packageLife, &wide.packageLife, &lab.packageLife,
	} {
		p.test = nil
		all.Go(func() {
			for _, f := range slices.Backward(p.cleanups) {
				f()
			}
		})
	}
	all.Wait()
}

func (p *packageLife) Helper()                  {}
func (p *packageLife) Context() context.Context { return context.Background() }
func (p *packageLife) Cleanup(f func())         { p.cleanups = append(p.cleanups, f) }

func (p *packageLife) Errorf(format string, args ...any) {
	if p.test == nil {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		return
	}
	p.test.Errorf(format, args...)
}

// Fatalf ends the test that uses the life. A panic would leave its servers behind.
func (p *packageLife) Fatalf(format string, args ...any) {
	if p.test == nil {
		panic(fmt.Sprintf(format, args...))
	}
	p.test.Fatalf(format, args...)
}

func (p *packageLife) Fatal(args ...any) { p.Fatalf("%v", args) }

func (p *packageLife) Output() io.Writer {
	if testing.Verbose() {
		return os.Stderr
	}
	return io.Discard
}

// within is the context of one step of a test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// patience bounds every wait for something that must happen.
const patience = 20 * time.Second

// await polls until the condition holds.
func await(t rapid.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v for: %s", patience, what)
		}
	}
}

func awaitReady(t rapid.TB, e *engine.Engine) {
	t.Helper()
	await(t, "open doors, in Redis and in the engine", func() bool {
		return e.CheckDoors(context.Background()) == nil && e.Ready() == nil
	})
}

// lines reads product, quantity, product, quantity, ...
func lines(flat ...int64) []engine.Line {
	all := make([]engine.Line, 0, len(flat)/2)
	for pair := range slices.Chunk(flat, 2) {
		all = append(all, engine.Line{ProductID: pair[0], Quantity: pair[1]})
	}
	return all
}

// linesOf are what an order asked for.
func linesOf(o *engine.Order) []engine.Line {
	all := make([]engine.Line, len(o.Items))
	for i, item := range o.Items {
		all[i] = engine.Line{ProductID: item.ProductID, Quantity: item.Quantity}
	}
	return all
}

func wantErr(t rapid.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// wantRefusal checks reason and figures.
func wantRefusal(t rapid.TB, what string, err error, want engine.Refusal) {
	t.Helper()
	var got *engine.Refusal
	if !errors.As(err, &got) || !errors.Is(got.Reason, want.Reason) || got.ProductID != want.ProductID ||
		got.Left != want.Left || got.Balance != want.Balance || got.Status != want.Status {
		t.Errorf("%s: %+v, want %+v", what, err, &want)
	}
}

func mustPlace(t rapid.TB, e *engine.Engine, user int64, key string, l []engine.Line) engine.Order {
	t.Helper()
	order, _, err := e.Place(context.Background(), engine.PlaceRequest{UserID: user, Lines: l, Key: key})
	if err != nil {
		t.Fatalf("place %q: %v", key, err)
	}
	return order
}

func mustCharge(t rapid.TB, e *engine.Engine, user, amount int64, key string) {
	t.Helper()
	_, _, err := e.Charge(context.Background(), engine.ChargeRequest{UserID: user, Amount: amount, Key: key})
	if err != nil {
		t.Fatalf("charge %q: %v", key, err)
	}
}

func wantBalance(t rapid.TB, e *engine.Engine, user, want int64) {
	t.Helper()
	got, err := e.Balance(context.Background(), user)
	if err != nil || got != want {
		t.Fatalf("balance of user %d: %d (%v), want %d", user, got, err, want)
	}
}

func wantStock(t rapid.TB, e *engine.Engine, product, want int64) {
	t.Helper()
	got, err := e.Product(context.Background(), product)
	// Units that are under way between partitions are not counted.
	for end := time.Now().Add(patience); e.Keys().Partitions() > 1 && got.Stock != want && time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		got, err = e.Product(context.Background(), product)
	}
	if err != nil || got.Stock != want {
		t.Fatalf("stock of product %d: %d (%v), want %d", product, got.Stock, err, want)
	}
}

// position is where a partition's events end now.
func position(t rapid.TB, e *engine.Engine, partition int) engine.Position {
	t.Helper()
	v, err := e.Look(context.Background(), partition)
	if err != nil {
		t.Fatal(err)
	}
	return v.Position
}

// positions are where the events of all partitions end now.
func positions(t rapid.TB, e *engine.Engine) []engine.Position {
	t.Helper()
	all := make([]engine.Position, e.Keys().Partitions())
	for p := range all {
		all[p] = position(t, e, p)
	}
	return all
}

// changesAfter are the events of all partitions behind their positions, but for those of units that went from one to another.
func changesAfter(t rapid.TB, s *shoptest.Shop, after []engine.Position) (all []engine.Event) {
	t.Helper()
	for p, at := range after {
		for _, ev := range eventsOf(t, entriesAfter(t, s, p, at)) {
			if ev.Kind != engine.Moved {
				all = append(all, ev)
			}
		}
	}
	return all
}

// entriesAfter reads a partition's stream behind a position and makes sure that its events are dense.
func entriesAfter(t rapid.TB, s *shoptest.Shop, partition int, after engine.Position) []engine.Entry {
	t.Helper()
	messages, err := s.Redis.XRange(context.Background(), s.Engine.Keys().Events(partition), "("+after.String(), "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	return parseEntries(t, messages, after)
}

// parseEntries reads stream entries and makes sure that their events are dense behind a position.
func parseEntries(t rapid.TB, messages []redis.XMessage, after engine.Position) []engine.Entry {
	t.Helper()
	entries := make([]engine.Entry, len(messages))
	var err error
	for i, m := range messages {
		if entries[i], err = engine.ParseEntry(m.ID, m.Values); err != nil {
			t.Fatal(err)
		}
		e := &entries[i]
		next := int64(1)
		if e.Last.Epoch == after.Epoch {
			next = after.Seq + 1
		}
		if e.First != next {
			t.Fatalf("entry %v begins at seq %d, %v came before it", e.Last, e.First, after)
		}
		after = e.Last
	}
	return entries
}

func eventsOf(t rapid.TB, entries []engine.Entry) []engine.Event {
	t.Helper()
	var all []engine.Event
	for i := range entries {
		events, err := entries[i].Events()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, events...)
	}
	return all
}

var packageStart = time.Now()

// soldOf adds up the units of a product over all partitions and all minutes of this package's tests.
func soldOf(t rapid.TB, s *shoptest.Shop, product int64) int64 {
	t.Helper()
	ctx, field := context.Background(), strconv.FormatInt(product, 10)
	pipe := s.Redis.Pipeline()
	var minutes []*redis.StringCmd
	for p := range s.Engine.Keys().Partitions() {
		for at := packageStart.Unix()/60 - 1; at <= time.Now().Unix()/60+1; at++ {
			minutes = append(minutes, pipe.HGet(ctx, s.Engine.Keys().Sold(p, at), field))
		}
	}
	_, _ = pipe.Exec(ctx) // each answer is looked at below
	var units int64
	for _, minute := range minutes {
		n, err := minute.Int64()
		if err != nil && !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		units += n
	}
	return units
}

package persist_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/persist"
)

//servers:redis,postgres
func TestWriter_DerivesTheTablesFromTheJournal(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, a, b := s.User(10_000), s.Product(100, 50), s.Product(7, 9)
	order := place(t, s, user, "k", line(a, 2), line(b, 3), line(a, 1))
	if _, _, err := s.Engine.Restock(t.Context(), engine.RestockRequest{ProductID: b, Delta: -4, Reason: "broken", Key: "r"}); err != nil {
		t.Fatal(err)
	}
	s.Written()
	for sql, want := range map[string]int64{
		"SELECT total_price FROM orders WHERE status = 'SUCCESS' AND id = $1":                            321,
		"SELECT sum(quantity * price)::bigint FROM order_items WHERE order_id = $1":                      321,
		"SELECT count(*) FROM order_items WHERE order_id = $1":                                           2,
		"SELECT count(*) FROM order_history WHERE order_id = $1":                                         2,
		"SELECT -amount FROM balance_ledger WHERE ref_id = $1":                                           321,
		"SELECT balance_after FROM balance_ledger WHERE ref_id = $1":                                     9679,
		"SELECT sum(delta)::bigint FROM stock_ledger WHERE order_id = $1":                                -6,
		"SELECT balance FROM users WHERE id = (SELECT user_id FROM orders WHERE id = $1)":                9679,
		"SELECT sum(stock)::bigint FROM products WHERE $1::bigint > 0":                                   47 + 2,
		"SELECT stock_after FROM stock_ledger WHERE reason = 'broken' AND $1::bigint > 0":                2,
		"SELECT last_seq FROM events WHERE $1::bigint > 0 ORDER BY last_seq DESC LIMIT 1":                5,
		"SELECT count(*) FROM users WHERE balance = 9679 AND name = 'Buyer' AND $1::bigint > 0":          1,
		"SELECT count(*) FROM products WHERE name = 'Thing' AND price IN (100, 7) AND $1::bigint > 0":    2,
		"SELECT count(*) FROM checkpoints WHERE seq = 5 AND events = 5 AND bytes > 0 AND $1::bigint > 0": 1,
	} {
		if got := number(t, conn, sql, order.ID); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
	auditClean(t, s)
}

//servers:postgres
func TestWriter_TwoAtOnceWriteNothingTwice(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(100_000_000), s.Product(1, 100_000)
	other := s.Open()
	stop := load(t, s.Engine.Place, []int64{user, s.User(1_000_000), s.User(1_000_000)}, product)
	stopOther := load(t, other.Engine.Place, []int64{user, s.User(1_000_000)}, product)
	// The lead goes back and forth: whoever holds the lock loses its connection.
	for range 10 {
		time.Sleep(100 * time.Millisecond)
		exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid()`)
	}
	acknowledged, _ := stop()
	more, _ := stopOther()
	if len(acknowledged) == 0 || len(more) == 0 {
		t.Fatal("no orders were placed")
	}
	s.Written()
	auditClean(t, s)
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != int64(len(acknowledged)+len(more)) {
		t.Errorf("%d orders in Postgres, %d acknowledged", n, len(acknowledged)+len(more))
	}
	if err := other.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// A writer that was frozen before a repair knows the old fence: its transaction finds nothing to move.
func TestWriter_StaleWriterCannotCommitPastARepair(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(10_000), s.Product(1, 100)
	s.Written()
	before := number(t, conn, "SELECT fence FROM checkpoints")
	if err := s.Servers().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Servers().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); number(t, conn, "SELECT fence FROM checkpoints") == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no repair")
		}
	}
	if moved, err := s.Books.MoveFrom(t.Context(), before); moved || err != nil {
		t.Errorf("a writer of before the repair moved the checkpoint: %v, %v", moved, err)
	}
	if moved, err := s.Books.MoveFrom(t.Context(), before+1); !moved || err != nil {
		t.Errorf("one of after it did not: %v", err)
	}
	if err := s.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	place(t, s, user, "k", line(product, 1))
	s.Written() // who writes read the checkpoint again, and went on under the new fence
	auditClean(t, s)
}

func TestWriter_RewoundCheckpointPassesWhatIsKnown(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(10_000), s.Product(1, 100)
	s.Written()
	epoch, seq := number(t, conn, "SELECT epoch FROM checkpoints"), number(t, conn, "SELECT seq FROM checkpoints")
	events, bytes := number(t, conn, "SELECT events FROM checkpoints"), number(t, conn, "SELECT bytes FROM checkpoints")
	for n := range 5 {
		place(t, s, user, fmt.Sprint(n), line(product, 1))
	}
	s.Written()
	exec(t, conn, "UPDATE checkpoints SET epoch = $1, seq = $2, events = $3, bytes = $4", epoch, seq, events, bytes)
	place(t, s, user, "after", line(product, 1))
	s.Written()
	auditClean(t, s)
	if err := s.Writer.Alarm(); err != nil {
		t.Error(err)
	}
}

func TestWriter_GapStopsWithAnAlarm(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(10_000), s.Product(1, 100)
	place(t, s, user, "a", line(product, 1))
	place(t, s, user, "b", line(product, 1))
	key := s.Engine.Keys().Events(0)
	entries := s.Redis.XRange(t.Context(), key, "-", "+").Val()
	s.Redis.XDel(t.Context(), key, entries[len(entries)-2].ID)

	stream, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 2, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	w := persist.NewWriter(s.Books, stream)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	defer func() { stop(); <-done }()
	deadline := time.Now().Add(10 * time.Second)
	for w.Alarm() == nil {
		if time.Now().After(deadline) {
			t.Fatal("no alarm")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if !strings.Contains(w.Alarm().Error(), "lacks events") {
		t.Errorf("the alarm says %v", w.Alarm())
	}
	// Selling goes on.
	place(t, s, user, "c", line(product, 1))
}

//servers:postgres
func TestWriter_PostgresGoneCostsLagNotOrders(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	users, product := []int64{s.User(1_000_000), s.User(1_000_000)}, s.Product(1, 100_000)
	stop := load(t, s.Engine.Place, users, product)
	awaitEvents(t, s.Shop, 50)
	if err := s.Stack.Postgres().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	// While it is gone every order succeeds.
	for n := range 200 {
		place(t, s, users[0], fmt.Sprintf("gone-%d", n), line(product, 1))
	}
	// A pooled connection that died under the request leaves its outcome open; without such a one it is not done.
	_, err := s.Books.CreateUser(t.Context(), "A", "a@example.com")
	for n := 0; errors.Is(err, engine.ErrUnknown) && n < 100; n++ {
		_, err = s.Books.CreateUser(t.Context(), "A", "a@example.com")
	}
	if !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("a user is created without Postgres: %v", err)
	}
	if err := s.Stack.Postgres().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	acknowledged, open := stop()
	if len(open) != 0 {
		t.Errorf("%d outcomes are open although Redis never went away", len(open))
	}
	s.Written()
	conn := connect(t, s)
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != int64(len(acknowledged)+200) {
		t.Errorf("%d orders in Postgres, %d acknowledged", n, len(acknowledged)+200)
	}
	auditClean(t, s)
}

func TestWriter_BacklogCapRefusesOrdersUntilItDrains(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{BacklogCap: 20_000})
	user, product := s.User(1_000_000), s.Product(1, 100_000)
	first := place(t, s, user, "early", line(product, 1))
	if err := s.Stack.Postgres().Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Stack.Postgres().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := 0; err == nil && n < 1000; n++ {
		_, _, err = s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(n), Lines: []engine.Line{line(product, 1)}})
	}
	if !errors.Is(err, engine.ErrOverloaded) {
		t.Fatalf("beyond the cap an order ends in %v", err)
	}
	again, replayed, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "early", Lines: []engine.Line{line(product, 1)}})
	if err != nil || !replayed || again.ID != first.ID {
		t.Errorf("a key that was used answers %v, replayed %v, %v", again.ID, replayed, err)
	}
	if err := s.Stack.Postgres().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Written()
	place(t, s, user, "drained", line(product, 1))
	s.Written()
	auditClean(t, s)
}

func TestWriter_TrimsBehindTheCheckpoint(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	product := s.Product(1, 1_000_000)
	var users []int64
	for range 64 {
		users = append(users, s.User(1_000_000))
	}
	stop := load(t, s.Engine.Place, users, product)
	awaitEvents(t, s.Shop, 14_000)
	stop()
	s.Written()
	place(t, s, users[0], "last", line(product, 1))
	s.Written()
	entries := s.Redis.XRange(t.Context(), s.Engine.Keys().Events(0), "-", "+").Val()
	first, err := engine.ParseEntry(entries[0].ID, entries[0].Values)
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if first.First < 100 || v.Seq-first.First < 10_000 {
		t.Errorf("the stream reaches from %d to %d: the last 10,000 events should stay, older ones go", first.First, v.Seq)
	}
	if v.Done != v.Bytes {
		t.Errorf("%d of %d bytes are marked as written", v.Done, v.Bytes)
	}
	auditClean(t, s)
}

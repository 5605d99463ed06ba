package persist_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// trade has buyers of every partition order one unit at a time until there are none left, so that units move between the
// shares. Some of the orders stay unpaid.
func trade(t *testing.T, s *shoptest.Shop, product int64, users []int64) (sold int) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	for n, user := range users {
		all.Go(func() {
			for i := 0; ; i++ {
				_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{
					UserID: user, Key: fmt.Sprintf("trade %d %d %d", product, user, i), Lines: []engine.Line{line(product, 1)}, Later: (n+i)%5 == 0,
				})
				switch {
				case errors.Is(err, engine.ErrOutOfStock), errors.Is(err, engine.ErrInsufficientBalance):
					return
				case errors.Is(err, engine.ErrElsewhere), errors.Is(err, engine.ErrOverloaded):
					continue // not done
				case err != nil:
					t.Error(err)
					return
				}
				mu.Lock()
				sold++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return sold
}

// settled waits until no transfer is open.
func settled(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) {
	t.Helper()
	s.Written()
	awaitThat(t, "transfers are settled", func() bool {
		for p := range s.Engine.Keys().Partitions() {
			if n, err := s.Redis.ZCard(t.Context(), s.Engine.Keys().Moving(p)).Result(); err != nil || n > 0 {
				return false
			}
			v, err := s.Engine.Look(t.Context(), p)
			if err != nil || s.Engine.Backlog(&v) > 0 {
				return false
			}
		}
		return true
	})
	if n := number(t, conn, "SELECT coalesce(sum(units), 0) FROM stock_postings WHERE account = 'transit'"); n != 0 {
		t.Errorf("%d units are under way, though nothing is open", n)
	}
}

func TestWriter_DerivesTransfers(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 4, Hold: time.Hour})
	product, users := s.Product(1, 200), s.Users(12, 1000)
	place(t, s, users[0], "from all shares", line(product, 100))
	if n := trade(t, s, product, users); n != 100 {
		t.Errorf("%d orders for 100 units", n)
	}
	settled(t, s, conn)
	for sql, want := range map[string]int64{
		"SELECT -sum(delta) FROM stock_ledger WHERE kind = 'sent'":                                     number(t, conn, "SELECT sum(delta) FROM stock_ledger WHERE kind = 'received'"),
		"SELECT count(*) FROM stock_ledger WHERE kind = 'sent'":                                        number(t, conn, "SELECT count(*) FROM stock_ledger WHERE kind = 'received'"),
		"SELECT count(*) FROM stock_ledger WHERE (kind IN ('sent', 'received')) <> (peer IS NOT NULL)": 0,
		`SELECT count(*) FROM stock_ledger r LEFT JOIN stock_ledger s ON s.partition = r.peer AND s.epoch = r.sent_epoch AND s.seq = r.sent_seq
			WHERE r.kind = 'received' AND (s.kind, s.peer, s.delta) IS DISTINCT FROM ('sent', r.partition, -r.delta)`: 0,
		"SELECT stock FROM products":                                      0,
		"SELECT sum(units) FROM stock_postings WHERE account = 'supply'":  -200,
		"SELECT sum(units) FROM stock_postings WHERE account <> 'supply'": 200,
	} {
		if got := number(t, conn, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
	if number(t, conn, "SELECT count(*) FROM stock_ledger WHERE kind = 'sent'") == 0 {
		t.Error("nothing was sent")
	}
	// Whatever partition is walked first, what it received may come before what sent it.
	want := dumpWritten(t, s, conn)
	exec(t, conn, "TRUNCATE stock_ledger; UPDATE products SET stock = 7")
	rebuild(t, s)
	wantTables(t, conn, want)
}

// Redis comes back as it was before units moved. The journal brings shares, what is under way and what has come; nothing
// comes twice, and everything can be sold.
func TestDoor_TransfersComeBackFromTheJournal(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 4, Hold: time.Hour})
	product, users := s.Product(1, 400), s.Users(12, 1000)
	s.Written()
	aof, old := filepath.Join(s.Stack.RedisDir(), "appendonlydir"), filepath.Join(t.TempDir(), "old")
	restart(t, s, func() {
		if err := os.CopyFS(old, os.DirFS(aof)); err != nil {
			t.Fatal(err)
		}
	})
	place(t, s, users[0], "from all shares", line(product, 350))
	for n := range 30 {
		place(t, s, users[n%3], fmt.Sprint("before ", n), line(product, 1))
	}
	settled(t, s, conn)
	before := shares(t, s, product)
	sent := number(t, conn, "SELECT count(*) FROM stock_ledger WHERE kind = 'sent'")
	if sent == 0 {
		t.Fatal("nothing was sent")
	}
	restart(t, s, func() {
		if err := errors.Join(os.RemoveAll(aof), os.CopyFS(aof, os.DirFS(old))); err != nil {
			t.Fatal(err)
		}
	})
	settled(t, s, conn)
	if after := shares(t, s, product); after != before {
		t.Errorf("shares are %v, they were %v", after, before)
	}
	if n := number(t, conn, "SELECT count(*) FROM stock_ledger WHERE kind = 'sent'"); n != sent {
		t.Errorf("%d transfers, %d before the loss", n, sent)
	}
	if n := trade(t, s, product, users); n != 20 {
		t.Errorf("%d orders for 20 units", n)
	}
	settled(t, s, conn)
}

// shares are those of a product by partition, with the peers from which units came.
func shares(t *testing.T, s *shoptest.Shop, product int64) string {
	t.Helper()
	var all []string
	keys := testKeys(t, 4)
	for p := range keys.Partitions() {
		found, err := s.Redis.MGet(t.Context(), keys.Stock(p, product), keys.Transfers(p, product)).Result()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprint(found[0], cameLast(t, found[1])))
	}
	return strings.Join(all, "; ")
}

// cameLast is what a record of transfers says of those that came last.
func cameLast(t *testing.T, value any) string {
	t.Helper()
	record, err := engine.DecodeTransfers(value)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(record.In, func(a, b engine.Incoming) int { return a.Peer - b.Peer })
	return fmt.Sprint(record.In)
}

// underWay has a buyer ask for units of which some lie in other shares, while nobody writes: they leave and cannot come. The
// shop is stopped, and then all is written: transfers stay open, in Redis as in the books.
func underWay(t *testing.T, s *shoptest.Shop, product, user, units int64) {
	t.Helper()
	_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "in vain", Lines: []engine.Line{line(product, units)}})
	if !errors.Is(err, engine.ErrElsewhere) && !errors.Is(err, engine.ErrOverloaded) {
		t.Fatalf("without a writer units came from other shares: %v", err)
	}
	partitions := s.Engine.Keys().Partitions()
	s.Stop()
	books := bystander(t, s, partitions)
	stream, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 2*partitions, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		persist.NewWriter(books, stream).Run(ctx)
	}()
	awaitThat(t, "everything is written", func() bool {
		lag, err := books.Lag(t.Context())
		return err == nil && lag.Events == 0
	})
	stop()
	<-done
}

// unwritten reopens a shop without a writer.
func unwritten(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	c := servers(s)
	s.Stop()
	c.NoWriter, c.Hold = true, time.Hour
	opened, err := shop.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Shop = opened
	if err := s.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestRestore_SharesAndTransfers(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 4, Hold: time.Hour})
	product, users := s.Product(1, 200), s.Users(12, 1000)
	s.Product(1, 3) // fewer units than shares
	for n := range 150 {
		place(t, s, users[n%3], fmt.Sprint("before ", n), line(product, 1))
	}
	settled(t, s, conn)
	before := shares(t, s, product)
	unwritten(t, s)
	few := s.Product(1, 8)
	underWay(t, s, few, users[0], 8)
	open := number(t, conn, "SELECT sum(units) FROM stock_postings WHERE account = 'transit'")
	if open == 0 {
		t.Fatal("nothing is under way")
	}
	moving := shares(t, s, few)
	books := bystander(t, s, 4)
	for _, v := range auditBooks(t, books, s) {
		t.Errorf("before the restore: %+v", v)
	}
	flush(t, s)
	restore(t, s)
	if after := shares(t, s, product); after != before {
		t.Errorf("shares are %v, they were %v", after, before)
	}
	if after := shares(t, s, few); after != moving {
		t.Errorf("shares are %v, they were %v", after, moving)
	}
	for _, v := range auditBooks(t, books, s) {
		t.Errorf("after the restore: %+v", v)
	}
	s.Reopen()
	settled(t, s, conn)
	place(t, s, users[0], "now they come", line(few, 8))
	if n := trade(t, s, product, users); n != 50 {
		t.Errorf("%d orders for 50 units", n)
	}
	settled(t, s, conn)
	auditClean(t, s)
}

// Redis is lost while a product is being created. Partitions that had not come so far get the units with which they start, the
// others no second time.
func TestRestore_ListedInSomePartitionsOnly(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 4})
	product, user := s.Product(1, 50), s.User(1000)
	s.Written()
	keys := s.Engine.Keys()
	flush(t, s)
	for p := range 4 { // two of them never had the event
		if p == keys.Home(product) || p == keys.OfUser(user) {
			continue
		}
		exec(t, conn, "WITH gone AS (DELETE FROM stock_ledger WHERE partition = $1 RETURNING delta) UPDATE products SET stock = stock - (SELECT sum(delta) FROM gone)", p)
		exec(t, conn, "DELETE FROM events WHERE partition = $1", p)
		exec(t, conn, "UPDATE checkpoints SET epoch = 0, seq = 0, events = 0, bytes = 0 WHERE partition = $1", p)
	}
	before := number(t, conn, "SELECT stock FROM products")
	restore(t, s)
	s.Reopen()
	s.Written()
	if n := number(t, conn, "SELECT stock FROM products"); n != 50 || before >= 50 {
		t.Errorf("%d units, %d before the restore", n, before)
	}
	place(t, s, user, "all of them", line(product, 50))
	settled(t, s, conn)
	auditClean(t, s)
}

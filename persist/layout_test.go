package persist_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// relaid has an empty Redis built from the books with another number of partitions, and opens the shop on it.
func relaid(t *testing.T, s *shoptest.Shop, partitions int) {
	t.Helper()
	flush(t, s)
	c := servers(s)
	c.Partitions = partitions
	if err := shop.Restore(t.Context(), c, &persist.RestoreProgress{}); err != nil {
		t.Fatalf("restore with %d partitions: %v", partitions, err)
	}
	s.SetPartitions(partitions)
	s.Reopen()
	if now := s.Engine.Keys().Partitions(); now != partitions {
		t.Fatalf("the shop has %d partitions", now)
	}
}

// neighbours returns users and a product for each of them whose stock is at home in the user's partition, whichever number
// of partitions of some the shop has.
func neighbours(t *testing.T, s *shoptest.Shop, n int, numbers ...int) (users, products []int64) {
	t.Helper()
	all, things := s.Users(60*n, 0), make([]int64, 60*n)
	for i := range things {
		things[i] = s.Product(3, 1000)
	}
	var keys []*engine.Keys
	for _, p := range numbers {
		k, err := engine.NewKeys(p)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	near := func(user, product int64) bool {
		for _, k := range keys {
			if k.OfUser(user) != k.Home(product) {
				return false
			}
		}
		return true
	}
	for _, user := range all {
		for _, product := range things {
			if near(user, product) && len(users) < n {
				users, products = append(users, user), append(products, product)
				break
			}
		}
	}
	if len(users) < n {
		t.Fatalf("only %d of %d users have a product near", len(users), n)
	}
	return users, products
}

// season is what happens between two changes of the layout.
func season(t *testing.T, s *shoptest.Shop, name string, users, products []int64, past map[string]engine.Order) deeds {
	t.Helper()
	ctx, all := t.Context(), deeds{}
	do := func(what string, deed func(*engine.Engine) (any, bool, error)) any {
		t.Helper()
		got, replayed, err := deed(s.Engine)
		if err != nil || replayed {
			t.Fatalf("%s: replayed %t, %v", what, replayed, err)
		}
		all[what] = deed
		return got
	}
	for n, user := range users {
		product := products[n]
		key := func(what string) string { return fmt.Sprint(name, " ", what, " ", user) }
		do(key("charge"), func(e *engine.Engine) (any, bool, error) {
			return answer(e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 10_000, Key: key("charge")}))
		})
		do(key("restock"), func(e *engine.Engine) (any, bool, error) {
			return answer(e.Restock(ctx, engine.RestockRequest{ProductID: product, Delta: 5, Key: key("restock")}))
		})
		do(key("cart"), func(e *engine.Engine) (any, bool, error) {
			return answer(e.AddToCart(ctx, engine.CartAddRequest{UserID: user, ProductID: product, Quantity: 1, Key: key("cart")}))
		})
		for _, what := range []string{"kept", "given back later", "given back by an admin later"} {
			past[key(what)] = do(key(what), func(e *engine.Engine) (any, bool, error) {
				return answer(e.Place(ctx, engine.PlaceRequest{UserID: user, Key: key(what), Lines: []engine.Line{line(product, 2)}}))
			}).(engine.Order)
		}
		past[key("paid later")] = do(key("paid later"), func(e *engine.Engine) (any, bool, error) {
			return answer(e.Place(ctx, engine.PlaceRequest{UserID: user, Key: key("paid later"), Later: true, Lines: []engine.Line{line(product, 3)}}))
		}).(engine.Order)
	}
	return all
}

// settle pays and gives back what an earlier season left open.
func settle(t *testing.T, s *shoptest.Shop, name string, users []int64, past map[string]engine.Order) deeds {
	t.Helper()
	all, ctx := deeds{}, t.Context()
	for _, user := range users {
		of := func(what string) engine.Order { return past[fmt.Sprint(name, " ", what, " ", user)] }
		key := func(what string) string { return fmt.Sprint(what, " of ", name, " by ", user) }
		later, back, admin := of("paid later"), of("given back later"), of("given back by an admin later")
		all[key("payment")] = func(e *engine.Engine) (any, bool, error) {
			return answer(e.Pay(ctx, engine.PayRequest{UserID: user, OrderID: later.ID, Key: key("payment")}))
		}
		all[key("refund")] = func(e *engine.Engine) (any, bool, error) {
			return answer(e.Cancel(ctx, engine.CancelRequest{UserID: user, OrderID: back.ID, Key: key("refund")}))
		}
		all[key("refund by an admin")] = func(e *engine.Engine) (any, bool, error) {
			return answer(e.Cancel(ctx, engine.CancelRequest{UserID: user, OrderID: admin.ID, Admin: true, Key: key("refund by an admin")}))
		}
	}
	for what, do := range all {
		if _, replayed, err := do(s.Engine); err != nil || replayed {
			t.Fatalf("%s: replayed %t, %v", what, replayed, err)
		}
	}
	return all
}

// Sales go on in one layout after the other; whatever was done before is there in each, and asked again it is answered as
// before.
func TestLayout_AnotherNumberOfPartitionsAndBack(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 1, Hold: time.Hour})
	users, products := neighbours(t, s, 6, 4, 12, 3)
	numbers := []int{1, 4, 4, 3} // once as before
	if long {
		numbers = []int{1, 4, 12, 12, 3, 1, 12}
	}
	answers, asked, past := map[string]string{}, deeds{}, map[string]engine.Order{}
	remember := func(more deeds) {
		for what, do := range more {
			was, _, err := do(s.Engine)
			if err != nil {
				t.Fatalf("%s again: %v", what, err)
			}
			asked[what], answers[what] = do, fmt.Sprintf("%+v", was)
		}
	}
	for n, partitions := range numbers {
		name := fmt.Sprint("season ", n)
		if n > 0 {
			_, top, err := s.Engine.Top(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			relaid(t, s, partitions)
			if _, again, err := s.Engine.Top(t.Context(), 100); err != nil || fmt.Sprint(again) != fmt.Sprint(top) {
				t.Errorf("in %d partitions the top are %v (%v), they were %v", partitions, again, err, top)
			}
			for what, do := range asked {
				again, replayed, err := do(s.Engine)
				if text := fmt.Sprintf("%+v", again); err != nil || !replayed || text != answers[what] {
					t.Errorf("in %d partitions, %s: %s, replayed %t, %v; it was %s", partitions, what, text, replayed, err, answers[what])
				}
			}
			auditClean(t, s)
			remember(settle(t, s, fmt.Sprint("season ", n-1), users, past))
		}
		remember(season(t, s, name, users, products, past))
		s.Written()
		auditClean(t, s)
		if t.Failed() {
			t.Fatalf("in %d partitions", partitions)
		}
	}
	if layouts := number(t, conn, "SELECT count(*) FROM layouts"); layouts != int64(len(numbers)-1) {
		t.Errorf("%d layouts", layouts)
	}
	wantLedger(t, s, users[0])
	done, err := s.Books.RebuildReports(t.Context(), func(persist.RebuildStage, int64, int64) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range done.Tables {
		if table.Missing+table.Different+table.Surplus > 0 {
			t.Errorf("%s differs from what the journal says: %+v", table.Name, table)
		}
	}
}

// wantLedger makes sure that a user's postings follow each other across layouts.
func wantLedger(t *testing.T, s *shoptest.Shop, user int64) {
	t.Helper()
	postings, _, err := s.Books.Ledger(t.Context(), user, engine.Position{}, 200)
	if err != nil || len(postings) < 20 {
		t.Fatalf("%d postings, %v", len(postings), err)
	}
	for n, p := range postings {
		before := int64(0)
		if n+1 < len(postings) {
			before = postings[n+1].BalanceAfter
		}
		if p.BalanceAfter != before+p.Amount {
			t.Errorf("posting %v leaves %d, behind %d", p.Position, p.BalanceAfter, before)
		}
	}
}

// A process that knows the number from before sells and answers nothing, though a partition of both numbers has the same
// tag in Redis: 0 of 2 and of 4.
func TestLayout_AProcessOfBeforeStaysShut(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Partitions: 2, Hold: time.Hour})
	users, product := s.Users(8, 1000), s.Product(3, 1000)
	s.Written()
	if err := s.EmptyRedis(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := servers(s)
	c.Partitions = 4
	if err := shop.Restore(t.Context(), c, &persist.RestoreProgress{}); err != nil {
		t.Fatal(err)
	}
	wantShut := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, engine.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for until := time.Now().Add(3 * time.Second); time.Now().Before(until); {
		for _, user := range users {
			_, err := s.Engine.Balance(t.Context(), user)
			wantShut("a balance", err)
			_, _, err = s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "late", Lines: []engine.Line{line(product, 1)}})
			wantShut("an order", err)
		}
		_, err := s.Engine.Product(t.Context(), product)
		wantShut("a product", err)
	}
	awaitReason(t, s.Shop, "restart this process: the shop has 4 partition(s) now")
	for p := range 2 {
		if !s.Engine.LeftBehind(p) {
			t.Errorf("its writer would lead partition %d", p)
		}
	}
	before := s.Shop
	s.SetPartitions(4)
	s.Reopen()
	for _, user := range users {
		place(t, s, user, "in time", line(product, 1))
	}
	s.Written()
	auditClean(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := before.Close(ctx); err != nil {
		t.Error(err)
	}
}

// While others sell from another Redis the books keep their layout.
func TestLayout_OthersThatSellAreNotCutOff(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 1})
	user := s.User(100)
	c := servers(s)
	c.Partitions, c.Redis.URL = 2, strings.TrimSuffix(c.Redis.URL, "/0")+"/1"
	err := shop.Restore(t.Context(), c, &persist.RestoreProgress{})
	if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "sell by these books at this moment") {
		t.Errorf("a restore beside a sale: %v", err)
	}
	if n := number(t, conn, "SELECT partitions FROM deployment"); n != 1 {
		t.Errorf("the books have %d partitions", n)
	}
	place(t, s, user, "goes on", line(s.Product(1, 1), 1))
	s.Stop()
	if err := shop.Restore(t.Context(), c, &persist.RestoreProgress{}); err != nil {
		t.Fatal(err)
	}
	// The Redis that was left behind is of no use any more.
	c = servers(s)
	if _, err := shop.Open(t.Context(), c); !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "keep a copy of its data directory") {
		t.Errorf("a Redis with another number opens with %v", err)
	}
}

// Units that are under way when the layout ends have come when the next one begins.
func TestLayout_UnitsUnderWayCome(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 4, NoWriter: true})
	users, product := s.Users(12, 1000), s.Product(1, 100)
	var group sync.WaitGroup
	for _, user := range users {
		group.Go(func() {
			// More than a share has: units leave others, and wait for a writer that is not there.
			_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "more", Lines: []engine.Line{line(product, 40)}})
			if !errors.Is(err, engine.ErrElsewhere) {
				t.Errorf("an order that needs a transfer: %v", err)
			}
		})
	}
	group.Wait()
	s.Stop()
	writeDown(t, s)
	moving := number(t, conn, "SELECT coalesce(sum(units), 0) FROM stock_postings WHERE account = 'transit'")
	if moving == 0 {
		t.Fatal("nothing is under way")
	}
	t.Logf("%d units are under way", moving)
	flush(t, s)
	c := servers(s)
	c.Partitions = 3
	if err := shop.Restore(t.Context(), c, &persist.RestoreProgress{}); err != nil {
		t.Fatal(err)
	}
	c.Hold = time.Hour
	opened, err := shop.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Shop = opened
	if err := s.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p, err := s.Engine.Product(t.Context(), product); err != nil || p.Stock != 100 {
		t.Errorf("the product is %+v, %v", p, err)
	}
	auditClean(t, s)
	if n := trade(t, s, product, users); n != 100 {
		t.Errorf("%d orders for 100 units", n)
	}
	settled(t, s, conn)
	auditClean(t, s)
	rebuild(t, s)
	auditClean(t, s)
}

// writeDown writes what waits in Redis into the books, and does nothing else that a shop does.
func writeDown(t *testing.T, s *shoptest.Shop) {
	t.Helper()
	c := servers(s)
	books, err := persist.Open(t.Context(), c.PostgresURL, 0, c.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	partitions, err := books.Bind(t.Context(), s.Redis, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Redis: s.Redis, Partitions: partitions, OperationTimeout: 5 * time.Second, Log: c.Log})
	if err != nil {
		t.Fatal(err)
	}
	books.Attach(e)
	stream, err := engine.Connect(c.Redis, partitions+1, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() { persist.NewWriter(books, stream).Run(ctx) })
	awaitThat(t, "everything is written", func() bool {
		lag, err := books.Lag(t.Context())
		return err == nil && lag.Events == 0
	})
	stop()
	writer.Wait()
}

// Restores with another number are cut short at random, also while the layout begins; the last one has built everything.
func TestLayout_CutShortAnywhereIsTakenUp(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Partitions: 2, Hold: time.Hour})
	users, products := s.Users(40, 10_000), []int64{s.Product(3, 100_000), s.Product(5, 40), s.Product(7, 100_000)}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	numbers := []int{5, 3}
	if !long {
		numbers = numbers[:1]
	}
	for _, partitions := range numbers {
		stop := busy(t, s.Shop, users, products, uint64(partitions))
		awaitEvents(t, s.Shop, 200)
		stop()
		s.Written()
		flush(t, s)
		for n := 0; ; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			timer := time.AfterFunc(time.Duration(random.Int64N(int64(n+1)*int64(40*time.Millisecond))), cancel)
			c := servers(s)
			if n%2 == 0 { // what was begun is known
				c.Partitions = partitions
			}
			err := shop.Restore(ctx, c, &persist.RestoreProgress{})
			timer.Stop()
			cancel()
			if err == nil && number(t, connect(t, s), "SELECT partitions FROM deployment") == int64(partitions) {
				t.Logf("restored with %d partitions at attempt %d", partitions, n+1)
				break
			}
			if errors.Is(err, persist.ErrRefused) && !strings.Contains(err.Error(), "context canceled") && !strings.Contains(err.Error(), "was filled for") {
				t.Fatalf("attempt %d: %v", n+1, err)
			}
			if err == nil || errors.Is(err, persist.ErrRefused) { // one without the number came before the layout
				flush(t, s)
			}
		}
		s.SetPartitions(partitions)
		s.Reopen()
		auditClean(t, s)
	}
}

func TestLayout_WhatIsNotMeantIsRefused(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 1})
	s.User(100)
	s.Product(1, 10)
	s.Written()
	c := servers(s)
	c.Partitions = 3
	refused := func(what, want string, err error) {
		t.Helper()
		if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a Redis that is full", "keep a copy of its data directory", shop.Restore(t.Context(), c, &persist.RestoreProgress{}))
	flush(t, s)
	exec(t, conn, "INSERT INTO quarantine (partition, epoch, seq, reason) VALUES (0, 1, 1, 'a test')")
	refused("events in quarantine", "rebuild-reports", shop.Restore(t.Context(), c, &persist.RestoreProgress{}))
	if n := number(t, conn, "SELECT partitions FROM deployment"); n != 1 {
		t.Errorf("the books have %d partitions", n)
	}
	exec(t, conn, "DELETE FROM quarantine")
	exec(t, conn, "UPDATE products SET in_redis = false, initial_stock = initial_stock + 1")
	refused("half a product", "was created in some partitions only", shop.Restore(t.Context(), c, &persist.RestoreProgress{}))
	exec(t, conn, "UPDATE products SET initial_stock = initial_stock - 1")
	if err := shop.Restore(t.Context(), c, &persist.RestoreProgress{}); err != nil {
		t.Fatal(err)
	}
	c.Partitions = 1
	_, err := shop.Open(t.Context(), c)
	refused("the number from before", "have 3 partitions, not 1", err)
	s.SetPartitions(3)
	s.Reopen()
	auditClean(t, s)
	// A partition without an event of its own has something to lose.
	if n := number(t, conn, "SELECT events FROM checkpoints WHERE partition = 2"); n != 0 {
		t.Fatalf("%d events", n)
	}
	if err := s.Redis.Del(t.Context(), s.Engine.Keys().Meta(2)).Err(); err != nil {
		t.Fatal(err)
	}
	awaitReason(t, s.Shop, "run `stampede restore`")
}

// What an audit must see of layouts, in books that went through two changes.
func TestAudit_OfLayouts(t *testing.T) {
	s, conn := start(t, shop.Config{Partitions: 1, Hold: time.Hour})
	users, products := neighbours(t, s, 3, 4)
	past := map[string]engine.Order{}
	season(t, s, "first", users, products, past)
	relaid(t, s, 4)
	settle(t, s, "first", users, past)
	season(t, s, "second", users, products, past)
	s.Written()
	keys := s.Engine.Keys()
	home, user, product := keys.Home(products[0]), users[0], products[0]
	first := number(t, conn, "SELECT max(epoch) FROM layouts")
	putBack := keepAside(t, conn)
	in := fmt.Sprintf("epoch > %d AND product_id = %d", first, product)
	postings := func(what, set string) tampering {
		change := fmt.Sprintf("UPDATE stock_ledger SET %s WHERE partition = %d AND %s", set, home, in)
		return tampering{what, inPostgres(change, putBack("stock_ledger", in)), fmt.Sprintf("product_id=%d", product)}
	}
	sold := fmt.Sprintf("partition = %d AND product_id = %d", home, product)
	tamper(t, s, conn, []tampering{
		postings("a share that begins with more", "stock_after = stock_after + 7"),
		postings("a share that moved", "partition = 9"),
		{"hours that lack what was given back", inPostgres("DELETE FROM sales_hours WHERE "+sold, putBack("sales_hours", sold)), "sales_hours hour="},
		{
			"an epoch that is missing before a layout", inPostgres("DELETE FROM epochs WHERE partition = 0 AND epoch = 1",
				putBack("epochs", "partition = 0 AND epoch = 1")), "epochs partition=0",
		},
		{
			"a layout whose epoch is still open", inPostgres(fmt.Sprintf("UPDATE epochs SET last_seq = NULL WHERE partition = 1 AND epoch = %d", first),
				putBack("epochs", fmt.Sprintf("partition = 1 AND epoch = %d", first))), fmt.Sprintf("epochs partition=1 epoch=%d", first),
		},
		{"an answer of before, dropped", inRedis(keys.Idempotency(keys.OfUser(user), user, fmt.Sprint("first charge ", user)), func(p redis.Pipeliner) {
			p.Del(t.Context(), keys.Idempotency(keys.OfUser(user), user, fmt.Sprint("first charge ", user)))
		}), keys.Idempotency(keys.OfUser(user), user, fmt.Sprint("first charge ", user))},
	}, "postings follow each other", "epochs", "sales by hour = orders", "answers under keys")
}

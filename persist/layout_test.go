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
	s, conn := start(t, shop.Config{Hold: time.Hour})
	users, products := neighbours(t, s, 6, 4, 12, 3)
	numbers := []int{1, 4, 12, 3, 1, 12}
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
	if layouts := number(t, conn, "SELECT count(*) FROM layouts"); layouts != int64(len(numbers)) {
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

func TestLayout_WhatIsNotMeantIsRefused(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	s.User(100)
	s.Written()
	c := servers(s)
	c.Partitions = 3
	refused := func(what, want string, err error) {
		t.Helper()
		if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused("a Redis that is full", "empty it", shop.Restore(t.Context(), c, &persist.RestoreProgress{}))
	flush(t, s)
	exec(t, conn, "INSERT INTO quarantine (partition, epoch, seq, reason) VALUES (0, 1, 1, 'a test')")
	refused("events in quarantine", "rebuild-reports", shop.Restore(t.Context(), c, &persist.RestoreProgress{}))
	if n := number(t, conn, "SELECT partitions FROM deployment"); n != 1 {
		t.Errorf("the books have %d partitions", n)
	}
	exec(t, conn, "DELETE FROM quarantine")
	if err := shop.Restore(t.Context(), c, &persist.RestoreProgress{}); err != nil {
		t.Fatal(err)
	}
	c.Partitions = 1
	_, err := shop.Open(t.Context(), c)
	refused("the number from before", "have 3 partitions, not 1", err)
	s.Reopen()
	auditClean(t, s)
}

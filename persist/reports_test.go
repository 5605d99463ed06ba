package persist_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// books are what reports should show: a model of the shop, from its answers alone.
type books struct {
	*shoptest.Shop
	t        *testing.T
	random   *rand.Rand
	users    []int64
	products []int64
	near     [][]int64 // products by the partition whose users can buy them
	orders   map[int64]engine.Order
	open     []int64 // orders that may take another step
	ledgers  map[int64][]engine.Posting
	keys     int
}

func (m *books) key() string { m.keys++; return fmt.Sprint("key ", m.keys) }

// post notes a change of a balance.
func (m *books) post(user int64, p engine.Posting) {
	all := m.ledgers[user]
	p.BalanceAfter = p.Amount
	if len(all) > 0 {
		p.BalanceAfter += all[len(all)-1].BalanceAfter
	}
	m.ledgers[user] = append(all, p)
}

func (m *books) charge(user, amount int64) {
	m.t.Helper()
	done, _, err := m.Engine.Charge(m.t.Context(), engine.ChargeRequest{UserID: user, Amount: amount, Key: m.key()})
	if err != nil {
		m.t.Fatal(err)
	}
	m.post(user, engine.Posting{Kind: "charge", Amount: amount, RefID: done.ChargeID})
}

// note takes an order as it was answered.
func (m *books) note(o engine.Order, err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
	was := m.orders[o.ID]
	m.orders[o.ID] = o
	if was.ID == 0 {
		m.open = append(m.open, o.ID)
	}
	if o.Status == was.Status {
		return
	}
	switch o.Status {
	case engine.Success:
		m.post(o.UserID, engine.Posting{Kind: "order", Amount: -o.Total, RefID: o.ID, At: o.UpdatedAt()})
	case engine.Refunded:
		m.post(o.UserID, engine.Posting{Kind: "refund", Amount: o.Total, RefID: o.ID, At: o.UpdatedAt()})
	}
}

// step does one thing.
func (m *books) step() {
	m.t.Helper()
	user := m.users[m.random.IntN(len(m.users))]
	var some engine.Order
	if len(m.open) > 0 {
		some = m.orders[m.open[m.random.IntN(len(m.open))]]
	}
	switch n := m.random.IntN(10); {
	case n == 0:
		m.charge(user, m.random.Int64N(1000)+1)
	case n < 3 && some.Status == engine.Pending:
		paid, _, err := m.Engine.Pay(m.t.Context(), engine.PayRequest{UserID: some.UserID, OrderID: some.ID, Key: m.key()})
		m.note(paid, err)
	case n < 5 && (some.Status == engine.Pending && some.ID > 0 || some.Status == engine.Success):
		ended, _, err := m.Engine.Cancel(m.t.Context(), engine.CancelRequest{Admin: true, UserID: some.UserID, OrderID: some.ID, Key: m.key()})
		m.note(ended, err)
	default:
		near := m.near[m.Engine.Keys().OfUser(user)]
		lines := []engine.Line{line(near[m.random.IntN(len(near))], m.random.Int64N(3)+1), line(near[0], 1)} // perhaps of one product
		order, _, err := m.Engine.Place(m.t.Context(), engine.PlaceRequest{UserID: user, Later: m.random.IntN(2) == 0, Lines: lines, Key: m.key()})
		m.note(order, err)
	}
	m.open = slices.DeleteFunc(m.open, func(id int64) bool {
		status := m.orders[id].Status
		return status != engine.Pending && status != engine.Success
	})
}

// sales are the rows of a report, by the model.
func (m *books) sales(q engine.SalesQuery) (rows []engine.Sale) {
	sums := map[engine.SaleKey][3]int64{}
	for _, o := range m.orders {
		if o.Status != engine.Success {
			continue
		}
		for _, i := range o.Items {
			at := engine.SaleKey{Bucket: o.PaidAt().UTC().Truncate(time.Duration(q.Bucket)), ProductID: i.ProductID}
			if (q.From != nil && at.Bucket.Before(*q.From)) || (q.To != nil && !at.Bucket.Before(*q.To)) || (q.ProductID != 0 && q.ProductID != i.ProductID) {
				continue
			}
			sum := sums[at]
			sums[at] = [3]int64{sum[0] + i.Quantity, sum[1] + i.Quantity*i.Price, sum[2] + 1}
		}
	}
	for at, sum := range sums {
		rows = append(rows, engine.Sale{SaleKey: at, Units: sum[0], Revenue: fmt.Sprint(sum[1]), Orders: sum[2]})
	}
	slices.SortFunc(rows, func(a, b engine.Sale) int {
		return cmp.Or(a.Bucket.Compare(b.Bucket), cmp.Compare(a.ProductID, b.ProductID))
	})
	return rows
}

// query is a random one, also with bounds that are those of buckets, and with such that no bucket starts between.
func (m *books) query() engine.SalesQuery {
	q := engine.SalesQuery{Bucket: []engine.Bucket{engine.Hour, engine.Day}[m.random.IntN(2)], Limit: []int{1, 2, 7, 200}[m.random.IntN(4)]}
	bound := func() *time.Time {
		at := time.Now().UTC().Add(time.Duration(m.random.Int64N(int64(6*24*time.Hour))) - 24*time.Hour)
		switch m.random.IntN(4) {
		case 0:
			return nil
		case 1:
			at = at.Truncate(time.Hour)
		case 2:
			at = at.Truncate(24 * time.Hour).In(time.FixedZone("", 7*3600+1800))
		}
		return &at
	}
	q.From, q.To = bound(), bound()
	if m.random.IntN(3) == 0 {
		q.ProductID = append(m.products, 99_999)[m.random.IntN(len(m.products)+1)]
	}
	return q
}

// report reads all pages.
func (m *books) report(q engine.SalesQuery) (rows []engine.Sale) {
	m.t.Helper()
	for more := true; more; {
		var page []engine.Sale
		var err error
		more, err = m.Books.SalesReport(m.t.Context(), q, func(s engine.Sale) error { page = append(page, s); return nil })
		if err != nil || len(page) > q.Limit || (more && len(page) < q.Limit) {
			m.t.Fatalf("%+v: a page of %d rows, more %v, %v", q, len(page), more, err)
		}
		if rows = append(rows, page...); more {
			q.After = page[len(page)-1].SaleKey
		}
	}
	return rows
}

func (m *books) ledger(user int64, limit int) (all []engine.Posting) {
	m.t.Helper()
	var before engine.Position
	for more := true; more; {
		var page []engine.Posting
		var err error
		page, more, err = m.Books.Ledger(m.t.Context(), user, before, limit)
		if err != nil || len(page) == 0 || len(page) > limit {
			m.t.Fatalf("a page of %d postings of %d, %v", len(page), limit, err)
		}
		all, before = append(all, page...), page[len(page)-1].Position
	}
	slices.Reverse(all)
	return all
}

func (m *books) compare() {
	m.t.Helper()
	for range 6 {
		q := m.query()
		if got, want := m.report(q), m.sales(q); !slices.Equal(got, want) {
			m.t.Fatalf("%+v from %v to %v shows\n%v, want\n%v", q, q.From, q.To, got, want)
		}
	}
	user := m.users[m.random.IntN(len(m.users))]
	got, want := m.ledger(user, []int{1, 3, 200}[m.random.IntN(3)]), m.ledgers[user]
	for i := range want {
		if i < len(got) && want[i].At.IsZero() {
			want[i].At = got[i].At // charges are answered without their time
		}
		want[i].Position = engine.Position{}
		if i < len(got) {
			got[i].Position = engine.Position{}
		}
	}
	if !slices.Equal(got, want) {
		m.t.Fatalf("the ledger of user %d is\n%+v, want\n%+v", user, got, want)
	}
	if balance, err := m.Engine.Balance(m.t.Context(), user); err != nil || balance != want[len(want)-1].BalanceAfter {
		m.t.Fatalf("the balance of user %d is %d (%v), the ledger ends at %d", user, balance, err, want[len(want)-1].BalanceAfter)
	}
}

// Days of orders, payments hours later and refunds days later, in several partitions: reports show at any moment what
// follows from the answers.
func TestReports_EqualAModelOverDays(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Partitions: 3, Hold: 30 * 24 * time.Hour})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := &books{
		Shop: s, t: t, random: rand.New(rand.NewPCG(seed, 0)), near: make([][]int64, 3),
		orders: map[int64]engine.Order{}, ledgers: map[int64][]engine.Posting{},
	}
	for i := 0; slices.ContainsFunc(m.near, func(near []int64) bool { return len(near) < 3 }); i++ {
		product := s.Product([]int64{0, 1, 7, 100, 999, 12_345}[i%6], 1_000_000)
		home := s.Engine.Keys().Home(product)
		m.products, m.near[home] = append(m.products, product), append(m.near[home], product)
	}
	for i := range 6 {
		m.users = append(m.users, s.User(0))
		m.charge(m.users[i], 10_000_000)
	}
	for hours := range 5 * 24 / 4 {
		s.Engine.SetClockOffset(time.Duration(hours) * 4 * time.Hour)
		for range 4 + m.random.IntN(8) {
			m.step()
		}
		m.compare()
	}
	late := 0
	for _, o := range m.orders {
		if o.Status == engine.Refunded && o.UpdatedAt().Sub(o.PaidAt()) > 24*time.Hour {
			late++
		}
	}
	if late == 0 || len(m.orders) < 50 {
		t.Errorf("%d orders, %d of them refunded days later", len(m.orders), late)
	}
	auditClean(t, s)
}

// However many ask while the shop sells, each sees what was answered before.
func TestReports_ShowWhatWasAnsweredBefore(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Partitions: 2})
	keys := s.Engine.Keys()
	near := map[int]int64{} // a product that the users of a partition can buy
	for len(near) < keys.Partitions() {
		product := s.Product(3, 1_000_000)
		near[keys.Home(product)] = product
	}
	var all sync.WaitGroup
	for range 16 {
		user := s.User(1000)
		product := near[keys.OfUser(user)]
		all.Go(func() {
			for i := range 15 {
				order, _, err := s.Engine.Place(context.Background(), engine.PlaceRequest{UserID: user, Key: fmt.Sprint(i), Lines: []engine.Line{line(product, 1)}})
				if err != nil {
					t.Error(err)
					return
				}
				postings, _, err := s.Books.Ledger(context.Background(), user, engine.Position{}, 1)
				if err != nil || len(postings) != 1 || postings[0].RefID != order.ID || postings[0].BalanceAfter != 1000-3*int64(i+1) {
					t.Errorf("after order %d the ledger begins with %+v, %v", order.ID, postings, err)
				}
				units := int64(0)
				_, err = s.Books.SalesReport(context.Background(), engine.SalesQuery{Bucket: engine.Hour, Limit: 50}, func(s engine.Sale) error { units += s.Units; return nil })
				if err != nil || units <= int64(i) {
					t.Errorf("after %d orders of one of many, %d units are sold, %v", i+1, units, err)
				}
			}
		})
	}
	all.Wait()
}

// A writer that is behind, or a Redis that is gone, does not take the reports away.
func TestReports_AnswerFromTheBooksAsTheyStand(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(10, 100)
	order := place(t, s, user, "k", line(product, 2))
	s.Written()
	want := func(s *shop.Shop, rows, postings int) {
		t.Helper()
		var both sync.WaitGroup
		begun := time.Now()
		both.Go(func() {
			got := 0
			_, err := s.Books.SalesReport(t.Context(), engine.SalesQuery{Bucket: engine.Day, Limit: 50}, func(engine.Sale) error { got++; return nil })
			if err != nil || got != rows {
				t.Errorf("%d rows of sales, %v, want %d", got, err, rows)
			}
		})
		both.Go(func() {
			ledger, _, err := s.Books.Ledger(t.Context(), user, engine.Position{}, 50)
			if err != nil || len(ledger) != postings {
				t.Errorf("the ledger %+v, %v, want %d postings", ledger, err, postings)
			}
		})
		both.Wait()
		if took := time.Since(begun); took > 8*time.Second {
			t.Errorf("it took %v", took)
		}
	}
	want(s.Shop, 1, 2)
	s.Stop()
	c := shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), NoWriter: true}
	silent, err := shop.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	s.Shop = silent
	if err := s.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Engine.Cancel(t.Context(), engine.CancelRequest{UserID: user, OrderID: order.ID, Key: "back"}); err != nil {
		t.Fatal(err)
	}
	want(s.Shop, 1, 2)
	if err := s.Servers().HaltNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(s.Shop, 1, 2)
	if err := s.Servers().Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Engine.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Reopen()
	s.Written()
	want(s.Shop, 0, 3)
	auditClean(t, s)
}

func TestReports_OfNothingAndOfMuch(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	show := func(q engine.SalesQuery) (rows []engine.Sale, more bool, err error) {
		more, err = s.Books.SalesReport(t.Context(), q, func(s engine.Sale) error { rows = append(rows, s); return nil })
		return rows, more, err
	}
	early, late := time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
	all := engine.SalesQuery{From: &early, To: &late, Bucket: engine.Day, Limit: 100_000}
	for _, bucket := range []engine.Bucket{engine.Hour, engine.Day} {
		for _, product := range []int64{0, 7} {
			q := all
			q.Bucket, q.ProductID = bucket, product
			if rows, more, err := show(q); len(rows) != 0 || more || err != nil {
				t.Errorf("a shop that sold nothing: %v, more %v, %v", rows, more, err)
			}
		}
	}
	exec(t, conn, `INSERT INTO sales_hours VALUES (0, '2026-01-01 22:00Z', 7, 5, 90000000000000000000000000000000000001, 3),
		(1, '2026-01-01 23:00Z', 7, 4, 9, 2), (0, '2026-01-02 00:00Z', 7, 0, 0, 0), (0, '2026-01-02 00:00Z', 8, -1, -10, -1), (1, '2026-01-02 00:00Z', 8, 1, 10, 1)`)
	want := engine.Sale{
		SaleKey: engine.SaleKey{Bucket: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), ProductID: 7},
		Units:   9, Revenue: "90000000000000000000000000000000000010", Orders: 5,
	}
	if rows, more, err := show(all); !slices.Equal(rows, []engine.Sale{want}) || more || err != nil {
		t.Errorf("shown are %v, more %v, %v, want %v", rows, more, err, want)
	}
	stop := errors.New("enough")
	if _, err := s.Books.SalesReport(t.Context(), all, func(engine.Sale) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("a visitor who has enough: %v", err)
	}
	for _, limit := range []int{0, -1, 100_001} {
		q := all
		q.Limit = limit
		if _, _, err := show(q); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	if _, _, err := show(engine.SalesQuery{Limit: 1}); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("no bucket: %v", err)
	}
}

func TestLedger_OfNobodyAndOfNothing(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	if postings, more, err := s.Books.Ledger(t.Context(), s.User(0), engine.Position{}, 50); len(postings) != 0 || more || err != nil {
		t.Errorf("of a user who did nothing: %v, more %v, %v", postings, more, err)
	}
	for _, unknown := range []int64{0, -1, 99_999, engine.IDMax + 1} {
		if _, _, err := s.Books.Ledger(t.Context(), unknown, engine.Position{}, 50); !errors.Is(err, engine.ErrUserNotFound) {
			t.Errorf("of user %d: %v", unknown, err)
		}
	}
	for _, limit := range []int{0, 201} {
		if _, _, err := s.Books.Ledger(t.Context(), 1, engine.Position{}, limit); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

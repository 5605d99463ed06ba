package persist_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
)

func TestOrders_NewestFirstPageByPage(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Hold: shortHold})
	other, product := s.User(1000), s.Product(1, 1000)
	all := kinds(t, s, func() {})
	place(t, s, other, "k", line(product, 1))
	user := all["at once"].UserID
	var want []engine.Order
	for _, o := range all {
		if o.UserID == user {
			want = append(want, o)
		}
	}
	slices.SortFunc(want, func(a, b engine.Order) int { return int(b.ID - a.ID) })
	for _, limit := range []int{1, 2, len(want), 200} {
		var got []engine.Order
		for before, more := int64(0), true; more; before = got[len(got)-1].ID {
			var page []engine.Order
			var err error
			if page, more, err = s.Books.Orders(t.Context(), user, before, limit); err != nil || len(page) == 0 || len(page) > limit {
				t.Fatalf("pages of %d: %d orders, %v", limit, len(page), err)
			}
			got = append(got, page...)
		}
		if !slices.EqualFunc(got, want, func(a, b engine.Order) bool { return a.Equal(&b) }) {
			t.Errorf("pages of %d: %+v, want %+v", limit, got, want)
		}
	}
	if orders, more, err := s.Books.Orders(t.Context(), s.User(0), 0, 50); len(orders) != 0 || more || err != nil {
		t.Errorf("a user without orders has %v, more %v, %v", orders, more, err)
	}
	for _, unknown := range []int64{0, -1, 99_999, engine.IDMax + 1} {
		if _, _, err := s.Books.Orders(t.Context(), unknown, 0, 50); !errors.Is(err, engine.ErrUserNotFound) {
			t.Errorf("orders of user %d: %v", unknown, err)
		}
	}
	for _, limit := range []int{0, 201} {
		if _, _, err := s.Books.Orders(t.Context(), user, 0, limit); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
}

// However many ask while the shop sells, each sees what was answered before.
func TestOrders_ShowWhatWasAnsweredBefore(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	product := s.Product(1, 1_000_000)
	var all sync.WaitGroup
	for n := range 48 {
		user := s.User(1_000_000)
		all.Go(func() {
			for i := range 25 {
				order, _, err := s.Engine.Place(context.Background(), engine.PlaceRequest{
					UserID: user, Key: fmt.Sprint(i), Later: i%2 == 0, Lines: []engine.Line{line(product, 1)},
				})
				if err == nil && n%2 == 0 && order.Status == engine.Pending {
					order, _, err = s.Engine.Pay(context.Background(), engine.PayRequest{UserID: user, OrderID: order.ID, Key: fmt.Sprint("pay", i)})
				}
				if err != nil {
					t.Error(err)
					return
				}
				got, more, err := s.Books.Orders(context.Background(), user, 0, 1)
				if err != nil || more != (i > 0) || len(got) != 1 || !got[0].Equal(&order) {
					t.Errorf("after order %+v the list begins with %+v, more %v, %v", order, got, more, err)
				}
			}
		})
	}
	all.Wait()
}

func TestOrders_WriterThatIsBehindIsSaidInTime(t *testing.T) {
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1000), s.Product(1, 100)
	place(t, s, user, "k", line(product, 1))
	begin := time.Now()
	var all sync.WaitGroup
	for range 100 { // more than there are connections
		all.Go(func() {
			if _, _, err := s.Books.Orders(context.Background(), user, 0, 50); !errors.Is(err, engine.ErrOverloaded) {
				t.Errorf("without a writer: %v", err)
			}
		})
	}
	all.Wait()
	if took := time.Since(begin); took < 1900*time.Millisecond || took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
}

// After a repair the epoch has no event yet: nothing is missing in the books all the same.
func TestOrders_InAnEpochWithoutEvents(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(1, 100)
	order := place(t, s, user, "k", line(product, 1))
	s.Written()
	restart(t, s, func() {})
	got, _, err := s.Books.Orders(t.Context(), user, 0, 50)
	if err != nil || len(got) != 1 || !got[0].Equal(&order) {
		t.Errorf("orders %+v, %v", got, err)
	}
}

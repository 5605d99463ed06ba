package rest_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"stampede/cmd/shop"
)

// wish is an order of one product.
type wish struct {
	key                     string
	user, product, quantity int64
}

// alone is the wish as its buyer sends it.
func (w wish) alone() request {
	return request{"POST", "/order", line(w.user, w.product, int(w.quantity), "now"), nil}
}

func batchOf(wishes ...wish) request {
	orders := make([]string, len(wishes))
	for i, w := range wishes {
		orders[i] = fmt.Sprintf(`{"idempotency_key":%q,"user_id":"%d","items":[{"product_id":%d,"quantity":%d}]}`, w.key, w.user, w.product, w.quantity)
	}
	return request{"POST", "/orders/batch", `{"orders":[` + strings.Join(orders, ",") + `]}`, asAdmin}
}

// batchResult is what became of an order of a batch.
type batchResult struct {
	Status         int
	Order, Problem json.RawMessage
	Replayed       bool
}

func (s *server) resultsOf(body string) []batchResult {
	s.t.Helper()
	var answer struct{ Results []batchResult }
	s.decodeInto([]byte(body), &answer)
	return answer.Results
}

// batch sends wishes together, and wants a result for each.
func (s *server) batch(wishes ...wish) []batchResult {
	s.t.Helper()
	r := batchOf(wishes...)
	results := s.resultsOf(string(s.want(200, nil, r.method, r.path, r.body, r.headers...).body))
	if len(results) != len(wishes) {
		s.t.Fatalf("%d results of %d orders", len(results), len(wishes))
	}
	return results
}

// An order of a batch ends as its buyer's would: one that is refused is no matter to its neighbours, and a key means the
// same on both routes, byte for byte, whatever came after.
func TestBatch_OrdersAreThoseOfTheirBuyers(t *testing.T) {
	s := start(t, shop.Config{})
	u, poor, p, scarce := s.User(1000), s.User(5), s.Product(10, 100), s.Product(1, 2)
	before, held := wish{freshKey(), u, p, 3}, wish{freshKey(), u, p, 1}
	paid := s.sendUnder(before.key, before.alone())
	s.sendUnder(held.key, request{"POST", "/order", line(u, p, 1, "later"), nil})
	cases := []struct {
		wish
		status   int
		code     string // of the problem
		replayed bool   // the first time
	}{
		{wish{"a", u, p, 2}, 201, "", false},
		{wish{"b", u, scarce, 3}, 409, "out_of_stock", false},
		{before, 201, "", true},
		{wish{before.key, u, p, 4}, 422, "idempotency_key_reused", false},
		{held, 422, "idempotency_key_reused", false}, // it was not to be paid at once
		{wish{"a", poor, p, 1}, 402, "insufficient_balance", false},
		{wish{"a", u, p, 2}, 201, "", true},
		{wish{"a", u, p, 1}, 422, "idempotency_key_reused", false},
		{wish{"b", u, p, 1}, 201, "", false}, // a refusal uses no key
		{wish{"c", 99_999, p, 1}, 404, "user_not_found", false},
		{wish{"d", u, 99_999, 1}, 404, "product_not_found", false},
		{wish{"c", u, p, 0}, 400, "validation_failed", false},
		{wish{"c", u, scarce, 2}, 201, "", false},
	}
	wishes := make([]wish, len(cases))
	for i, c := range cases {
		wishes[i] = c.wish
	}
	first := s.batch(wishes...)
	s.want(200, nil, "PATCH", fmt.Sprintf("/products/%d", p), `{"price":11}`, asAdmin...)
	again := s.batch(wishes...)
	s.Written() // what has ended leaves Redis
	late := s.batch(wishes...)
	if string(first[2].Order) != string(paid.body) {
		t.Errorf("the replay of %s is %s", paid.body, first[2].Order)
	}
	for i, c := range cases {
		r := first[i]
		if r.Status != c.status || r.Replayed != c.replayed || (c.code == "") != (r.Problem == nil) || !strings.Contains(string(r.Problem), c.code) {
			t.Errorf("%+v: %d %t %s%s", c, r.Status, r.Replayed, r.Order, r.Problem)
		}
		if c.key == "b" {
			continue // the refused one is now under the key of the other
		}
		for _, then := range []batchResult{again[i], late[i]} {
			if then.Status != r.Status || then.Replayed != (r.Status == 201) || string(then.Order) != string(r.Order) || string(then.Problem) != string(r.Problem) {
				t.Errorf("%+v: at first %s%s, later %d %t %s%s", c, r.Order, r.Problem, then.Status, then.Replayed, then.Order, then.Problem)
			}
		}
		a := s.sendUnder(c.key, c.alone())
		if a.StatusCode != r.Status || string(a.body) != string(r.Order)+string(r.Problem) || (a.Header.Get("Idempotent-Replayed") != "") != (r.Status == 201) {
			t.Errorf("%+v: %s%s in a batch, alone %d %v %s", c, r.Order, r.Problem, a.StatusCode, a.Header, a.body)
		}
	}
	s.wantLeft(u, 1000-30-20-10-2, p, 100-3-1-2-1)
	s.auditClean()
}

// A hundred equal batches at once are carried out once, and all have the same orders.
func TestBatch_AHundredTimesAtOnceIsOneEffect(t *testing.T) {
	const batches, buyers, stock = 100, 20, 15
	s := start(t, shop.Config{})
	p := s.Product(10, stock)
	var wishes []wish
	for i := range int64(buyers) {
		u := s.User(1000)
		wishes = append(wishes, wish{"key", u, p, 1}, wish{"key", u, p, 1}, wish{fmt.Sprint("other ", i), u, p, 1000})
	}
	all := make([][]batchResult, batches)
	unknown := atomic.Int64{} // at first
	r := batchOf(wishes...)
	if got := s.atOnce(batches, func(i int) answer {
		a := s.send(r.method, r.path, r.body, r.headers...)
		all[i] = s.resultsOf(string(a.body))
		late := func(r batchResult) bool { return r.Status == 503 || r.Status == 504 } // as in a crowd units of other partitions may be
		for slices.ContainsFunc(all[i], late) {
			a = s.send(r.method, r.path, r.body, r.headers...)
			for n, again := range s.resultsOf(string(a.body)) {
				if all[i][n].Status == 504 {
					unknown.Add(1)
				}
				if late(all[i][n]) {
					all[i][n] = again
				}
			}
		}
		return a
	}); got[200] != batches {
		t.Fatalf("%v", got)
	}
	orders, sold := map[int64]string{}, 0
	for _, results := range all {
		for i, w := range wishes {
			switch r := results[i]; {
			case r.Status == 409 && strings.Contains(string(r.Problem), "out_of_stock"):
			case r.Status != 201 || w.quantity > 1 || (orders[w.user] != "" && orders[w.user] != string(r.Order)):
				t.Fatalf("%+v: %d %s%s, another was %s", w, r.Status, r.Order, r.Problem, orders[w.user])
			default:
				orders[w.user] = string(r.Order)
				if !r.Replayed {
					sold++
				}
			}
		}
	}
	if sold > stock || sold+int(unknown.Load()) < stock || len(orders) != stock {
		t.Errorf("%d orders of %d buyers, there was stock for %d", sold, len(orders), stock)
	}
	s.want(200, with("stock", "0"), "GET", fmt.Sprintf("/products/%d", p), "")
	s.auditClean()
}

// The most that a batch holds is taken, also where every order is one of many lines.
func TestBatch_AsLargeAsMayBe(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1_000_000), s.Product(1, 1_000_000)
	wishes := make([]wish, 1000)
	for i := range wishes {
		wishes[i] = wish{freshKey(), u, p, 2}
	}
	for i, r := range s.batch(wishes...) {
		if r.Status != 201 || r.Replayed {
			t.Fatalf("order %d: %d %s", i, r.Status, r.Problem)
		}
	}
	item := fmt.Sprintf(`{"product_id":%d,"quantity":1},`, p)
	items := strings.TrimSuffix(strings.Repeat(item, 32), ",")
	orders := make([]string, 1000)
	for i := range orders {
		orders[i] = fmt.Sprintf(`{"idempotency_key":%q,"user_id":%d,"items":[%s]}`, freshKey(), u, items)
	}
	body := `{"orders":[` + strings.Join(orders, ",") + `]}`
	body += strings.Repeat(" ", 1<<20-len(body)) // a negative count would panic
	for i, r := range s.resultsOf(string(s.want(200, nil, "POST", "/orders/batch", body, asAdmin...).body)) {
		if r.Status != 201 {
			t.Fatalf("order %d: %d %s", i, r.Status, r.Problem)
		}
	}
	s.wantLeft(u, 1_000_000-34_000, p, 1_000_000-34_000)
	s.auditClean()
}

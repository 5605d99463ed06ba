package rest_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"stampede/cmd/shop"
)

// within is the context of one step of a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// Without Postgres what Redis decides goes on; what stands in the books only is refused, soon.
func TestAPI_WithoutPostgresSalesGoOn(t *testing.T) {
	s := start(t, shop.Config{})
	stock := s.inEach(9) // without Postgres none is lent
	u, p := s.User(1000), s.Product(100, stock)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	s.Written()
	if err := s.Stack.Postgres().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	placed := s.keep(201, request{"POST", "/order", line(u, p, 1, "later"), nil})
	paid := s.keep(200, request{"POST", "/order/" + placed.id() + "/payment", "", me})
	refunded := s.keep(200, request{"POST", "/order/" + placed.id() + "/cancel", "", me})
	s.wantCart(fmt.Sprintf("%d×1 ", p), "POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p), me...)
	bought := s.keep(201, request{"POST", "/cart/order", "", me})
	s.wantReplayed(placed, paid, refunded, bought)
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "GET", "/order/"+placed.id(), "", me...)
	s.want(200, nil, "GET", "/products/top", "")

	for _, r := range []request{
		{"GET", "/orders", "", me},
		{"PATCH", fmt.Sprintf("/products/%d", p), `{"price":1}`, asAdmin},
		{"GET", "/order/12345", "", me}, // it might stand in the books
		{"POST", "/order/12345/payment", "", me},
		{"POST", "/order/12345/cancel", "", me},
		{"POST", "/order/12345/cancel", "", asAdmin},
	} {
		begun := time.Now()
		a := s.send(r.method, r.path, r.body, r.headers...)
		// A pooled connection that died under the request leaves its outcome open; without such a one it is not done.
		for n := 0; a.StatusCode == 504 && n < 100; n++ {
			begun = time.Now()
			a = s.send(r.method, r.path, r.body, r.headers...)
		}
		if took := time.Since(begun); a.StatusCode != 503 || a.field("code") != "overloaded" || a.Header.Get("Retry-After") == "" || took > 12*time.Second {
			t.Errorf("%s %s: after %s %d %s", r.method, r.path, took, a.StatusCode, a.body)
		}
	}
	if err := s.Stack.Postgres().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	s.Written()
	s.wantReplayed(placed, paid, refunded, bought)
	s.wantLeft(u, 900, p, stock-1)
	s.want(200, with("price", "100"), "GET", fmt.Sprintf("/products/%d", p), "")
	s.auditClean()
}

// Without Redis every route answers in time, and says whether it was done. With the same key the outcome is learnt.
func TestAPI_WithoutRedisNothingHangs(t *testing.T) {
	s := start(t, shop.Config{OperationTimeout: 500 * time.Millisecond})
	u, p := s.User(1000), s.Product(100, 9)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	put := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p)
	s.want(200, nil, "POST", "/cart/add", put, me...)
	held := s.keep(201, request{"POST", "/order", line(u, p, 1, "later"), nil})
	paid := s.keep(201, request{"POST", "/order", line(u, p, 1, "now"), nil})
	if err := s.Servers().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	retry := map[string]request{ // by key
		freshKey(): {"POST", "/order/" + held.id() + "/payment", "", me},
		freshKey(): {"POST", "/order/" + paid.id() + "/cancel", "", me},
		freshKey(): {"POST", "/cart/order", "", me},
		freshKey(): {"POST", "/cart/add", put, me},
	}
	ask := func(key string, r request) {
		t.Helper()
		begun := time.Now()
		a := s.sendUnder(key, r)
		if took := time.Since(begun); (a.StatusCode != 503 && a.StatusCode != 504) || took > 12*time.Second {
			t.Errorf("%s %s: after %s %d %s", r.method, r.path, took, a.StatusCode, a.body)
		}
	}
	for key, r := range retry {
		ask(key, r)
	}
	for _, r := range []request{
		{"GET", "/cart", "", me},
		{"GET", "/order/" + paid.id(), "", me},
		{"GET", "/products/top", "", nil},
		{"GET", "/orders", "", me},
		{"DELETE", "/cart/remove?product_id=12345", "", me},
		{"PATCH", fmt.Sprintf("/products/%d", p), `{"name":"Other"}`, asAdmin},
	} {
		ask(freshKey(), r)
	}
	if err := s.Servers().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Engine.AwaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	// Doors that the engine has not looked at yet as well: an audit beside a repair is none.
	for deadline := time.Now().Add(20 * time.Second); s.Engine.CheckDoors(t.Context()) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not all doors open")
		}
	}
	for key, r := range retry {
		if r.path == "/cart/order" {
			continue // after /cart/add, whichever comes first here
		}
		for deadline := time.Now().Add(20 * time.Second); s.sendUnder(key, r).StatusCode != 200; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s %s is never done: %s", r.method, r.path, s.sendUnder(key, r).body)
			}
		}
	}
	s.wantLeft(u, 900, p, 8)
	s.wantReplayed(held, paid)
	s.wantCart(fmt.Sprintf("%d×2 ", p), "GET", "/cart", "", me...)
	for key, r := range retry {
		if r.path == "/cart/order" {
			if a := s.sendUnder(key, r); a.StatusCode != 201 || a.field("total_price") != "200" {
				t.Errorf("the cart: %d %s", a.StatusCode, a.body)
			}
		}
	}
	s.wantLeft(u, 700, p, 6)
	s.auditClean()
}

package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"stampede/cmd/shop"
)

// request is one that can be sent again.
type request struct {
	method, path, body string
	headers            []string
}

func (s *server) sendUnder(key string, r request) answer {
	s.t.Helper()
	return s.send(r.method, r.path, r.body, append([]string{"Idempotency-Key", key}, r.headers...)...)
}

// kept is an answer that must never change.
type kept struct {
	key string
	request
	answer
}

func (s *server) keep(status int, r request) kept {
	s.t.Helper()
	k := kept{freshKey(), r, answer{}}
	k.answer = s.sendUnder(k.key, r)
	if k.StatusCode != status || k.Header.Get("Idempotent-Replayed") != "" {
		s.t.Fatalf("%s %s %s: %d %v %s, want %d", r.method, r.path, r.body, k.StatusCode, k.Header, k.answer.body, status)
	}
	return k
}

// wantReplayed sends everything again.
func (s *server) wantReplayed(all ...kept) {
	s.t.Helper()
	for _, k := range all {
		again := s.sendUnder(k.key, k.request)
		if again.StatusCode != k.StatusCode || string(again.body) != string(k.answer.body) ||
			again.Header.Get("Idempotent-Replayed") != "true" || again.Header.Get("Content-Type") != k.Header.Get("Content-Type") {
			s.t.Errorf("%s %s %s: the replay is %d %v %s, it was %d %s", k.method, k.path, k.request.body,
				again.StatusCode, again.Header, again.body, k.StatusCode, k.answer.body)
		}
	}
}

// wantReused sends other requests under the key of one, and wants them refused.
func (s *server) wantReused(k kept, others ...request) {
	s.t.Helper()
	for _, r := range others {
		if a := s.sendUnder(k.key, r); a.StatusCode != 422 || a.field("code") != "idempotency_key_reused" || a.Header.Get("Idempotent-Replayed") != "" {
			s.t.Errorf("%s %s %s under the key of %s %s: %d %s", r.method, r.path, r.body, k.method, k.path, a.StatusCode, a.body)
		}
	}
}

func (k kept) id() string { return k.field("id") }

// Answers of the life of an order stay what they were, whatever comes after.
func TestAPI_ReplaysOfAnOrderThatMovedOn(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(300, 9)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	order := func(payment string) request { return request{"POST", "/order", line(u, p, 1, payment), nil} }
	step := func(id, step, body string) request { return request{"POST", "/order/" + id + "/" + step, body, me} }

	// Held, paid, refunded.
	placed := s.keep(201, order("later"))
	paid := s.keep(200, step(placed.id(), "payment", ""))
	s.wantReplayed(placed, paid)
	refunded := s.keep(200, step(placed.id(), "cancel", `{"reason":"no"}`))
	s.wantReplayed(placed, paid, refunded)
	if got := s.orderOf(placed.answer.body).steps() + ", " + s.orderOf(paid.answer.body).steps(); got != "PENDING, PENDING SUCCESS" {
		t.Errorf("the answers went through %s", got)
	}

	// Held, cancelled.
	dropped := s.keep(201, order("later"))
	canceled := s.keep(200, step(dropped.id(), "cancel", ""))
	s.wantReplayed(dropped, canceled)

	// Paid at once, refunded by an admin, whose keys have a scope of their own.
	bought := s.keep(201, order("now"))
	recall := request{"POST", "/order/" + bought.id() + "/cancel", `{"reason":"recall"}`, asAdmin}
	recalled := s.keep(200, recall)
	if a := s.sendUnder(recalled.key, order("now")); a.StatusCode != 201 {
		t.Errorf("an admin's key stands in a buyer's way: %d %s", a.StatusCode, a.body)
	}
	s.wantReplayed(bought, recalled)

	// Failed.
	dear := s.Product(5000, 1)
	hopeless := s.keep(201, request{"POST", "/order", line(u, dear, 1, "later"), nil})
	failed := s.keep(402, step(hopeless.id(), "payment", ""))
	s.want(200, nil, "POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":9000}`, u))
	s.wantReplayed(hopeless, failed)
	if failed.field("balance") != "700" || !strings.Contains(string(failed.answer.body), `"FAILED"`) {
		t.Errorf("the problem is %s", failed.answer.body)
	}

	all := []kept{placed, paid, refunded, dropped, canceled, bought, recalled, hopeless, failed}
	s.Written()
	s.wantReplayed(all...)
	s.wantReused(placed, order("now"), step(placed.id(), "payment", ""), request{"POST", "/order", line(u, p, 2, "later"), nil})
	s.wantReused(paid, step(dropped.id(), "payment", ""), step(placed.id(), "cancel", ""), order("later"))
	s.wantReused(refunded, step(placed.id(), "cancel", ""), step(placed.id(), "cancel", `{"reason":"yes"}`),
		step(placed.id(), "payment", ""), step(dropped.id(), "cancel", `{"reason":"no"}`))
	s.wantReused(canceled, step(dropped.id(), "cancel", `{"reason":"x"}`), order("now"))
	s.wantReused(recalled, request{"POST", "/order/" + placed.id() + "/cancel", `{"reason":"recall"}`, asAdmin},
		request{"POST", fmt.Sprintf("/products/%d/stock", p), `{"delta":1,"reason":"recall"}`, asAdmin})
	s.wantReused(failed, step(placed.id(), "payment", ""), step(hopeless.id(), "cancel", ""))
	s.wantReplayed(all...)
	s.auditClean()
}

func TestAPI_ReplaysOfCarts(t *testing.T) {
	s := start(t, shop.Config{})
	u, p, q := s.User(1000), s.Product(300, 9), s.Product(20, 9)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	add := func(product int64, quantity int) request {
		return request{"POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, product, quantity), me}
	}
	buy := func(body string) request { return request{"POST", "/cart/order", body, me} }

	first := s.keep(200, add(p, 2))
	s.wantReplayed(first)
	second := s.keep(200, add(q, 1))
	s.want(200, nil, "PATCH", fmt.Sprintf("/products/%d", p), `{"name":"Other","price":1}`, asAdmin...)
	s.wantReplayed(first, second)
	s.wantCart(fmt.Sprintf("%d×2 %d×1 ", p, q), "GET", "/cart", "", me...)

	bought := s.keep(201, buy(""))
	if o := s.orderOf(bought.answer.body); o.TotalPrice != 22 {
		t.Errorf("bought for %d", o.TotalPrice)
	}
	s.wantReplayed(first, second, bought)
	s.wantCart("", "GET", "/cart", "", me...)
	third := s.keep(200, add(q, 3))
	s.wantReplayed(bought, third) // the cart that is there now is not bought
	held := s.keep(201, buy(`{"payment":"later"}`))
	s.want(200, nil, "POST", "/order/"+held.id()+"/cancel", "", me...)
	s.wantReplayed(first, second, third, bought, held)

	s.wantReused(first, add(p, 3), add(q, 2), buy(""))
	s.wantReused(bought, buy(`{"payment":"later"}`), add(p, 2),
		request{"POST", "/order", fmt.Sprintf(`{"items":[{"product_id":%d,"quantity":2},{"product_id":%d,"quantity":1}]}`, p, q), me})
	s.wantReused(held, buy(""), request{"POST", "/order/" + held.id() + "/payment", "", me})
	s.wantReplayed(first, second, third, bought, held)

	// What an unset field means stands in the request as well: "now" is the same as nothing.
	if a := s.sendUnder(bought.key, buy(`{"payment":"now"}`)); a.StatusCode != 201 || string(a.body) != string(bought.answer.body) {
		t.Errorf("payment now under the key of none: %d %s", a.StatusCode, a.body)
	}
	s.auditClean()
}

// A refusal stores nothing: the same key and request are judged anew.
func TestAPI_RefusalsAreNotStored(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(300, 0)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	buy := request{"POST", "/cart/order", "", me}
	key := freshKey()
	refused := func(status int, code string) {
		t.Helper()
		if a := s.sendUnder(key, buy); a.StatusCode != status || a.field("code") != code {
			t.Errorf("%d %s, want %d %s", a.StatusCode, a.body, status, code)
		}
	}
	refused(409, "cart_empty")
	s.want(200, nil, "POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":4}`, p), me...)
	refused(409, "out_of_stock")
	s.want(200, nil, "POST", fmt.Sprintf("/products/%d/stock", p), `{"delta":5,"reason":"delivery"}`, asAdmin...)
	refused(402, "insufficient_balance")
	s.want(200, nil, "POST", "/balance/charge", `{"amount":1000}`, me...)
	if a := s.sendUnder(key, buy); a.StatusCode != 201 || a.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("%d %v %s", a.StatusCode, a.Header, a.body)
	}
	refusedPayment := freshKey()
	pay := func(id string) answer {
		return s.sendUnder(refusedPayment, request{"POST", "/order/" + id + "/payment", "", me})
	}
	if a := pay("12345"); a.StatusCode != 404 {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	held := s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 1, "later"))
	if a := pay(held.ID); a.StatusCode != 200 {
		t.Errorf("a refused payment used its key up: %d %s", a.StatusCode, a.body)
	}
	s.auditClean()
}

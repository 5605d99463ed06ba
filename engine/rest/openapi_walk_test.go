package rest_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/engine/rest"
)

// Every answer of the server is in the document, and every answer of the document is one that the server gives: each
// operation, status and code. Nothing is left out.
func TestOpenAPI_DescribesEveryAnswer(t *testing.T) {
	d := readDocument(t)
	s := start(t, shop.Config{})
	if u, p, q := s.User(10_000_000), s.Product(100, 1000), s.Product(50, 1000); u != 1 || p != 1 || q != 2 {
		t.Fatalf("user %d, products %d and %d: the examples name others", u, p, q)
	}
	d.successes(s)
	d.refusals(s)
	d.replays(s)
	d.credentials(s)
	d.forms(s)
	s.auditClean()
	d.faults(t)
	d.limits(t)
	d.unreadable(t)
	described := d.described()
	if len(described) < 200 {
		t.Errorf("the document describes only %d answers", len(described))
	}
	for k := range described {
		if !d.seen[k] {
			t.Errorf("%s is in the document, and was not seen", k)
		}
	}
	for k := range d.seen {
		if !described[k] {
			t.Errorf("%s was seen, and is not in the document", k)
		}
	}
}

// order is an example of an operation on one order, for another order.
func (d *document) order(operation, id string) request {
	r := d.example(operation)
	sample, _ := d.Components.Parameters["OrderPath"].Value.Example.(string)
	r.path = strings.Replace(r.path, sample, id, 1)
	return r
}

// successes makes of each operation the request of the document.
func (d *document) successes(s *server) {
	for _, id := range []string{
		"createUser", "getUser", "chargeBalance", "getBalance", "createProduct", "updateProduct", "changeStock", "getProduct",
		"addToCart", "orderCart", "addToCart", "getCart", "removeFromCart", "placeOrder", "placeOrders", "topProducts", "salesReport", "userLedger",
		"healthz", "readyz", "metrics", "openapi", "docs", "docsFile",
	} {
		status := 200
		if d.operations[id].Responses.Status(201) != nil {
			status = 201
		}
		d.want(s, status, "", d.example(id))
	}
	later := request{"POST", "/order", line(1, 1, 1, "later"), nil}
	held := d.want(s, 201, "", later).field("id")
	d.want(s, 200, "", d.order("payOrder", held))
	d.want(s, 200, "", d.order("cancelOrder", held))
	d.want(s, 200, "", d.order("cancelOrder", d.want(s, 201, "", later).field("id")))
	d.want(s, 200, "", d.order("getOrder", held))
	d.want(s, 200, "", d.example("listOrders"))
	page := d.want(s, 200, "", request{"GET", "/orders?user_id=1&limit=1", "", nil}).field("next_cursor")
	d.want(s, 200, "", request{"GET", "/orders?user_id=1&limit=2&cursor=" + page, "", asAdmin})
	page = d.want(s, 200, "", request{"GET", "/products?limit=1", "", nil}).field("next_cursor")
	d.want(s, 200, "", request{"GET", "/products?cursor=" + page, "", nil})
	page = d.want(s, 200, "", request{"GET", "/reports/sales?limit=1", "", asAdmin}).field("next_cursor")
	d.want(s, 200, "", request{"GET", "/reports/sales?cursor=" + page, "", asAdmin})
	page = d.want(s, 200, "", request{"GET", "/reports/users/1/ledger?limit=1", "", asAdmin}).field("next_cursor")
	d.want(s, 200, "", request{"GET", "/reports/users/1/ledger?cursor=" + page, "", asAdmin})
	d.want(s, 200, "", request{"GET", "/reports/sales?limit=1", "", append([]string{"Accept", "text/csv"}, asAdmin...)})
	for _, file := range []string{"docs.js", "swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"} {
		d.want(s, 200, "", request{"GET", "/docs/" + file, "", nil})
	}
}

// refusals makes requests that are well-formed and cannot be done, and such that name nothing there is.
func (d *document) refusals(s *server) {
	poor, rich, scarce := s.User(10), s.User(engine.BalanceMax), s.Product(1000, 1)
	one := func(name string, id int64) []string { return []string{name, fmt.Sprint(id)} }
	mine, nobody := one("X-User-Id", 1), one("X-User-Id", 99_999)
	put := func(product, quantity int64) string {
		return fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, product, quantity)
	}
	sold := d.want(s, 201, "", request{"POST", "/order", line(1, 2, 1, "now"), nil}).field("id")
	unpaid := d.want(s, 201, "", request{"POST", "/order", line(poor, 2, 1, "later"), nil}).field("id")
	gone := d.want(s, 201, "", request{"POST", "/order", line(rich, 2, 1, "now"), nil}).field("id")
	d.want(s, 200, "", request{"POST", "/balance/charge", `{"amount":1}`, one("X-User-Id", rich)})
	d.want(s, 200, "", request{"POST", "/cart/add", put(scarce, 2), mine})
	d.want(s, 200, "", request{"POST", "/cart/add", put(scarce, 1), one("X-User-Id", poor)})
	stock := fmt.Sprintf("/products/%d/stock", scarce)
	for _, c := range []struct {
		status  int
		code    string
		request request
	}{
		{404, "user_not_found", request{"GET", "/users/99999", "", asAdmin}},
		{404, "not_found", request{"GET", "/users/", "", asAdmin}},
		{404, "user_not_found", request{"POST", "/balance/charge", `{"amount":1}`, nobody}},
		{404, "user_not_found", request{"GET", "/balance", "", nobody}},
		{404, "product_not_found", request{"GET", "/products/99999", "", nil}},
		{404, "not_found", request{"GET", "/products/", "", nil}},
		{404, "product_not_found", request{"PATCH", "/products/99999", `{"price":1}`, asAdmin}},
		{404, "not_found", request{"PATCH", "/products/", `{"price":1}`, asAdmin}},
		{404, "product_not_found", request{"POST", "/products/99999/stock", `{"delta":1}`, asAdmin}},
		{404, "not_found", request{"POST", "/products//stock", `{"delta":1}`, asAdmin}},
		{404, "user_not_found", request{"POST", "/order", line(99_999, 1, 1, "now"), nil}},
		{404, "product_not_found", request{"POST", "/order", line(1, 99_999, 1, "now"), nil}},
		{404, "order_not_found", request{"GET", "/order/7", "", mine}},
		{404, "not_found", request{"GET", "/order/", "", mine}},
		{404, "order_not_found", request{"POST", "/order/7/payment", "", mine}},
		{404, "user_not_found", request{"POST", "/order/7/payment", "", one("X-User-Id", engine.IDMax+1)}},
		{404, "not_found", request{"POST", "/order//payment", "", mine}},
		{404, "order_not_found", request{"POST", "/order/7/cancel", "", mine}},
		{404, "user_not_found", request{"POST", "/order/7/cancel", "", one("X-User-Id", engine.IDMax+1)}},
		{404, "not_found", request{"POST", "/order//cancel", "", mine}},
		{404, "user_not_found", request{"GET", "/orders", "", nobody}},
		{404, "user_not_found", request{"POST", "/cart/add", put(1, 1), nobody}},
		{404, "product_not_found", request{"POST", "/cart/add", put(99_999, 1), mine}},
		{404, "user_not_found", request{"DELETE", "/cart/remove?product_id=1", "", nobody}},
		{404, "user_not_found", request{"GET", "/cart", "", nobody}},
		{404, "user_not_found", request{"POST", "/cart/order", "", nobody}},
		{404, "user_not_found", request{"GET", "/reports/users/99999/ledger", "", asAdmin}},
		{404, "not_found", request{"GET", "/reports/users//ledger", "", asAdmin}},
		{404, "not_found", request{"GET", "/docs/index.html", "", nil}},
		{409, "email_taken", request{"POST", "/users", `{"name":"Other","email":"ADA@example.com"}`, asAdmin}},
		{409, "balance_limit", request{"POST", "/balance/charge", `{"amount":50}`, one("X-User-Id", rich)}},
		{409, "out_of_stock", request{"POST", stock, `{"delta":-2,"reason":"broken"}`, asAdmin}},
		{409, "out_of_stock", request{"POST", "/order", line(1, scarce, 2, "now"), nil}},
		{402, "insufficient_balance", request{"POST", "/order", line(poor, scarce, 1, "now"), nil}},
		{402, "insufficient_balance", request{"POST", "/order/" + unpaid + "/payment", "", one("X-User-Id", poor)}},
		{402, "insufficient_balance", request{"POST", "/cart/order", "", one("X-User-Id", poor)}},
		{409, "order_not_payable", request{"POST", "/order/" + unpaid + "/payment", "", one("X-User-Id", poor)}},
		{409, "order_not_payable", request{"POST", "/order/" + sold + "/payment", "", mine}},
		{409, "order_not_cancelable", request{"POST", "/order/" + unpaid + "/cancel", `{"reason":"too dear"}`, one("X-User-Id", poor)}},
		{409, "out_of_stock", request{"POST", "/cart/order", "", mine}},
		{409, "cart_empty", request{"POST", "/cart/order", "", one("X-User-Id", rich)}},
		{400, "validation_failed", request{"POST", "/cart/add", put(scarce, engine.QuantityMax), mine}},
		{400, "validation_failed", request{"POST", stock, fmt.Sprintf(`{"delta":%d}`, engine.StockMax), asAdmin}},
	} {
		d.want(s, c.status, c.code, c.request)
	}
	each := func(user, product, quantity int64) string {
		return fmt.Sprintf(`{"idempotency_key":%q,"user_id":%d,"items":[{"product_id":%d,"quantity":%d}]}`, freshKey(), user, product, quantity)
	}
	batch := request{"POST", "/orders/batch", `{"orders":[` + strings.Join([]string{
		each(1, 2, 1), each(99_999, 1, 1), each(1, 99_999, 1), each(1, scarce, 2), each(poor, scarce, 1), each(1, 2, 0), `{}`,
		`{"idempotency_key":"twice","user_id":1,"items":[{"product_id":2,"quantity":1}]}`, `{"idempotency_key":"twice","user_id":1,"items":[{"product_id":2,"quantity":2}]}`,
		`{"user_id":1,"items":[{"product_id":2,"quantity":1}]}`,
	}, ",") + `]}`, asAdmin}
	d.want(s, 200, "", batch)
	d.want(s, 200, "", batch) // with replays
	d.want(s, 200, "", request{"DELETE", fmt.Sprint("/cart/remove?product_id=", scarce), "", mine})
	d.want(s, 200, "", request{"POST", "/balance/charge", `{"amount":49}`, one("X-User-Id", rich)})
	d.want(s, 409, "balance_limit", request{"POST", "/order/" + gone + "/cancel", "", one("X-User-Id", rich)})
}

// replays sends each keyed request again, and then another under its key.
func (d *document) replays(s *server) {
	d.want(s, 200, "", d.example("addToCart"))
	held := func(operation string) request {
		return d.order(operation, d.want(s, 201, "", request{"POST", "/order", line(1, 1, 1, "later"), nil}).field("id"))
	}
	for _, c := range []struct {
		operation string
		body      string // of the other request; empty: it is about another order
	}{
		{"chargeBalance", `{"user_id":"1","amount":1}`},
		{"changeStock", `{"delta":1}`},
		{"placeOrder", line(1, 2, 7, "now")},
		{"payOrder", ""},
		{"cancelOrder", `{"user_id":"1","reason":"another"}`},
		{"addToCart", `{"user_id":"1","product_id":"1","quantity":1}`},
		{"orderCart", `{"user_id":"1","payment":"later"}`},
	} {
		r := d.example(c.operation)
		if strings.HasPrefix(r.path, "/order/") {
			r = held(c.operation)
		}
		r.headers = append([]string{"Idempotency-Key", freshKey()}, r.headers...)
		first := d.ask(s, r)
		if again := d.want(s, first.StatusCode, "", r); first.StatusCode > 201 || again.Header.Get("Idempotent-Replayed") != "true" {
			s.t.Errorf("%s: %d %s, then %v", c.operation, first.StatusCode, first.body, again.Header)
		}
		if c.body == "" {
			r.path = held(c.operation).path
		} else {
			r.body = c.body
		}
		d.want(s, 422, "idempotency_key_reused", r)
	}
}

// credentials makes each request of the document with one that is missing, wrong, or another's, in both modes.
func (d *document) credentials(s *server) {
	withTokens := &server{s.Shop, s.t, s.beside(rest.Config{Tokens: issuerTokens(s.t)})}
	show := func(token string) []string { return []string{"Authorization", "Bearer " + token} }
	of := func(user int64) string { return jwt("HS256", claims(user, time.Hour, ""), hmacOf(issuerSecret)) }
	for _, id := range slices.Sorted(maps.Keys(d.operations)) {
		r, op := d.example(id), d.operations[id]
		if len(*op.Security) == 0 {
			continue
		}
		if len(*op.Security) == 1 { // an admin's
			r.headers = nil
			d.want(s, 401, "unauthorized", r)
			r.headers = show("wrong")
			d.want(s, 401, "unauthorized", r)
			r.headers = show(of(1))
			d.want(withTokens, 403, "forbidden", r)
			continue
		}
		d.want(withTokens, 401, "unauthorized", r)
		r.headers = show("wrong")
		d.want(withTokens, 401, "unauthorized", r)
		r.headers = show(of(2))
		d.want(withTokens, 403, "forbidden", r)
		r.headers = []string{"X-User-Id", "2"}
		d.want(s, 403, "forbidden", r)
		r.headers = show(of(1))
		if a := d.ask(withTokens, r); a.StatusCode == 401 || a.StatusCode == 403 {
			s.t.Errorf("%s by the buyer: %d %s", id, a.StatusCode, a.body)
		}
	}
}

// forms spoils each request of the document in every way that its form can be wrong.
func (d *document) forms(s *server) {
	for _, id := range slices.Sorted(maps.Keys(d.operations)) {
		op := d.operations[id]
		if op.RequestBody != nil {
			r := d.example(id)
			r.headers = append([]string{"Content-Type", "text/plain"}, r.headers...)
			d.want(s, 415, "unsupported_media_type", r)
			for body, code := range map[string]string{
				`{`: "invalid_json", `[]`: "invalid_json", `{"user_id":null}`: "invalid_json", `{"unheard_of":1}`: "validation_failed", `{"user_id":"x"}`: "validation_failed",
			} {
				r := d.example(id)
				r.body = body
				d.want(s, 400, code, r)
			}
		}
		for _, p := range op.Parameters {
			if p.Value.In == "header" && p.Value.Required {
				r := d.example(id)
				r.headers = append([]string{"Idempotency-Key", ""}, r.headers...)
				d.want(s, 400, "missing_idempotency_key", r)
			}
			if p.Value.In == "query" {
				r := request{op.method, strings.Replace(op.path, "{id}", "1", 1) + "?" + p.Value.Name + "=-", "", asAdmin}
				d.want(s, 400, "validation_failed", r)
			}
			if p.Value.In == "path" && p.Value.Name == "id" {
				r := request{op.method, strings.Replace(op.path, "{id}", "x", 1), `{"price":1}`, asAdmin}
				d.want(s, 400, "validation_failed", r)
			}
		}
	}
}

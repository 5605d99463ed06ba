package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"stampede/engine"
)

// What is just within the limits is taken: the refusals around it are no stricter than the contract.
func TestHTTP_WhatIsJustWithinTheLimitsIsTaken(t *testing.T) {
	b := newBattery(t)
	free := b.Product(0, engine.StockMax)
	var dear, all []string // lines of ten products that cost 10^14 together, and of a hundred
	for i := range engine.LinesMax {
		if i < 10 {
			dear = append(dear, fmt.Sprintf(`{"product_id":%d,"quantity":10000}`, b.Product(engine.PriceMax, engine.QuantityMax)))
		}
		all = append(all, fmt.Sprintf(`{"product_id":%d,"quantity":1}`, b.Product(0, 10)))
	}
	of := func(quantity int) string { return fmt.Sprintf(`{"product_id":"%d","quantity":%d}`, free, quantity) }
	order := func(headers []string, payment string, lines ...string) string {
		return call("POST", "/order", fmt.Sprintf(`{"user_id":"%d","items":[%s],"payment":%q}`, b.buyer, strings.Join(lines, ","), payment), headers...)
	}
	add := func(quantity int) string {
		return call("POST", "/cart/add", fmt.Sprintf(`{"user_id":%d,"product_id":%d,"quantity":%d}`, b.nobody, free, quantity))
	}
	key := func(key string) []string { return []string{"Idempotency-Key: " + key} }
	admin := "Authorization: Bearer " + adminToken
	name := strings.Repeat("\u00fc", engine.NameMax)
	many := strings.Split(strings.Repeat(of(1)+" ", 1500), " ")[:1500] // 64 KiB hold little more
	for _, c := range []struct {
		request string
		status  int
		says    string
	}{
		{order(nil, "now", of(10_000)), 201, `"quantity":10000,`},
		{order(nil, "now", of(9_999), of(1)), 201, `"quantity":10000,`},
		{order(nil, "now", of(1), all[0], of(4_999), all[0], of(5_000)), 201, `"quantity":10000,`},
		{order(nil, "now", many...), 201, `"quantity":1500,`},
		{order(nil, "now", append(all, all[1])...), 201, `"quantity":2,`},
		{order(nil, "later", dear...), 201, `"total_price":100000000000000,`},
		{order(key("k"), "now", of(1)), 201, ""},
		{order(key(strings.Repeat("k", 255)), "now", of(1)), 201, ""},
		{order(key(strings.Repeat("\u00fc", 255)), "now", of(1)), 201, ""},
		{order(key(`a key: "{1}", 100% ~`), "now", of(1)), 201, ""},
		{add(9_999), 200, `"quantity":9999,`},
		{add(1), 200, `"quantity":10000,`},
		{call("POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":1}`, b.nobody)), 200, `"balance":1,`},
		{call("POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":99999999999999}`, b.nobody)), 200, `"balance":100000000000000,`},
		{call("POST", "/users", `{"name":"`+name+`","email":"e@x.example"}`, admin), 201, name},
		{call("POST", "/products", `{"name":"`+name+`","price":1000000000,"stock":1000000000}`, admin), 201, `"price":1000000000,"stock":1000000000`},
		{call("POST", "/products", `{"name":"\ud83d\ude00","price":0,"stock":0}`, admin), 201, `"price":0,"stock":0`},
		{call("PATCH", fmt.Sprintf("/products/%d", b.product), `{"price":0}`, admin), 200, `"price":0,`},
		{call("POST", fmt.Sprintf("/products/%d/stock", b.another), `{"delta":999999900,"reason":"`+name+`"}`, admin), 200, `"stock":1000000000`},
		{call("POST", fmt.Sprintf("/products/%d/stock", b.another), `{"delta":-1000000000}`, admin), 200, `"stock":0`},
		{call("POST", "/order/"+b.held+"/cancel", `{"reason":"`+name+`"}`, fmt.Sprintf("X-User-Id: %d", b.buyer)), 200, name},
		{call("GET", "/products?limit=200", ""), 200, `"next_cursor":null`},
		{call("GET", "/products?limit=1", ""), 200, `"next_cursor":"`},
		{call("GET", "/products/top?limit=100", ""), 200, `"rank":100,`},
		{call("GET", fmt.Sprintf("/orders?limit=200&user_id=%d", b.buyer), ""), 200, `"next_cursor":null`},
	} {
		if a := b.once(c.request); a.status != c.status || !strings.Contains(a.body, c.says) {
			t.Errorf("%.300q: %.500q, want %d with %s", c.request, a.all, c.status, c.says)
		}
	}
	b.auditClean()
}

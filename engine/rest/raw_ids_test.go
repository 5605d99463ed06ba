package rest_test

import (
	"encoding/json"
	"fmt"
	"strings"
)

// notIDs are no ids, as text.
func notIDs() []string {
	return []string{
		"0", "-1", "+1", "-0", "00", "01", "1.0", "1.5", "1e3", "0x1", "1_0", "1,0", "1;0", "{1}", "{", "}", "1}", "{}", "{user}", "1:2", ":", "1:", ":1",
		"1|2", "1/", "*", "?", "1#", "%", "%31", "9223372036854775808", "18446744073709551617", strings.Repeat("1", 20), strings.Repeat("1", 400),
		"one", mark, "null", "true", "NaN", "..", "\u0661", "\uff11", "1\u00a0", "1\u200b", "1'", `1"`, "1--", "$1", "1\\", "~1", "me", "admin",
	}
}

// badIDs stand wherever a request may name a user, a product or an order.
func (b *battery) badIDs() {
	for i, k := range b.takers() {
		for _, field := range []string{"user_id", "product_id"} {
			if strings.Contains(k.body, field) {
				b.badIDsInBody(i, k, field)
			}
		}
	}
	b.badIDsInPath()
	b.badIDsInQuery()
	b.badIDsInHeader()
	b.unknownUsers()
}

func (b *battery) badIDsInBody(route int, k taker, field string) {
	var rows []row
	for _, text := range append(notIDs(), "", " ", " 1", "1 ", "\t1", "1\n", "1\u007f") {
		quoted, err := json.Marshal(text)
		if err != nil {
			b.t.Fatal(err)
		}
		rows = append(rows, row{k.with(set(k.body, field, string(quoted))), 400, "validation_failed", field})
	}
	for _, value := range []string{
		`0`, `-1`, `-0`, `1.5`, `1.0`, `1e3`, `9223372036854775808`, "1" + strings.Repeat("0", 400), `true`, `[]`, `[1]`, `{}`, `{"id":1}`, `"\u0031"`,
	} {
		rows = append(rows, row{k.with(set(k.body, field, value)), 400, "validation_failed", field})
	}
	b.refused(oneIn(3, route, rows)...)
}

func (b *battery) badIDsInPath() {
	admin, buyer := "Authorization: Bearer "+adminToken, fmt.Sprintf("X-User-Id: %d", b.buyer)
	for i, route := range []struct {
		method, path, body, as, named string
		status                        int // of an id that nothing has
		code                          string
	}{
		{"GET", "/users/ID", "", admin, "the user id", 404, "user_not_found"},
		{"GET", "/reports/users/ID/ledger", "", admin, "the user id", 404, "user_not_found"},
		{"GET", "/products/ID", "", admin, "the product id", 404, "product_not_found"},
		{"PATCH", "/products/ID", `{"price":1}`, admin, "the product id", 404, "product_not_found"},
		{"POST", "/products/ID/stock", `{"delta":1}`, admin, "the product id", 404, "product_not_found"},
		{"GET", "/order/ID", "", buyer, "the order id", 404, "order_not_found"},
		{"POST", "/order/ID/payment", "", buyer, "the order id", 404, "order_not_found"},
		{"POST", "/order/ID/cancel", "", buyer, "the order id", 404, "order_not_found"},
		{"POST", "/order/ID/cancel", "", admin, "the order id", 404, "order_not_found"},
	} {
		with := func(id string) string {
			return call(route.method, strings.Replace(route.path, "ID", id, 1), route.body, route.as)
		}
		var rows []row
		for _, id := range notIDs() {
			if escaped := percent(id); escaped != id {
				rows = append(rows, row{with(escaped), 400, "validation_failed", route.named})
			}
			if !strings.ContainsAny(id, "?#/") {
				rows = append(rows, row{with(id), 400, "validation_failed", route.named})
			}
		}
		for _, id := range []string{"%201", "1%20", "%00", "1%00", "%0d%0a", "1%", "1%zz", "%31", "%2e%2e", "%ff", "%7b1%7D", "1%3a2", "1%2F2", "1;a=b", "%74op"} {
			rows = append(rows, row{with(id), 400, "validation_failed", route.named})
		}
		for _, id := range []string{"99999", "9007199254740993", "9223372036854775807"} {
			rows = append(rows, row{with(id), route.status, route.code, "no|No"})
		}
		b.refused(oneIn(3, i, rows)...)
		b.refusedAndClosed(row{with("1 2"), 400, "validation_failed", "HTTP"}, row{with("1\t2"), 400, "validation_failed", "HTTP"})
	}
}

// percent writes every byte as %XX that is not a digit.
func percent(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if '0' <= c && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

func (b *battery) badIDsInQuery() {
	buyer := fmt.Sprintf("X-User-Id: %d", b.buyer)
	order := fmt.Sprintf(`{"items":[{"product_id":%d,"quantity":1}]}`, b.product)
	for i, route := range []struct{ method, path, body, field, as string }{
		{"GET", "/balance", "", "user_id", ""},
		{"GET", "/balance", "", "user_id", buyer},
		{"GET", "/cart", "", "user_id", buyer},
		{"GET", "/orders", "", "user_id", buyer},
		{"GET", "/order/" + b.held, "", "user_id", buyer},
		{"POST", "/order/" + b.held + "/payment", "", "user_id", buyer},
		{"POST", "/order/" + b.held + "/cancel", "", "user_id", buyer},
		{"POST", "/order", order, "user_id", buyer},
		{"POST", "/balance/charge", `{"amount":1}`, "user_id", buyer},
		{"POST", "/cart/order", "", "user_id", buyer},
		{"POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":1}`, b.product), "user_id", buyer},
		{"DELETE", "/cart/remove", "", "product_id", buyer},
		{"GET", "/reports/sales", "", "product_id", "Authorization: Bearer " + adminToken},
		{"DELETE", "/cart/remove", fmt.Sprintf(`{"product_id":%d}`, b.product), "user_id", buyer},
	} {
		with := func(query string) string {
			if route.as == "" {
				return call(route.method, route.path+"?"+query, route.body)
			}
			return call(route.method, route.path+"?"+query, route.body, route.as)
		}
		var rows []row
		for _, id := range notIDs() {
			rows = append(rows, row{with(route.field + "=" + percent(id)), 400, "validation_failed", route.field})
			if !strings.ContainsAny(id, "%#+") {
				rows = append(rows, row{with(route.field + "=" + id), 400, "validation_failed", route.field})
			}
		}
		for _, query := range []string{"F=", "F", "F=%201", "F=1%20", "F=1+", "F=+1", "F=%00", "F=1%0a", "F=%zz", "F=%", "F=1&F=1", "F=1&F=2", "F=1&F=", "%66=1&f=1&F=x"} {
			rows = append(rows, row{with(strings.ReplaceAll(query, "F", route.field)), 400, "validation_failed", route.field})
		}
		b.refused(oneIn(3, i, rows)...)
	}
	b.refused(
		row{call("GET", "/balance?User_id=1", ""), 400, "validation_failed", "user_id"},
		row{call("GET", "/balance?user_id[]=1", ""), 400, "validation_failed", "user_id"},
		row{call("DELETE", "/cart/remove", "", buyer), 400, "validation_failed", "product_id"},
		row{call("DELETE", "/cart/remove", "{}", buyer), 400, "validation_failed", "product_id"},
		row{call("DELETE", fmt.Sprintf("/cart/remove?product_id=%d", b.product), fmt.Sprintf(`{"product_id":%d}`, b.another), buyer), 400, "validation_failed", "product_id"},
		row{call("POST", fmt.Sprintf("/cart/order?user_id=%d", b.buyer), fmt.Sprintf(`{"user_id":%d}`, b.other)), 400, "validation_failed", "user_id"},
	)
}

func (b *battery) badIDsInHeader() {
	var rows []row
	for _, id := range append(notIDs(), "", " ", "1 2", "1,1", "1, 1", "\xff", "\x80", "1\t2") {
		rows = append(rows,
			row{call("GET", "/balance", "", "X-User-Id: "+id), 400, "validation_failed", "X-User-Id"},
			row{call("POST", "/cart/order", "", "X-User-Id: "+id), 400, "validation_failed", "X-User-Id"},
			row{call("GET", fmt.Sprintf("/cart?user_id=%d", b.buyer), "", "x-user-id:"+id), 400, "validation_failed", "X-User-Id"},
			row{call("POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":1}`, b.buyer), "X-USER-ID:\t"+id), 400, "validation_failed", "X-User-Id"})
	}
	me := fmt.Sprintf("X-User-Id: %d", b.buyer)
	b.refused(append(rows,
		row{call("GET", "/balance", "", me, me), 400, "validation_failed", "X-User-Id"},
		row{call("GET", "/balance", "", me, "x-user-id: 99"), 400, "validation_failed", "X-User-Id"},
		row{call("GET", "/balance", "", me, "X-User-Id:"), 400, "validation_failed", "X-User-Id"},
	)...)
	for _, id := range []string{"\x00", "1\x00", "\x01", "\x7f", "1\r2"} {
		b.refusedAndClosed(row{call("GET", "/balance", "", "X-User-Id: "+id), 400, "validation_failed", "HTTP"})
	}
}

// unknownUsers are none that there are, on every route that acts for one.
func (b *battery) unknownUsers() {
	for _, id := range []string{"99999", "9007199254740993", "9223372036854775807"} {
		for _, k := range b.takers() {
			if !strings.Contains(k.body, "user_id") {
				continue
			}
			code := "user_not_found"
			if strings.Contains(k.path, b.held) && id == "99999" { // it could be somebody
				code = "order_not_found"
			}
			b.refused(
				row{call(k.method, k.path, set(k.body, "user_id", id)), 404, code, "no"},
				row{call(k.method, k.path, set(k.body, "user_id", `"`+id+`"`), "X-User-Id: "+id), 404, code, "no"})
		}
		for _, path := range []string{"/balance", "/cart", "/orders"} {
			b.refused(
				row{call("GET", path+"?user_id="+id, ""), 404, "user_not_found", "no user"},
				row{call("GET", path, "", "X-User-Id: "+id), 404, "user_not_found", "no user"})
		}
		b.refused(row{call("GET", "/order/"+b.held+"?user_id="+id, ""), 404, "order_not_found", "no order"})
	}
}

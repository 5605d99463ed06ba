package rest_test

import (
	"fmt"
	"strings"
)

// set gives the members of a name in a body another value.
func set(body, name, value string) string {
	member := pattern(`"` + name + `":("[^"]*"|[0-9]+)`)
	return member.ReplaceAllLiteralString(body, `"`+name+`":`+value)
}

// taker returns the one of a route, named as in the contract.
func (b *battery) taker(route string) taker {
	b.t.Helper()
	for _, k := range b.takers() {
		path := strings.NewReplacer(fmt.Sprintf("/products/%d", b.product), "/products/{id}", b.held, "{id}").Replace(k.path)
		if k.method+" "+path == route {
			return k
		}
	}
	b.t.Fatalf("no route %s takes a body", route)
	return taker{}
}

// notIntegers are JSON, but no integers that fit into 64 bits.
func notIntegers() []string {
	return []string{
		`1.5`, `1.0`, `1e3`, `1E0`, `-1.5`, `1e-1`, `1e999999999`, `-1e999999999`, `1e-999999999`, "1" + strings.Repeat("0", 400),
		strings.Repeat("9", 30_000), "0." + strings.Repeat("0", 30_000) + "1", `9223372036854775808`, `-9223372036854775809`,
		`18446744073709551617`, `"1"`, `""`, `"` + mark + `"`, `true`, `false`, `[]`, `[1]`, `{}`, `{"value":1}`,
	}
}

func (b *battery) badNumbers() {
	for _, f := range []struct {
		route, field, detail string
		values               []string // integers, but none that it takes
	}{
		{"POST /order", "quantity", `items\[0\]\.quantity .* 10000`, []string{`0`, `-1`, `10001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`, `-0`}},
		{"POST /cart/add", "quantity", `quantity .* 10000`, []string{`0`, `-1`, `10001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`, `-0`}},
		{"POST /balance/charge", "amount", `amount .* 100000000000000`, []string{`0`, `-1`, `100000000000001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`}},
		{"POST /products", "price", `price .* 1000000000`, []string{`-1`, `1000000001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`}},
		{"POST /products", "stock", `stock .* 1000000000`, []string{`-1`, `1000000001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`}},
		{"PATCH /products/{id}", "price", `price .* 1000000000`, []string{`-1`, `1000000001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`}},
		{"POST /products/{id}/stock", "delta", `delta .* 1000000000`, []string{`0`, `1000000001`, `-1000000001`, `9007199254740993`, `9223372036854775807`, `-9223372036854775808`}},
	} {
		k := b.taker(f.route)
		var rows []row
		for _, value := range f.values {
			rows = append(rows, row{k.with(set(k.body, f.field, value)), 400, "validation_failed", f.detail})
		}
		for _, value := range notIntegers() {
			rows = append(rows, row{k.with(set(k.body, f.field, value)), 400, "validation_failed", "plain integers"})
		}
		missing := pattern(`"`+f.field+`":[0-9]+,?`).ReplaceAllString(k.body, "")
		if f.route != "PATCH /products/{id}" { // where it need not stand
			rows = append(rows, row{k.with(strings.Replace(missing, ",}", "}", 1)), 400, "validation_failed", f.field})
		}
		b.refused(rows...)
	}
	stock := b.taker("POST /products/{id}/stock")
	b.refused(row{stock.with(`{"delta":999999999,"reason":"` + mark + `"}`), 400, "validation_failed", `stock .* 1000000000`})
}

// badLines are orders whose lines are none, too many or too much.
func (b *battery) badLines() {
	order, add := b.taker("POST /order"), b.taker("POST /cart/add")
	lines := func(lines ...string) string {
		return order.with(fmt.Sprintf(`{"user_id":%d,"items":[%s]}`, b.buyer, strings.Join(lines, ",")))
	}
	of := func(product int64, quantity int) string {
		return fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, product, quantity)
	}
	several := func(n int) (all []string) {
		for i := range n {
			all = append(all, of(int64(i+1), 1))
		}
		return all
	}
	once := of(b.product, 1)
	b.refused(
		row{lines(), 400, "validation_failed", "items"},
		row{order.with(fmt.Sprintf(`{"user_id":%d}`, b.buyer)), 400, "validation_failed", "items"},
		row{lines(several(101)...), 400, "validation_failed", "items .* 100 "},
		row{lines(append(several(100), of(1, 1), of(101, 1))...), 400, "validation_failed", "items .* 100 "},
		row{lines(of(b.product, 10_000), once), 400, "validation_failed", "add up .* 10000"},
		row{lines(of(b.product, 6_000), of(b.another, 1), of(b.product, 6_000)), 400, "validation_failed", "add up .* 10000"},
		row{lines(once, fmt.Sprintf(`{"product_id":"%d","quantity":10000}`, b.product)), 400, "validation_failed", "add up .* 10000"},
		row{lines(`{}`), 400, "validation_failed", "items"},
		row{lines(once, `[]`), 400, "validation_failed", "type"},
		row{lines(once, `1`), 400, "validation_failed", "type"},
		row{lines(`"` + mark + `"`), 400, "validation_failed", "type"},
		row{lines(`{"product_id":1}`), 400, "validation_failed", "quantity"},
		row{lines(`{"quantity":1}`), 400, "validation_failed", "product_id"},
		row{lines(strings.TrimSuffix(once, "}") + `,"price":0}`), 400, "validation_failed", `"price"`},
		row{lines(strings.TrimSuffix(once, "}") + `,"total_price":0}`), 400, "validation_failed", `"total_price"`},
		row{lines(once, of(99_999, 1)), 404, "product_not_found", "99999"},
		row{lines(of(9_007_199_254_740_993, 1)), 404, "product_not_found", "9007199254740993"},
		row{lines(once, of(b.product, 98)), 409, "out_of_stock", "98"},
		row{add.with(set(add.body, "product_id", "99999")), 404, "product_not_found", "99999"},
		row{add.with(set(add.body, "product_id", "9007199254740993")), 404, "product_not_found", "9007199254740993"},
		row{add.with(set(set(add.body, "product_id", fmt.Sprint(b.another)), "quantity", "9998")), 400, "validation_failed", "holds 3 units"},
	)
	for _, k := range []taker{order, add, b.taker("POST /balance/charge"), b.taker("POST /users"), b.taker("POST /products"), b.taker("PATCH /products/{id}")} {
		b.refused(row{k.with(""), 400, "invalid_json", "JSON object"}) // a body must be there
	}
	b.refused(row{add.with(fmt.Sprintf(`{"user_id":%d,"quantity":1}`, b.buyer)), 400, "validation_failed", "product_id"})
	for _, items := range []string{`{}`, `"` + mark + `"`, `1`, `true`} {
		b.refused(row{order.with(fmt.Sprintf(`{"user_id":%d,"items":%s}`, b.buyer, items)), 400, "validation_failed", "type"})
	}
	for _, payment := range []string{`""`, `"LATER"`, `"Now"`, `" now"`, `"` + mark + `"`} {
		for _, k := range []taker{order, b.taker("POST /cart/order")} {
			b.refused(row{k.with(set(k.body, "payment", payment)), 400, "validation_failed", `payment must be "now" or "later"`})
		}
	}
	for _, payment := range []string{`0`, `1`, `true`, `false`, `[]`, `["now"]`, `{}`} {
		for _, k := range []taker{order, b.taker("POST /cart/order")} {
			b.refused(row{k.with(set(k.body, "payment", payment)), 400, "validation_failed", "type"})
		}
	}
}

// dearest is the largest total that the other limits allow: 100 lines of 10,000 at 10^9 each, 10^15.
func (b *battery) dearest() {
	items := make([]string, len(b.dear))
	for i, p := range b.dear {
		items[i] = fmt.Sprintf(`{"product_id":%d,"quantity":10000}`, p)
	}
	user := fmt.Sprintf("X-User-Id: %d", b.other)
	for _, payment := range []string{"now", "later"} {
		b.refused(
			row{call("POST", "/order", fmt.Sprintf(`{"items":[%s],"payment":%q}`, strings.Join(items, ","), payment), user), 400, "validation_failed", "total .* 100000000000000"},
			row{call("POST", "/cart/order", fmt.Sprintf(`{"payment":%q}`, payment), user), 400, "validation_failed", "total .* 100000000000000"},
		)
	}
	b.refused(
		row{call("POST", "/order", fmt.Sprintf(`{"items":[%s]}`, items[0]), user), 402, "insufficient_balance", "The balance is 1000"},
		row{call("POST", "/balance/charge", `{"amount":100000000000000}`, user), 409, "balance_limit", "The balance is 1000; .* 100000000000000"},
		row{call("POST", "/cart/order", "", fmt.Sprintf("X-User-Id: %d", b.nobody)), 409, "cart_empty", "nothing in the cart"},
	)
}

// badText are names, emails and reasons that cannot be shown, or not be stored.
func (b *battery) badText() {
	long := strings.Repeat("\u00fc", 201)
	texts := map[string]string{ // by JSON value, with what the detail says
		`""`: "characters", `" "`: "characters", `"` + long + `"`: "200 characters", `"a\nb"`: "control", `"\t` + mark + `"`: "control",
		`"a\u007fb"`: "control", `"a\u0085b"`: "control", `"a\u009fb"`: "control", `1`: "type", `true`: "type", `[]`: "type", `{}`: "type", `["x"]`: "type",
	}
	for _, route := range []string{"POST /users", "POST /products", "PATCH /products/{id}"} {
		k := b.taker(route)
		for text, detail := range texts {
			b.refused(row{k.with(set(k.body, "name", text)), 400, "validation_failed", detail})
		}
	}
	for _, route := range []string{"POST /order/{id}/cancel", "POST /products/{id}/stock"} {
		k := b.taker(route)
		for text, detail := range texts {
			if text != `""` && text != `" "` {
				b.refused(row{k.with(set(k.body, "reason", text)), 400, "validation_failed", detail})
			}
		}
	}
	users := b.taker("POST /users")
	for _, email := range []string{
		"", " ", "nobody", "@example.com", "a@", "a@b@c", "a b@example.com", "Eve <eve@example.com>", "<eve@example.com>", "eve@example.com ",
		" eve@example.com", "eve@exa mple.com", `eve@example.com\n`, `e\u0001ve@example.com`, "eve@example.com,adam@example.com", mark,
		strings.Repeat("e", 250) + "@example.com",
	} {
		b.refused(row{users.with(set(users.body, "email", `"`+email+`"`)), 400, "validation_failed", "email"})
	}
	patch := b.taker("PATCH /products/{id}")
	b.refused(
		row{users.with(set(users.body, "email", `1`)), 400, "validation_failed", "type"},
		row{users.with(`{"name":"Eve"}`), 400, "validation_failed", "email"},
		row{users.with(`{"email":"eve@example.com"}`), 400, "validation_failed", "name"},
		row{users.with(set(users.body, "email", `"BUYER1@example.COM"`)), 409, "email_taken", "email"},
		row{patch.with(`{}`), 400, "validation_failed", "name, price"},
		row{b.taker("POST /products").with(`{"price":1,"stock":1}`), 400, "validation_failed", "name"},
	)
}

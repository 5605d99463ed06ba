package rest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

const asAdminLine = "Authorization: Bearer " + adminToken

// badBatches are batches that are refused as a whole, and orders of a batch that are refused each for itself.
func (b *battery) badBatches() {
	item := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, b.product)
	order := func(key, rest string) string {
		return fmt.Sprintf(`{"idempotency_key":%q,"user_id":%d,"items":[%s]%s}`, key, b.buyer, item, rest)
	}
	batch := func(orders ...string) string {
		return call("POST", "/orders/batch", `{"orders":[`+strings.Join(orders, ",")+`]}`, asAdminLine)
	}
	good := order("a", "")
	var rows []row
	refuse := func(code, detail string, orders ...string) { // after an order that would be placed
		for _, o := range orders {
			rows = append(rows, row{batch(order(freshKey(), ""), o), 400, code, detail})
		}
	}
	refuse("validation_failed", `field "payment"`, order("b", `,"payment":"now"`), order("b", `,"payment":"later"`))
	refuse("validation_failed", "field", order("b", `,"price":1`), strings.Replace(good, `"quantity"`, `"price":1,"quantity"`, 1), strings.ToUpper(good[:4])+good[4:])
	refuse("validation_failed", "type", `1`, `"x"`, `[]`, `[[]]`, `{"items":{}}`, `{"items":[1]}`, `{"idempotency_key":1}`, `{"idempotency_key":{}}`)
	for _, value := range notIntegers() {
		refuse("validation_failed", "type", set(good, "quantity", value))
	}
	for _, value := range []string{`true`, `{}`, `{"id":1}`, `[]`, `[1]`, `1.5`, `1.0`, `1e3`} {
		refuse("validation_failed", `orders\[1\].user_id`, set(good, "user_id", value))
		refuse("validation_failed", `orders\[1\].items\[0\].product_id`, set(good, "product_id", value))
	}
	refuse("invalid_json", "twice", order("b", `,"user_id":1`), strings.Replace(good, `{"product_id"`, `{"product_id":1,"product_i\u0064"`, 1))
	refuse("invalid_json", "null", `null`, set(good, "quantity", "null"), set(good, "idempotency_key", "null"))
	refuse("invalid_json", "deep", strings.Repeat("[", 100_000), set(good, "quantity", strings.Repeat(`{"a":[`, 50_000)))
	refuse("invalid_json", "valid JSON", `{`, good+`}`, `,`, set(good, "user_id", "01"))
	const number = `orders must have 1 to 1000 entries`
	rows = append(rows,
		row{call("POST", "/orders/batch", `{}`, asAdminLine), 400, "validation_failed", number},
		row{batch(), 400, "validation_failed", number},
		row{batch(strings.Split(strings.Repeat(good+" ", 1001), " ")[:1001]...), 400, "validation_failed", number},
		row{batch(strings.Repeat("{},", 300_000) + "{}"), 400, "validation_failed", number},
		row{call("POST", "/orders/batch", "", asAdminLine), 400, "invalid_json", "JSON object"},
		row{call("POST", "/orders/batch", good, fmt.Sprintf("X-User-Id: %d", b.buyer)), 401, "unauthorized", "admin token"},
	)
	b.refused(rows...)
	b.longBatches()
	b.badOrders(batch)
}

// longBatches are bodies around 1 MiB, for an admin, and around 64 KiB, for everybody else and elsewhere.
func (b *battery) longBatches() {
	const most, code, detail = 1 << 20, "payload_too_large", "64 KiB; that of POST /orders/batch, .* 1 MiB"
	announced := func(path string, length int, lines ...string) string {
		return call("POST", path, "", append([]string{fmt.Sprint("Content-Length: ", length)}, lines...)...)
	}
	chunked := func(body string, lines ...string) string {
		return call("POST", "/orders/batch", body, append([]string{"Content-Length", "Transfer-Encoding: chunked"}, lines...)...)
	}
	chunks := func(n int) string { return strings.Repeat("10000\r\n"+strings.Repeat(" ", 1<<16)+"\r\n", n) }
	wrong := asAdminLine + "x"
	b.refusedAndClosed(
		row{call("POST", "/orders/batch", strings.Repeat(" ", most+1), asAdminLine), 413, code, detail},
		row{announced("/orders/batch", most+1, asAdminLine), 413, code, detail},
		row{announced("/orders/batch", most+1, asAdminLine, "Expect: 100-continue"), 413, code, detail},
		row{chunked("100001\r\n", asAdminLine), 413, code, detail},
		row{chunked(chunks(16)+"1\r\n \r\n0\r\n\r\n", asAdminLine), 413, code, detail},
		row{announced("/orders/batch", 64<<10+1), 413, code, detail},
		row{announced("/orders/batch", 64<<10+1, wrong), 413, code, detail},
		row{announced("/orders/batch", 64<<10+1, wrong, "Expect: 100-continue"), 413, code, detail},
		row{announced("/orders/batch", 64<<10+1, asAdminLine, asAdminLine), 413, code, detail},
		row{chunked("10001\r\n", wrong), 413, code, detail},
		row{announced("/orders/batch/", 64<<10+1, asAdminLine), 413, code, detail},
		row{announced("/orders", 64<<10+1, asAdminLine), 413, code, detail},
		row{call("GET", "/orders/batch", "", asAdminLine, "Content-Length: 65537"), 413, code, detail},
	)
	b.refused( // as much as may be; and after it no more than elsewhere
		row{call("POST", "/orders/batch", strings.Repeat(" ", most), asAdminLine), 400, "invalid_json", "JSON object"},
		row{call("POST", "/orders/batch?x=/", strings.Repeat(" ", most), asAdminLine), 400, "invalid_json", "JSON object"},
		row{chunked(chunks(16)+"0\r\n\r\n", asAdminLine), 400, "invalid_json", "JSON object"},
		row{call("POST", "/orders/batch", strings.Repeat(" ", 64<<10), wrong), 401, "unauthorized", "admin token"},
	)
	conn := b.dial()
	long := call("POST", "/orders/batch", strings.Repeat(" ", most), asAdminLine)
	for _, r := range []row{{long, 400, "invalid_json", "JSON object"}, {announced("/order", 64<<10+1, asAdminLine), 413, code, detail}} {
		_, _ = conn.Write([]byte(r.request)) // the second is not read to its end
		a, err := conn.answer("POST")
		if err != nil {
			b.t.Fatal(err)
		}
		b.wantProblem(r, a)
	}
}

// badOrders are refused each for itself, with what POST /order answers its buyer.
func (b *battery) badOrders(batch func(orders ...string) string) {
	member := func(name, value string) string { return fmt.Sprintf("%q:%s,", name, value) }
	user, item := member("user_id", fmt.Sprint(b.buyer)), fmt.Sprintf(`{"product_id":%d,"quantity":1}`, b.product)
	items := func(items ...string) string { return fmt.Sprintf(`"items":[%s]`, strings.Join(items, ",")) }
	bad := []string{
		user + `"items":[]`, user[:len(user)-1], user + items(`{}`), user + items(`{"quantity":1}`), user + items(item, `{"product_id":1}`),
		user + items(fmt.Sprintf(`{"product_id":%d,"quantity":101}`, b.product)),
		user + items(item, `{"product_id":99999,"quantity":1}`), user + items(`{"product_id":9007199254740993,"quantity":1}`),
		user + items(fmt.Sprintf(`{"product_id":%d,"quantity":1}`, b.dear[0])), member("user_id", "99999") + items(item), member("user_id", "9007199254740993") + items(item),
	}
	for _, quantity := range []string{`0`, `-1`, `10001`, `9223372036854775807`} {
		bad = append(bad, user+items(item, set(item, "quantity", quantity)))
	}
	for _, id := range []string{`0`, `-1`, `"0"`, `"-1"`, `"01"`, `"{1}"`, `"1:2"`, `" 1"`, `"1.0"`, `"me"`, `""`, `9223372036854775808`} {
		bad = append(bad, member("user_id", id)+items(item), user+items(item, set(item, "product_id", id)))
	}
	var orders []string
	for i, o := range bad {
		orders = append(orders, fmt.Sprintf(`{"idempotency_key":"bad %d",%s}`, i, o))
	}
	results := b.resultsOf(b.once(batch(orders...)).body)
	for i, o := range bad {
		single := b.once(call("POST", "/order", "{"+o+"}"))
		if r := results[i]; r.Status != single.status || string(r.Problem) != single.body {
			b.t.Errorf("%.200s: %d %s in a batch, %d %s alone", o, r.Status, r.Problem, single.status, single.body)
		}
	}
	// What is wrong with the key stands in the order, and not in a header.
	keys := map[string]string{"": "missing_idempotency_key", " a": "validation_failed", "a ": "validation_failed", " ": "validation_failed"}
	for _, key := range notKeys() {
		if utf8.ValidString(key) {
			keys[key] = "validation_failed"
		}
	}
	orders = []string{ // and more lines than fit into another body
		"{" + user + items(item) + "}", "{" + member("idempotency_key", `"lines"`) + user + items(strings.Split(strings.Repeat(item+" ", 10_001), " ")[:10_001]...) + "}",
	}
	wants := []string{"missing_idempotency_key", "validation_failed"}
	for key, code := range keys {
		text, err := json.Marshal(key)
		if err != nil {
			b.t.Fatal(err)
		}
		orders, wants = append(orders, "{"+member("idempotency_key", string(text))+user+items(item)+"}"), append(wants, code)
	}
	for i, r := range b.resultsOf(b.once(batch(orders...)).body) {
		if !strings.Contains(string(r.Problem), fmt.Sprintf(`"code":%q`, wants[i])) || r.Status != 400 {
			b.t.Errorf("%s: %d %s, want %s", orders[i], r.Status, r.Problem, wants[i])
		}
	}
}

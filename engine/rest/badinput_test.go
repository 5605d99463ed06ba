package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"stampede/cmd/shop"
)

// ids that are none: as JSON values, with the code of their refusal.
var badIDs = map[string]string{
	`0`: "validation_failed", `-1`: "validation_failed", `1.5`: "validation_failed", `1e3`: "validation_failed",
	`true`: "validation_failed", `[1]`: "validation_failed", `{}`: "validation_failed", `""`: "validation_failed",
	`"{1}"`: "validation_failed", `"1:2"`: "validation_failed", `" 1"`: "validation_failed", `"+1"`: "validation_failed",
	`"01"`: "validation_failed", `"1e3"`: "validation_failed", `"\u0031"`: "validation_failed",
	`9223372036854775808`: "validation_failed", `"9223372036854775808"`: "validation_failed",
	`null`: "invalid_json", `01`: "invalid_json", `+1`: "invalid_json", `1}`: "invalid_json", `"\ud800"`: "invalid_json",
}

var badQuantities = map[string]string{
	`0`: "validation_failed", `-1`: "validation_failed", `1.5`: "validation_failed", `1e3`: "validation_failed",
	`1.0`: "validation_failed", `"1"`: "validation_failed", `true`: "validation_failed", `[1]`: "validation_failed",
	`{}`: "validation_failed", `10001`: "validation_failed", `9007199254740993`: "validation_failed",
	`9223372036854775808`: "validation_failed", `null`: "invalid_json", `01`: "invalid_json", `+1`: "invalid_json",
}

// badBodies are what no body may be, on any route; U stands for a user.
var badBodies = map[string]string{
	`{`: "invalid_json", `[]`: "invalid_json", `null`: "invalid_json", ` `: "invalid_json", `{"user_id":U}x`: "invalid_json",
	`{"user_id":U,"user_id":U}`: "invalid_json", `{"user_id":U,"user_i\u0064":U}`: "invalid_json",
	`{"User_id":U}`: "validation_failed", `{"user_id":U,"price":1}`: "validation_failed", `{"user_id":U,"status":"SUCCESS"}`: "validation_failed",
}

// Every refusal of orders that are held, paid and cancelled.
func TestAPI_RefusesBadInputOnOrders(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(1000), s.User(1000), s.Product(10, 10)
	user, other := []string{"X-User-Id", fmt.Sprint(u)}, []string{"X-User-Id", fmt.Sprint(v)}
	held := s.want(201, nil, "POST", "/order", line(u, p, 1, "later"))
	id, named := held.field("id"), fmt.Sprintf(`{"user_id":%d}`, u)
	var cases []refusal
	for _, payment := range []string{`""`, `"LATER"`, `"never"`, `1`, `true`, `[]`} {
		cases = append(cases, refusal{"POST", "/order", strings.Replace(line(u, p, 1, "X"), `"X"`, payment, 1), 400, "validation_failed", nil})
	}
	cases = append(cases, refusal{"POST", "/order", strings.Replace(line(u, p, 1, "X"), `"X"`, "null", 1), 400, "invalid_json", nil})
	for _, path := range []string{"/order/" + id + "/payment", "/order/" + id + "/cancel"} {
		for body, code := range badBodies {
			cases = append(cases, refusal{"POST", path, strings.ReplaceAll(body, "U", fmt.Sprint(u)), 400, code, user})
		}
		for bad, code := range badIDs {
			cases = append(cases, refusal{"POST", path, `{"user_id":` + bad + `}`, 400, code, user})
		}
		cases = append(cases,
			refusal{"POST", path, "", 400, "validation_failed", nil},
			refusal{"POST", path, `{}`, 400, "validation_failed", nil},
			refusal{"POST", path + "?user_id=", "", 400, "validation_failed", nil},
			refusal{"POST", path + "?user_id=0", "", 400, "validation_failed", nil},
			refusal{"POST", path + "?user_id=1&user_id=1", "", 400, "validation_failed", nil},
			refusal{"POST", path, named, 400, "missing_idempotency_key", []string{"Idempotency-Key", ""}},
			refusal{"POST", path, named, 400, "missing_idempotency_key", []string{"Idempotency-Key", " "}},
			refusal{"POST", path, named, 400, "validation_failed", []string{"Idempotency-Key", strings.Repeat("k", 256)}},
			refusal{"POST", path, named, 400, "validation_failed", []string{"Idempotency-Key", "a\tb"}},
			refusal{"POST", path, named, 415, "unsupported_media_type", []string{"Content-Type", ""}},
			refusal{"POST", path, named, 415, "unsupported_media_type", []string{"Content-Type", "text/plain"}},
			refusal{"POST", path, named, 400, "validation_failed", []string{"X-User-Id", "x"}},
			refusal{"POST", path, named, 400, "validation_failed", []string{"X-User-Id", " "}},
			refusal{"POST", path, named, 403, "forbidden", other},
			refusal{"POST", path, "", 404, "order_not_found", other},
			refusal{"POST", path, `{"x":"` + strings.Repeat("x", 65<<10) + `"}`, 413, "payload_too_large", user},
			refusal{"GET", path, "", 405, "method_not_allowed", user},
		)
		for bad, status := range map[string]int{
			"0": 400, "-1": 400, "x": 400, "01": 400, "%7B1%7D": 400, "1:2": 400, "%201": 400, "9223372036854775808": 400,
			"1": 404, "9223372036854775807": 404, "9007199254740993": 404,
		} {
			code := map[int]string{400: "validation_failed", 404: "order_not_found"}[status]
			cases = append(cases, refusal{"POST", strings.Replace(path, id, bad, 1), named, status, code, nil})
		}
	}
	for _, reason := range []string{`"` + strings.Repeat("r", 201) + `"`, `"a\nb"`, `"a\u007fb"`, `1`, `true`, `["x"]`} {
		cases = append(cases, refusal{"POST", "/order/" + id + "/cancel", `{"reason":` + reason + `}`, 400, "validation_failed", user})
	}
	for _, reason := range []string{`null`, `"\u0000"`, "\"a\nb\""} {
		cases = append(cases, refusal{"POST", "/order/" + id + "/cancel", `{"reason":` + reason + `}`, 400, "invalid_json", user})
	}
	cases = append(cases,
		refusal{"POST", "/order/" + id + "/payment", `{"reason":"x"}`, 400, "validation_failed", user},
		refusal{"POST", "/order/" + id + "/cancel", "", 401, "unauthorized", append([]string{"Authorization", "Bearer wrong"}, user...)},
		refusal{"GET", "/order/" + id, "", 401, "unauthorized", append([]string{"Authorization", "Bearer wrong"}, user...)},
		refusal{"GET", "/order/" + id, "", 404, "order_not_found", other},
		refusal{"GET", "/order/" + id + "?user_id=", "", 400, "validation_failed", user},
		refusal{"POST", "/order/" + id + "/refund", "", 404, "not_found", user},
		refusal{"POST", "/order//payment", "", 404, "not_found", user},
	)
	s.wantRefused(cases)
	if after := s.want(200, nil, "GET", "/order/"+id, "", user...); string(after.body) != string(held.body) {
		t.Errorf("after refusals only the order is %s", after.body)
	}
	s.wantLeft(u, 1000, p, 9)
	s.auditClean()
}

func TestAPI_RefusesBadInputOnCarts(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(1000), s.User(1000), s.Product(10, 10)
	user, other := []string{"X-User-Id", fmt.Sprint(u)}, []string{"X-User-Id", fmt.Sprint(v)}
	before := s.want(200, nil, "POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":2}`, p), user...)
	add := func(field, value string) string {
		body := map[string]string{"user_id": fmt.Sprint(u), "product_id": fmt.Sprint(p), "quantity": "1"}
		body[field] = value
		return fmt.Sprintf(`{"user_id":%s,"product_id":%s,"quantity":%s}`, body["user_id"], body["product_id"], body["quantity"])
	}
	good := add("quantity", "1")
	var cases []refusal
	for bad, code := range badQuantities {
		cases = append(cases, refusal{"POST", "/cart/add", add("quantity", bad), 400, code, nil})
	}
	for bad, code := range badIDs {
		cases = append(cases,
			refusal{"POST", "/cart/add", add("product_id", bad), 400, code, nil},
			refusal{"POST", "/cart/add", add("user_id", bad), 400, code, nil},
			refusal{"POST", "/cart/order", `{"user_id":` + bad + `}`, 400, code, user},
			refusal{"DELETE", "/cart/remove", `{"product_id":` + bad + `}`, 400, code, user},
			refusal{"DELETE", "/cart/remove?product_id=1", `{"user_id":` + bad + `}`, 400, code, user})
	}
	for body, code := range badBodies {
		body = strings.ReplaceAll(body, "U", fmt.Sprint(u))
		cases = append(cases,
			refusal{"POST", "/cart/add", body, 400, code, user},
			refusal{"POST", "/cart/order", body, 400, code, user},
			refusal{"DELETE", "/cart/remove?product_id=1", body, 400, code, user})
	}
	for _, payment := range []string{`""`, `"LATER"`, `1`, `true`, `{}`} {
		cases = append(cases, refusal{"POST", "/cart/order", `{"payment":` + payment + `}`, 400, "validation_failed", user})
	}
	cases = append(cases,
		refusal{"POST", "/cart/add", "", 400, "invalid_json", user},
		refusal{"POST", "/cart/add", fmt.Sprintf(`{"product_id":%d}`, p), 400, "validation_failed", user},
		refusal{"POST", "/cart/add", `{"quantity":1}`, 400, "validation_failed", user},
		refusal{"POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p), 400, "validation_failed", nil},
		refusal{"POST", "/cart/add", strings.TrimSuffix(good, "}") + `,"price":1}`, 400, "validation_failed", nil},
		refusal{"POST", "/cart/add", strings.TrimSuffix(good, "}") + `,"quantity":1}`, 400, "invalid_json", nil},
		refusal{"POST", "/cart/add", add("quantity", "9999"), 400, "validation_failed", nil}, // with the two that it holds
		refusal{"POST", "/cart/add", add("product_id", "99999"), 404, "product_not_found", nil},
		refusal{"POST", "/cart/add", add("product_id", "9007199254740993"), 404, "product_not_found", nil},
		refusal{"POST", "/cart/add", add("user_id", "99999"), 404, "user_not_found", nil},
		refusal{"POST", "/cart/add", add("user_id", "9007199254740993"), 404, "user_not_found", nil},
		refusal{"POST", "/cart/add", good, 403, "forbidden", other},
		refusal{"POST", "/cart/add", good, 400, "validation_failed", []string{"Idempotency-Key", " "}},
		refusal{"POST", "/cart/add", good, 400, "validation_failed", []string{"Idempotency-Key", strings.Repeat("k", 256)}},
		refusal{"POST", "/cart/add", good, 400, "validation_failed", []string{"Idempotency-Key", "a\tb"}},
		refusal{"POST", "/cart/add", good, 415, "unsupported_media_type", []string{"Content-Type", "text/plain"}},
		refusal{"GET", "/cart/add", "", 405, "method_not_allowed", user},

		refusal{"DELETE", "/cart/remove", "", 400, "validation_failed", user},
		refusal{"DELETE", "/cart/remove", "{}", 400, "validation_failed", user},
		refusal{"DELETE", "/cart/remove?product_id=", "", 400, "validation_failed", user},
		refusal{"DELETE", "/cart/remove?product_id=+1", "", 400, "validation_failed", user},
		refusal{"DELETE", "/cart/remove?product_id=1&product_id=1", "", 400, "validation_failed", user},
		refusal{"DELETE", "/cart/remove?product_id=1", `{"product_id":2}`, 400, "validation_failed", user},
		refusal{"DELETE", "/cart/remove?product_id=1&user_id=" + other[1], fmt.Sprintf(`{"user_id":%d}`, u), 400, "validation_failed", nil},
		refusal{"DELETE", "/cart/remove?product_id=1", "", 400, "validation_failed", nil},
		refusal{"DELETE", "/cart/remove?product_id=1&user_id=99999", "", 404, "user_not_found", nil},
		refusal{"DELETE", "/cart/remove", good, 400, "validation_failed", nil}, // quantity is no field of it
		refusal{"DELETE", "/cart/remove", fmt.Sprintf(`{"product_id":%d}`, p), 415, "unsupported_media_type", append([]string{"Content-Type", ""}, user...)},
		refusal{"DELETE", fmt.Sprintf("/cart/remove?product_id=%d&user_id=%d", p, u), "", 403, "forbidden", other},
		refusal{"POST", "/cart/remove", "", 405, "method_not_allowed", user},

		refusal{"GET", "/cart", "", 400, "validation_failed", nil},
		refusal{"GET", "/cart?user_id=", "", 400, "validation_failed", nil},
		refusal{"GET", "/cart?user_id=%7B1%7D", "", 400, "validation_failed", nil},
		refusal{"GET", "/cart?user_id=99999", "", 404, "user_not_found", nil},
		refusal{"GET", "/cart?user_id=9007199254740993", "", 404, "user_not_found", nil},
		refusal{"DELETE", "/cart", "", 405, "method_not_allowed", user},

		refusal{"POST", "/cart/order", `{"payment":null}`, 400, "invalid_json", user},
		refusal{"POST", "/cart/order", "", 400, "validation_failed", nil},
		refusal{"POST", "/cart/order", fmt.Sprintf(`{"user_id":%d,"items":[]}`, u), 400, "validation_failed", nil},
		refusal{"POST", "/cart/order", "", 400, "missing_idempotency_key", append([]string{"Idempotency-Key", ""}, user...)},
		refusal{"POST", "/cart/order", "", 400, "validation_failed", append([]string{"Idempotency-Key", strings.Repeat("k", 256)}, user...)},
		refusal{"POST", "/cart/order", "{}", 415, "unsupported_media_type", append([]string{"Content-Type", "text/plain"}, user...)},
		refusal{"POST", "/cart/order", "", 404, "user_not_found", []string{"X-User-Id", "99999"}},
		refusal{"POST", "/cart/order", "", 409, "cart_empty", other},
		refusal{"POST", "/cart/order", fmt.Sprintf(`{"user_id":%d}`, u), 403, "forbidden", other},
	)
	s.wantRefused(cases)
	if after := s.want(200, nil, "GET", "/cart", "", user...); string(after.body) != string(before.body) {
		t.Errorf("after refusals only the cart is %s", after.body)
	}
	s.wantLeft(u, 1000, p, 10)
	s.auditClean()
}

func TestAPI_RefusesBadInputOnCatalogueAndLists(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(1000), s.User(1000), s.Product(10, 10)
	s.Product(10, 10)
	for range 2 {
		s.want(201, nil, "POST", "/order", line(u, p, 1, "now"))
	}
	s.Written()
	user, product := fmt.Sprintf("user_id=%d", u), fmt.Sprintf("/products/%d", p)
	cursorOf := func(path string) string {
		c := s.want(200, nil, "GET", path, "").field("next_cursor")
		if c == "" {
			t.Fatalf("%s has no next page", path)
		}
		return c
	}
	ofOrders, ofProducts := cursorOf("/orders?limit=1&"+user), cursorOf("/products?limit=1")
	before := s.want(200, nil, "GET", product, "")
	var cases []refusal
	for _, limit := range []string{"", "0", "-1", "+5", "05", "5x", "1.5", "1e1", "%205", "9223372036854775808", "5&limit=5", "201"} {
		cases = append(cases,
			refusal{"GET", "/orders?" + user + "&limit=" + limit, "", 400, "validation_failed", nil},
			refusal{"GET", "/products?limit=" + limit, "", 400, "validation_failed", nil},
			refusal{"GET", "/products/top?limit=" + limit, "", 400, "validation_failed", nil})
	}
	for _, cursor := range []string{"", "%21", "x", "0", "YWZ0ZXI6MQ", ofOrders + "A", ofOrders + "=", ofProducts + "A", "b3JkZXJzOg", "b3JkZXJzOjA", "cHJvZHVjdHM6LTE"} {
		cases = append(cases,
			refusal{"GET", "/orders?" + user + "&cursor=" + cursor, "", 400, "validation_failed", nil},
			refusal{"GET", "/products?cursor=" + cursor, "", 400, "validation_failed", nil})
	}
	for body, code := range map[string]string{
		`{}`: "validation_failed", `{"name":""}`: "validation_failed", `{"name":"  "}`: "validation_failed", `{"name":"a\nb"}`: "validation_failed",
		`{"name":"` + strings.Repeat("n", 201) + `"}`: "validation_failed", `{"name":1}`: "validation_failed",
		`{"price":-1}`: "validation_failed", `{"price":1000000001}`: "validation_failed", `{"price":"1"}`: "validation_failed",
		`{"price":1.5}`: "validation_failed", `{"price":1e3}`: "validation_failed", `{"price":true}`: "validation_failed",
		`{"name":"x","price":-1}`: "validation_failed", `{"name":"","price":1}`: "validation_failed",
		`{"stock":1}`: "validation_failed", `{"name":"x","stock":1}`: "validation_failed", `{"id":1,"price":1}`: "validation_failed",
		`{"Price":1}`: "validation_failed", `{"price":9223372036854775808}`: "validation_failed",
		``: "invalid_json", `[]`: "invalid_json", `{`: "invalid_json", `{"price":null}`: "invalid_json", `{"name":null,"price":1}`: "invalid_json",
		`{"price":1,"price":1}`: "invalid_json", `{"price":1}x`: "invalid_json", `{"price":01}`: "invalid_json",
	} {
		headers := append([]string{"Content-Type", "application/json"}, asAdmin...)
		cases = append(cases, refusal{"PATCH", product, body, 400, code, headers})
	}
	cases = append(cases,
		refusal{"PATCH", product, `{"price":1}`, 401, "unauthorized", nil},
		refusal{"PATCH", product, `{"price":1}`, 401, "unauthorized", []string{"Authorization", "Bearer wrong"}},
		refusal{"PATCH", product, `{"price":1}`, 401, "unauthorized", []string{"X-User-Id", fmt.Sprint(u)}},
		refusal{"PATCH", product, `{"price":1}`, 415, "unsupported_media_type", append([]string{"Content-Type", ""}, asAdmin...)},
		refusal{"PATCH", "/products/99999", `{"price":1}`, 404, "product_not_found", asAdmin},
		refusal{"PATCH", "/products/9007199254740993", `{"price":1}`, 404, "product_not_found", asAdmin},
		refusal{"PATCH", "/products/9223372036854775808", `{"price":1}`, 400, "validation_failed", asAdmin},
		refusal{"PATCH", "/products/0", `{"price":1}`, 400, "validation_failed", asAdmin},
		refusal{"PATCH", "/products/top", `{"price":1}`, 400, "validation_failed", asAdmin},
		refusal{"PATCH", "/products", `{"price":1}`, 405, "method_not_allowed", asAdmin},
		refusal{"DELETE", "/products/top", "", 405, "method_not_allowed", asAdmin},
		refusal{"GET", "/products/top?limit=101", "", 400, "validation_failed", nil},
		refusal{"GET", "/products?cursor=" + ofOrders, "", 400, "validation_failed", nil},
		refusal{"GET", "/orders?" + user + "&cursor=" + ofProducts, "", 400, "validation_failed", nil},
		refusal{"GET", "/orders?" + user + "&cursor=" + ofOrders + "&cursor=" + ofOrders, "", 400, "validation_failed", nil},
		refusal{"GET", "/orders", "", 400, "validation_failed", nil},
		refusal{"GET", "/orders", "", 400, "validation_failed", asAdmin},
		refusal{"GET", "/orders?user_id=", "", 400, "validation_failed", nil},
		refusal{"GET", "/orders?user_id=x", "", 400, "validation_failed", nil},
		refusal{"GET", "/orders?user_id=x", "", 400, "validation_failed", asAdmin},
		refusal{"GET", "/orders?user_id=99999", "", 404, "user_not_found", nil},
		refusal{"GET", "/orders?user_id=99999", "", 404, "user_not_found", asAdmin},
		refusal{"GET", "/orders?user_id=9007199254740993", "", 404, "user_not_found", nil},
		refusal{"GET", "/orders?" + user, "", 403, "forbidden", []string{"X-User-Id", fmt.Sprint(v)}},
		refusal{"GET", "/orders?" + user, "", 401, "unauthorized", []string{"Authorization", "Bearer wrong"}},
		refusal{"POST", "/orders", "", 405, "method_not_allowed", nil},
	)
	s.wantRefused(cases)
	if after := s.want(200, nil, "GET", product, ""); string(after.body) != string(before.body) {
		t.Errorf("after refusals only the product is %s", after.body)
	}
	s.auditClean()
}

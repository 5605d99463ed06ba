package rest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"stampede/cmd/shop"
)

// refusal is a request that must be refused.
type refusal struct {
	method, path, body string
	status             int
	code               string
	headers            []string
}

// wantRefused sends each and wants its status and code, in a body that helps.
func (s *server) wantRefused(cases []refusal) {
	t := s.t
	t.Helper()
	for _, c := range cases {
		a := s.send(c.method, c.path, c.body, c.headers...)
		short := fmt.Sprintf("%s %s %.120q %v", c.method, c.path, c.body, c.headers)
		if a.StatusCode != c.status || a.field("code") != c.code || a.field("status") != fmt.Sprint(c.status) {
			t.Errorf("%.300s: %d %s, want %d %s", short, a.StatusCode, a.body, c.status, c.code)
			continue
		}
		if a.Header.Get("Content-Type") != "application/problem+json" || a.field("title") == "" || a.field("detail") == "" || a.field("type") == "" {
			t.Errorf("%.300s: no problem to act on: %v %s", short, a.Header, a.body)
		}
		if a.StatusCode == http.StatusMethodNotAllowed && a.Header.Get("Allow") == "" {
			t.Errorf("%.300s: Allow is empty", short)
		}
		if a.Header.Get("Server") != "" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%.300s: headers %v", short, a.Header)
		}
	}
}

// Every refusal: the status and code of the contract, a body that helps, and nothing changed.
func TestAPI_RefusesBadInput(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := fmt.Sprint(s.User(1000)), fmt.Sprint(s.User(1000)), fmt.Sprint(s.Product(10, 10))
	line := func(quantity string) string {
		return `{"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":` + quantity + `}]}`
	}
	var cases []refusal
	for _, quantity := range []string{
		"0", "-1", "1.5", "1e3", `"1"`, "null", "true", "9223372036854775808", "9007199254740993", "10001", "[1]", "{}", "01", "+1", "1.0",
	} {
		code := "validation_failed"
		if quantity == "null" || quantity == "01" || quantity == "+1" {
			code = "invalid_json"
		}
		cases = append(cases, refusal{"POST", "/order", line(quantity), 400, code, nil})
		amount := strings.Replace(quantity, "10001", "100000000000001", 1)
		if amount != "9007199254740993" {
			cases = append(cases, refusal{"POST", "/balance/charge", `{"user_id":` + u + `,"amount":` + amount + `}`, 400, code, nil})
		}
	}
	for _, body := range []string{
		``, `{`, `[]`, `null`, `"x"`, `1`, line("1") + `x`, line("1") + line("1"),
		`{"user_id":` + u + `,"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":1,"quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":1,"quantit\u0079":1}]}`,
		`{"user_id":` + u + `,"items":null}`,
		strings.Repeat("[", 10_000), `{"items":` + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + `}`,
		`{"user_id":"` + "\xff" + `"}`, `{"user_id":"\u0000"}`, `{"user_id":"\ud800"}`, `{"user_id":"\udc00x"}`,
	} {
		cases = append(cases, refusal{"POST", "/order", body, 400, "invalid_json", nil})
	}
	for _, body := range []string{
		`{"user_id":` + u + `,"items":[]}`, `{"user_id":` + u + `}`,
		`{"User_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":1,"price":1}]}`,
		`{"user_id":` + u + `,"status":"SUCCESS","items":[{"product_id":` + p + `,"quantity":1}]}`,
		`{"user_id":` + u + `,"payment":"never","items":[{"product_id":` + p + `,"quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":"{` + p + `}","quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":"` + p + `:1","quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":" ` + p + `","quantity":1}]}`,
		`{"user_id":"-1","items":[{"product_id":` + p + `,"quantity":1}]}`,
		`{"user_id":9223372036854775808,"items":[{"product_id":` + p + `,"quantity":1}]}`,
		`{"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":6000},{"product_id":` + p + `,"quantity":6000}]}`,
		`{"items":[{"product_id":` + p + `,"quantity":1}]}`,
	} {
		cases = append(cases, refusal{"POST", "/order", body, 400, "validation_failed", nil})
	}
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf(`{"product_id":%d,"quantity":1}`, i+1)
	}
	cases = append(cases,
		refusal{"POST", "/order", `{"user_id":` + u + `,"items":[` + strings.Join(many, ",") + `]}`, 400, "validation_failed", nil},
		refusal{"POST", "/order", line("1"), 400, "missing_idempotency_key", []string{"Idempotency-Key", ""}},
		refusal{"POST", "/order", line("1"), 400, "validation_failed", []string{"Idempotency-Key", strings.Repeat("k", 256)}},
		refusal{"POST", "/order", line("1"), 400, "validation_failed", []string{"Idempotency-Key", "a\tb"}},
		refusal{"POST", "/order", line("1"), 415, "unsupported_media_type", []string{"Content-Type", "text/plain"}},
		refusal{"POST", "/order", line("1"), 415, "unsupported_media_type", []string{"Content-Type", ""}},
		refusal{"POST", "/order", line("1"), 403, "forbidden", []string{"X-User-Id", v}},
		refusal{"POST", "/balance/charge", `{"user_id":` + u + `,"amount":1}`, 403, "forbidden", []string{"X-User-Id", v}},
		refusal{"POST", "/order", `{"user_id":99999,"items":[{"product_id":` + p + `,"quantity":1}]}`, 404, "user_not_found", nil},
		refusal{"POST", "/order", `{"user_id":9007199254740993,"items":[{"product_id":` + p + `,"quantity":1}]}`, 404, "user_not_found", nil},
		refusal{"POST", "/order", `{"user_id":` + u + `,"items":[{"product_id":99999,"quantity":1}]}`, 404, "product_not_found", nil},
		refusal{"POST", "/order", `{"user_id":` + u + `,"items":[{"product_id":9007199254740993,"quantity":1}]}`, 404, "product_not_found", nil},
		refusal{"POST", "/order", `{"x":"` + strings.Repeat("x", 65<<10) + `"}`, 413, "payload_too_large", nil},
		refusal{"GET", "/healthz", "", 431, "headers_too_large", []string{"X-Filler", strings.Repeat("x", 9<<10)}},
		refusal{"POST", "/balance/charge", `{"user_id":` + u + `,"amount":100000000000000}`, 409, "balance_limit", nil},
		refusal{"POST", "/users", `{"name":"x","email":"x@example.com"}`, 401, "unauthorized", nil},
		refusal{"POST", "/users", `{"name":"x","email":"x@example.com"}`, 401, "unauthorized", []string{"Authorization", "Bearer wrong"}},
		refusal{"POST", "/users", `{"name":"","email":"x@example.com"}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/users", `{"name":"x","email":"nobody"}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/users", `{"name":"` + strings.Repeat("n", 201) + `","email":"x@example.com"}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/users", `{"name":"x","email":"x@example.com","balance":5}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/products", `{"name":"x","price":-1,"stock":1}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/products", `{"name":"x","price":1}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/products", `{"name":"x","price":1000000001,"stock":1}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/products/" + p + "/stock", `{"delta":0,"reason":"x"}`, 400, "validation_failed", asAdmin},
		refusal{"POST", "/products/" + p + "/stock", `{"delta":1,"reason":"x"}`, 401, "unauthorized", nil},
		refusal{"POST", "/products/99999/stock", `{"delta":1,"reason":"x"}`, 404, "product_not_found", asAdmin},
		refusal{"POST", "/products/" + p + "/stock", `{"delta":1000000000,"reason":"x"}`, 400, "validation_failed", asAdmin},
		refusal{"GET", "/products/99999", "", 404, "product_not_found", nil},
		refusal{"GET", "/products/%7B1%7D", "", 400, "validation_failed", nil},
		refusal{"GET", "/products?limit=0", "", 400, "validation_failed", nil},
		refusal{"GET", "/products?limit=201", "", 400, "validation_failed", nil},
		refusal{"GET", "/products?limit=", "", 400, "validation_failed", nil},
		refusal{"GET", "/products?cursor=%21", "", 400, "validation_failed", nil},
		refusal{"GET", "/balance?user_id=99999", "", 404, "user_not_found", nil},
		refusal{"GET", "/balance", "", 400, "validation_failed", nil},
		refusal{"GET", "/balance?user_id=" + u, "", 403, "forbidden", []string{"X-User-Id", v}},
		refusal{"GET", "/users/" + u, "", 403, "forbidden", []string{"X-User-Id", v}},
		refusal{"GET", "/users/" + u, "", 401, "unauthorized", []string{"Authorization", "Bearer wrong"}},
		refusal{"GET", "/order/1?user_id=" + u, "", 404, "order_not_found", nil},
		refusal{"GET", "/order/x?user_id=" + u, "", 400, "validation_failed", nil},
		refusal{"GET", "/nowhere", "", 404, "not_found", nil},
		refusal{"GET", "/order/", "", 404, "not_found", nil},
		refusal{"DELETE", "/order", "", 405, "method_not_allowed", nil},
	)
	s.wantRefused(cases)
	for _, user := range []string{u, v} {
		if b := s.send("GET", "/balance?user_id="+user, "").field("balance"); b != "1000" {
			t.Errorf("the balance of %s is %s after refusals only", user, b)
		}
	}
	s.auditClean()
}

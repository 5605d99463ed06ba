package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"stampede/cmd/shop"
)

// Every route, asked by everybody: who acts is whom the credential names.
func TestAPI_WhoMayDoWhat(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(100_000), s.User(100_000), s.Product(10, 1000)
	held := func() string { return s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 1, "later")).ID }
	actors := []struct {
		name    string
		headers []string
	}{
		{"nobody", nil},
		{"another buyer", []string{"X-User-Id", fmt.Sprint(v)}},
		{"the buyer", []string{"X-User-Id", fmt.Sprint(u)}},
		{"the admin", asAdmin},
		{"the buyer with a wrong token", []string{"X-User-Id", fmt.Sprint(u), "Authorization", "Bearer wrong"}},
		{"the buyer with no Bearer", []string{"X-User-Id", fmt.Sprint(u), "Authorization", "Basic YTpi"}},
	}
	// Expected are the statuses of the actors in their order. ORDER in a path stands for a held order of the buyer, EMAIL
	// in a body for a fresh one, USER and PRODUCT for the ids.
	for _, c := range []struct {
		method, path, body string
		want               [6]int
	}{
		{"POST", "/users", `{"name":"x","email":"EMAIL"}`, [6]int{401, 401, 401, 201, 401, 401}},
		{"GET", "/users/USER", "", [6]int{400, 403, 200, 200, 401, 401}},
		{"POST", "/balance/charge", `{"amount":1}`, [6]int{400, 200, 200, 400, 200, 200}},
		{"GET", "/balance", "", [6]int{400, 200, 200, 400, 200, 200}},
		{"POST", "/products", `{"name":"x","price":1,"stock":1}`, [6]int{401, 401, 401, 201, 401, 401}},
		{"PATCH", "/products/PRODUCT", `{"price":11}`, [6]int{401, 401, 401, 200, 401, 401}},
		{"POST", "/products/PRODUCT/stock", `{"delta":1,"reason":"x"}`, [6]int{401, 401, 401, 200, 401, 401}},
		{"GET", "/products", "", [6]int{200, 200, 200, 200, 200, 200}},
		{"GET", "/products/PRODUCT", "", [6]int{200, 200, 200, 200, 200, 200}},
		{"GET", "/products/top", "", [6]int{200, 200, 200, 200, 200, 200}},
		{"POST", "/order", `{"items":[{"product_id":PRODUCT,"quantity":1}]}`, [6]int{400, 201, 201, 400, 201, 201}},
		{"GET", "/order/ORDER", "", [6]int{400, 404, 200, 200, 401, 401}},
		{"POST", "/order/ORDER/payment", "", [6]int{400, 404, 200, 400, 200, 200}},
		{"POST", "/order/ORDER/cancel", "", [6]int{400, 404, 200, 200, 401, 401}},
		{"GET", "/orders", "", [6]int{400, 200, 200, 400, 401, 401}},
		{"POST", "/cart/add", `{"product_id":PRODUCT,"quantity":1}`, [6]int{400, 200, 200, 400, 200, 200}},
		{"GET", "/cart", "", [6]int{400, 200, 200, 400, 200, 200}},
		{"POST", "/cart/order", "", [6]int{400, 201, 201, 400, 409, 409}}, // the buyer has bought it before
		{"DELETE", "/cart/remove?product_id=PRODUCT", "", [6]int{400, 200, 200, 400, 200, 200}},
	} {
		for i, actor := range actors {
			order := ""
			if strings.Contains(c.path, "ORDER") {
				order = held()
			}
			path := strings.NewReplacer("USER", fmt.Sprint(u), "PRODUCT", fmt.Sprint(p), "ORDER", order).Replace(c.path)
			body := strings.NewReplacer("PRODUCT", fmt.Sprint(p), "EMAIL", freshKey()+"@example.com").Replace(c.body)
			if a := s.send(c.method, path, body, actor.headers...); a.StatusCode != c.want[i] {
				t.Errorf("%s %s by %s: %d %s, want %d", c.method, path, actor.name, a.StatusCode, a.body, c.want[i])
			} else if challenge := a.Header.Get("WWW-Authenticate"); (a.StatusCode == 401) != (challenge == "Bearer") {
				t.Errorf("%s %s by %s: %d with the challenge %q", c.method, path, actor.name, a.StatusCode, challenge)
			}
		}
	}
	s.auditClean()
}

// Two names in one request: the header and the request must say the same, wherever the request says it.
func TestAPI_ContradictingNamesAreRefused(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(1000), s.User(1000), s.Product(10, 100)
	held := s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 1, "later")).ID
	user, product := fmt.Sprintf(`"user_id":%d`, u), fmt.Sprintf(`"product_id":%d,"quantity":1`, p)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/balance/charge", `{USER,"amount":1}`},
		{"GET", "/balance?QUERY", ""},
		{"GET", "/users/1?QUERY", ""},
		{"POST", "/order", `{USER,"items":[{` + product + `}]}`},
		{"POST", "/order?QUERY", `{"items":[{` + product + `}]}`},
		{"GET", "/order/" + held + "?QUERY", ""},
		{"POST", "/order/" + held + "/payment", `{USER}`},
		{"POST", "/order/" + held + "/payment?QUERY", ""},
		{"POST", "/order/" + held + "/cancel", `{USER}`},
		{"POST", "/order/" + held + "/cancel?QUERY", ""},
		{"GET", "/orders?QUERY", ""},
		{"POST", "/cart/add", `{USER,` + product + `}`},
		{"GET", "/cart?QUERY", ""},
		{"POST", "/cart/order", `{USER}`},
		{"DELETE", "/cart/remove?product_id=1", `{USER}`},
		{"DELETE", "/cart/remove?product_id=1&QUERY", ""},
	} {
		path := strings.Replace(c.path, "QUERY", fmt.Sprintf("user_id=%d", u), 1)
		body := strings.Replace(c.body, "USER", user, 1)
		for _, headers := range [][]string{{"X-User-Id", fmt.Sprint(v)}, append([]string{"X-User-Id", fmt.Sprint(v)}, asAdmin...)} {
			if strings.HasPrefix(path, "/users/") && len(headers) > 2 {
				continue // an admin names the user in the path
			}
			if a := s.send(c.method, path, body, headers...); a.StatusCode != 403 || a.field("code") != "forbidden" {
				t.Errorf("%s %s %s %v: %d %s", c.method, path, body, headers, a.StatusCode, a.body)
			}
		}
		if strings.Contains(path, "?user_id") && c.method == "POST" {
			body = fmt.Sprintf(`{"user_id":%d}`, v)
			if strings.HasPrefix(path, "/order?") {
				body = line(v, p, 1, "now")
			}
			if a := s.send(c.method, path, body); a.StatusCode != 400 || a.field("code") != "validation_failed" {
				t.Errorf("%s %s %s: %d %s", c.method, path, body, a.StatusCode, a.body)
			}
		}
	}
	s.wantOrder(200, "PENDING", "GET", "/order/"+held, "", asAdmin...)
	s.wantLeft(u, 1000, p, 99)
	s.wantLeft(v, 1000, p, 99)
	s.auditClean()
}

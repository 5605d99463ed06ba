package rest_test

import (
	"fmt"
	"slices"
	"strings"
)

// badPaths are paths that are none, and methods that a path does not take.
func (b *battery) badPaths() {
	var rows []row
	for _, path := range []string{
		"/", "/nowhere", "/" + mark, "//order", "/order/", "/ORDER", "/Order", "/order//", "/./order", "/x/../order", "/order/../order", "/order/%2e%2e/x",
		"/%2e%2e/order", "/order%00", "/order%2f", "/order%2fx", "/%6frder", "/order;x=1", "/order.json", "/order%20", "/order%zz", "/order%", "/\xffrder", "/order\xff",
		"/products/", "/products//", "/products/1/", "/products/1/stock/", "/products/1/price", "/users", "/users/", "/balance/", "/balance/charge/", "/cart/", "/cart/add/",
		"/cart/nothing", "/orders/", "/orders/batch/", "/order//payment", "/order//cancel", "/order/1/refund", "/order/1/payment/", "/order/1/2/payment", "/healthz/",
		"/metrics/x", "/.env", "/debug/pprof/", "/favicon.ico", "/admin", "/..", "/.", "/~", "/*", "/{id}", "/http://shop/order", "/" + strings.Repeat("a", 7000),
		"/" + strings.Repeat("a/", 3000),
	} {
		for _, method := range []string{"GET", "POST", "PATCH", "DELETE", "PUT", "HEAD", "OPTIONS", "TRACE"} {
			if path == "/users" && method != "GET" {
				continue
			}
			r := row{call(method, path, ""), 404, "not_found", "nothing at this path"}
			if path == "/users" {
				r = row{r.request, 405, "method_not_allowed", "Allow"}
			}
			rows = append(rows, r)
		}
	}
	b.refused(append(rows,
		row{call("OPTIONS", "*", ""), 404, "not_found", "nothing at this path"},
		row{call("CONNECT", "shop:80", ""), 404, "not_found", "nothing at this path"},
		row{call("GET", "http://shop", ""), 404, "not_found", "nothing at this path"},
		row{call("GET", "http://shop/nowhere", ""), 404, "not_found", "nothing at this path"})...)
	b.badMethods()
}

// badMethods are all that a path does not take. Allow names those that it does.
func (b *battery) badMethods() {
	methods := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "QUERY", "PROPFIND", "LINK", "get", "Post", "X", "*", strings.Repeat("M", 1000)}
	id := fmt.Sprint(b.product)
	for path, allow := range map[string]string{
		"/users": "POST", "/users/1": "GET, HEAD", "/balance/charge": "POST", "/balance": "GET, HEAD", "/products": "GET, HEAD, POST", "/products/top": "GET, HEAD",
		"/products/" + id: "GET, HEAD, PATCH", "/products/" + id + "/stock": "POST", "/order": "POST", "/order/" + b.held: "GET, HEAD",
		"/order/" + b.held + "/payment": "POST", "/order/" + b.held + "/cancel": "POST", "/orders": "GET, HEAD", "/cart/add": "POST", "/cart/remove": "DELETE",
		"/cart": "GET, HEAD", "/cart/order": "POST", "/healthz": "GET, HEAD", "/readyz": "GET, HEAD", "/metrics": "GET, HEAD",
	} {
		takes := strings.Split(allow, ", ")
		conn := b.dial()
		for _, method := range methods {
			if slices.Contains(takes, method) {
				continue
			}
			r := row{call(method, path, "", "Authorization: Bearer "+adminToken), 405, "method_not_allowed", "Allow"}
			if _, err := conn.Write([]byte(r.request)); err != nil {
				b.t.Fatal(err)
			}
			a, err := conn.answer(method)
			if err != nil {
				b.t.Fatalf("%.200q: %v", r.request, err)
			}
			b.wantProblem(r, a)
			if named := strings.Split(a.headers["allow"], ", "); !slices.Equal(slices.Sorted(slices.Values(named)), takes) {
				b.t.Errorf("%s %s: Allow is %q, want %q", method, path, named, takes)
			}
			b.wantFit(conn, r.request)
		}
		_ = conn.Close()
	}
}

// badLists are limits and cursors of no list.
func (b *battery) badLists() {
	user := fmt.Sprintf("user_id=%d", b.buyer)
	var rows []row
	for path, most := range map[string]string{"/orders?" + user + "&": "200", "/products?": "200", "/products/top?": "100"} {
		for _, limit := range []string{
			"", "0", "-1", "-0", "+5", "%2B5", "05", "5x", "x", "1.5", "1e1", "0x5", "%205", "5%20", "5%00", "201", "1000000", "9223372036854775808",
			strings.Repeat("9", 400), "5&limit=5", "5&limit=", mark, "{5}", "%zz", "\u0665",
		} {
			if limit == "201" || limit == "1000000" || limit == "0" {
				rows = append(rows, row{call("GET", path+"limit="+limit, ""), 400, "validation_failed", "limit must be 1 to " + most})
			} else {
				rows = append(rows, row{call("GET", path+"limit="+limit, ""), 400, "validation_failed", "limit"})
			}
		}
	}
	rows = append(rows, row{call("GET", "/products/top?limit=101", ""), 400, "validation_failed", "limit must be 1 to 100"})
	next := b.want(200, nil, "GET", "/products?limit=1", "").field("next_cursor")
	ofOrders := b.want(200, nil, "GET", "/orders?limit=1&"+user, "").field("next_cursor")
	for _, path := range []string{"/orders?" + user + "&", "/products?"} {
		for _, cursor := range []string{
			"", "%21", "x", "0", mark, "YWZ0ZXI6MQ", "b3JkZXJzOg", "b3JkZXJzOjA", "cHJvZHVjdHM6LTE", "cHJvZHVjdHM6MDE", next + "A", next + "=", next + "%00", " " + next,
			next + "&cursor=" + next, strings.ToUpper(next), strings.Repeat("A", 6000), "../../etc/passwd", "%7B1%7D",
		} {
			rows = append(rows, row{call("GET", path+"cursor="+strings.ReplaceAll(cursor, " ", "+"), ""), 400, "validation_failed", "cursor"})
		}
	}
	const ofAnother = "cursor is not one that this list returned"
	b.refused(append(rows,
		row{call("GET", "/orders?"+user+"&cursor="+next, ""), 400, "validation_failed", ofAnother},
		row{call("GET", "/products?cursor="+ofOrders, ""), 400, "validation_failed", ofAnother})...)
}

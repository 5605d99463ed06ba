package rest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
)

func TestAPI_WalkThroughTheContract(t *testing.T) {
	s := start(t, shop.Config{})
	expect := func(a answer, status int, fields ...string) answer {
		t.Helper()
		if a.StatusCode != status {
			t.Fatalf("%s %s: %d %s, want %d", a.Request.Method, a.Request.URL, a.StatusCode, a.body, status)
		}
		for i := 0; i < len(fields); i += 2 {
			if got := a.field(fields[i]); got != fields[i+1] {
				t.Errorf("%s %s: %s is %q, want %q: %s", a.Request.Method, a.Request.URL, fields[i], got, fields[i+1], a.body)
			}
		}
		return a
	}
	user := expect(s.send("POST", "/users", `{"name":"Ada","email":"Ada@example.com"}`, asAdmin...), 201,
		"name", "Ada", "email", "Ada@example.com", "balance", "0").field("id")
	expect(s.send("POST", "/users", `{"name":"Eve","email":"aDA@example.com"}`, asAdmin...), 409, "code", "email_taken")
	expect(s.send("POST", "/balance/charge", `{"user_id":`+user+`,"amount":1000}`), 200, "user_id", user, "balance", "1000", "amount", "1000")
	expect(s.send("GET", "/balance?user_id="+user, ""), 200, "user_id", user, "balance", "1000")
	expect(s.send("GET", "/balance", "", "X-User-Id", user), 200, "balance", "1000")
	expect(s.send("GET", "/users/"+user, "", asAdmin...), 200, "name", "Ada", "balance", "1000")
	expect(s.send("GET", "/users/"+user, "", "X-User-Id", user), 200, "id", user)
	product := expect(s.send("POST", "/products", `{"name":"Lamp","price":300,"stock":3}`, asAdmin...), 201,
		"name", "Lamp", "price", "300", "stock", "3").field("id")
	expect(s.send("GET", "/products/"+product, ""), 200, "id", product, "price", "300", "stock", "3")
	expect(s.send("POST", "/products/"+product+"/stock", `{"delta":2,"reason":"delivery"}`, asAdmin...), 200, "product_id", product, "stock", "5")
	expect(s.send("POST", "/products/"+product+"/stock", `{"delta":-6,"reason":"broken"}`, asAdmin...), 409, "code", "out_of_stock", "left", "5", "product_id", product)

	body := `{"user_id":"` + user + `","items":[{"product_id":` + product + `,"quantity":1},{"product_id":"` + product + `","quantity":1}],"payment":"now"}`
	key := freshKey()
	order := expect(s.send("POST", "/order", body, "Idempotency-Key", key), 201, "user_id", user, "status", "SUCCESS", "total_price", "600")
	var shape struct {
		Items []struct {
			ProductID string `json:"product_id"`
			Quantity  int64
			Price     int64
		}
		History   []struct{ Status, At string }
		CreatedAt string `json:"created_at"`
	}
	if err := json.Unmarshal(order.body, &shape); err != nil {
		t.Fatal(err)
	}
	if len(shape.Items) != 1 || shape.Items[0].ProductID != product || shape.Items[0].Quantity != 2 || shape.Items[0].Price != 300 {
		t.Errorf("equal lines are not merged: %s", order.body)
	}
	if len(shape.History) != 2 || shape.History[0].Status != "PENDING" || shape.History[1].Status != "SUCCESS" {
		t.Errorf("the history is %s", order.body)
	}
	if _, err := time.Parse(time.RFC3339, shape.CreatedAt); err != nil || !strings.HasSuffix(shape.CreatedAt, "Z") {
		t.Errorf("created_at is %q", shape.CreatedAt)
	}
	again := expect(s.send("POST", "/order", body, "Idempotency-Key", key), 201)
	if string(again.body) != string(order.body) || again.Header.Get("Idempotent-Replayed") != "true" || order.Header.Get("Idempotent-Replayed") != "" {
		t.Errorf("the replay is %s (%v), it was %s", again.body, again.Header, order.body)
	}
	expect(s.send("POST", "/order", strings.Replace(body, `"quantity":1`, `"quantity":2`, 1), "Idempotency-Key", key), 422, "code", "idempotency_key_reused")
	expect(s.send("POST", "/balance/charge", `{"user_id":`+user+`,"amount":1}`, "Idempotency-Key", key), 422)
	expect(s.send("POST", "/order", `{"user_id":`+user+`,"items":[{"product_id":`+product+`,"quantity":2}]}`), 402, "code", "insufficient_balance")
	expect(s.send("POST", "/order", `{"user_id":`+user+`,"items":[{"product_id":`+product+`,"quantity":4}]}`), 409, "code", "out_of_stock", "left", "3")
	expect(s.send("GET", "/order/"+order.field("id")+"?user_id="+user, ""), 200, "status", "SUCCESS")
	expect(s.send("GET", "/order/"+order.field("id"), "", asAdmin...), 200, "id", order.field("id"))
	expect(s.send("GET", "/order/"+order.field("id"), "", "X-User-Id", "999"), 404, "code", "order_not_found")
	expect(s.send("GET", "/healthz", ""), 200)
	s.Written()
	expect(s.send("GET", "/readyz", ""), 200, "writer_lag_events", "0")
	if a := s.send("GET", "/metrics", ""); a.StatusCode != 200 || !strings.Contains(string(a.body), `stampede_http_requests_total{route="POST /order",status="201"} 2`) {
		t.Errorf("metrics: %d %s", a.StatusCode, a.body)
	}
	s.auditClean()
}

func TestAPI_ListsProductsByCursor(t *testing.T) {
	s := start(t, shop.Config{})
	for n := range 7 {
		s.Product(int64(n), 10)
	}
	var got []string
	for path := "/products?limit=3"; path != ""; {
		a := s.send("GET", path, "")
		var list struct {
			Items []struct {
				ID    string
				Stock int64
			}
			NextCursor *string `json:"next_cursor"`
		}
		if err := json.Unmarshal(a.body, &list); err != nil {
			t.Fatal(err)
		}
		for _, p := range list.Items {
			got = append(got, p.ID)
		}
		path = ""
		if list.NextCursor != nil {
			path = "/products?limit=3&cursor=" + *list.NextCursor
		}
	}
	if fmt.Sprint(got) != "[1 2 3 4 5 6 7]" {
		t.Errorf("the pages hold %v", got)
	}
}

// Every refusal: the status and code of the contract, a body that helps, and nothing changed.
func TestAPI_RefusesBadInput(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := fmt.Sprint(s.User(1000)), fmt.Sprint(s.User(1000)), fmt.Sprint(s.Product(10, 10))
	line := func(quantity string) string {
		return `{"user_id":` + u + `,"items":[{"product_id":` + p + `,"quantity":` + quantity + `}]}`
	}
	type refusal struct {
		method, path, body string
		status             int
		code               string
		headers            []string
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
		if a.StatusCode == http.StatusMethodNotAllowed && !strings.Contains(a.Header.Get("Allow"), "POST") {
			t.Errorf("%.300s: Allow is %q", short, a.Header.Get("Allow"))
		}
		if a.Header.Get("Server") != "" || a.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%.300s: headers %v", short, a.Header)
		}
	}
	for _, user := range []string{u, v} {
		if b := s.send("GET", "/balance?user_id="+user, "").field("balance"); b != "1000" {
			t.Errorf("the balance of %s is %s after refusals only", user, b)
		}
	}
	s.auditClean()
}

func TestAPI_MalformedHTTPIsRefusedAndClosed(t *testing.T) {
	s := start(t, shop.Config{})
	for name, raw := range map[string]string{
		"Content-Length with Transfer-Encoding": "POST /order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two Content-Lengths":                   "POST /order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"no request line":                       "\x16\x03\x01\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write([]byte(raw)); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body := make([]byte, resp.ContentLength)
		_, _ = r.Read(body)
		if resp.StatusCode != 400 || !resp.Close {
			t.Errorf("%s: %d, closing %v: %s", name, resp.StatusCode, resp.Close, body)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("%s: the connection stays open", name)
		}
		_ = conn.Close()
	}
}

func TestAPI_OneKeyAHundredTimesIsOneOrder(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := fmt.Sprint(s.User(1000)), fmt.Sprint(s.Product(10, 10))
	body, key := `{"user_id":`+u+`,"items":[{"product_id":`+p+`,"quantity":1}]}`, freshKey()
	bodies := make([]string, 100)
	var all sync.WaitGroup
	for i := range bodies {
		all.Go(func() {
			a := s.send("POST", "/order", body, "Idempotency-Key", key)
			bodies[i] = fmt.Sprint(a.StatusCode) + string(a.body)
		})
	}
	all.Wait()
	for _, b := range bodies {
		if b != bodies[0] || !strings.HasPrefix(b, "201") {
			t.Fatalf("one answer is %s, another %s", b, bodies[0])
		}
	}
	if left := s.send("GET", "/products/"+p, "").field("stock"); left != "9" {
		t.Errorf("%s units are left", left)
	}
	s.auditClean()
}

func TestAPI_OrderFromAnotherPartitionClaimsNothing(t *testing.T) {
	s := start(t, shop.Config{Partitions: 4})
	statuses := map[int]int{}
	p := s.Product(10, 1000)
	for range 12 {
		u := s.User(1000)
		a := s.send("POST", "/order", fmt.Sprintf(`{"user_id":%d,"items":[{"product_id":%d,"quantity":1}]}`, u, p))
		statuses[a.StatusCode]++
		home := s.Engine.Keys().Home(p) == s.Engine.Keys().OfUser(u)
		if home != (a.StatusCode == 201) || (!home && a.StatusCode != 503) {
			t.Errorf("home %v: %d %s", home, a.StatusCode, a.body)
		}
	}
	if statuses[201] == 0 || statuses[503] == 0 {
		t.Errorf("the statuses are %v", statuses)
	}
	s.auditClean()
}

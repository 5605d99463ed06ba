package rest_test

import (
	"encoding/json"
	"strings"
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

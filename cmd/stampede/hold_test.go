package main

import (
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

// heldOrder is what the test needs of an order.
type heldOrder struct {
	ID        string
	Status    string
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
}

func TestUp_HoldAndRefundWindowReachTheShop(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := launch(t, "STAMPEDE_HOLD=1h", "STAMPEDE_REFUND_WINDOW=0s", "up", "--addr", "127.0.0.1:0", "--data-dir", dir, "--hold", "2s").ready("")
	s.token = env(t, dir).adminToken
	bought := s.buy("hold@example.com")
	var held heldOrder
	items := []map[string]any{{"product_id": bought.product, "quantity": 3}}
	if status := s.call("POST", "/order", "held", map[string]any{"user_id": bought.user, "items": items, "payment": "later"}, &held); status != 201 {
		t.Fatalf("POST /order: %d", status)
	}
	if held.Status != "PENDING" || held.ExpiresAt.Sub(held.CreatedAt) != 2*time.Second {
		t.Errorf("held is %+v", held)
	}
	for deadline := time.Now().Add(patience); held.Status == "PENDING"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never expires")
		}
		s.call("GET", "/order/"+held.ID, "", nil, &held)
	}
	if held.Status != "EXPIRED" {
		t.Errorf("held is %+v", held)
	}
	s.wantKept(bought) // its stock, 3 units, is back

	// With a window of 0 a buyer gets nothing back; an admin may do it any time. The helper asks as an admin, so the
	// buyer's request is made without it.
	asBuyer := &server{program: s.program, url: s.url}
	if status := asBuyer.cancel(bought); status != 409 {
		t.Errorf("a buyer's refund after the window: %d, want 409", status)
	}
	if status := s.cancel(bought); status != 200 {
		t.Errorf("an admin's refund: %d, want 200", status)
	}
	s.stop()
}

// cancel asks for an order back: as an admin where the server's token is known, else as its buyer.
func (s *server) cancel(p purchase) int {
	s.t.Helper()
	return s.call("POST", "/order/"+p.order+"/cancel", "cancel", map[string]any{"user_id": p.user}, nil)
}

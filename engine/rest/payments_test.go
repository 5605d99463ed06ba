package rest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
)

func TestAPI_HeldOrderIsPaidAndRefunded(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(300, 3)
	user := fmt.Sprint(u)
	held := s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 2, "later"))
	if hold := held.ExpiresAt.Sub(held.CreatedAt); hold != 5*time.Minute {
		t.Errorf("it is held for %s", hold)
	}
	s.wantLeft(u, 1000, p, 1)
	s.want(409, with("code", "out_of_stock", "left", "1"), "POST", "/order", line(u, p, 2, "later"))
	path := "/order/" + held.ID
	s.wantOrder(200, "PENDING", "GET", path+"?user_id="+user, "")

	paid := s.wantOrder(200, "PENDING SUCCESS", "POST", path+"/payment", `{"user_id":`+user+`}`)
	if paid.ID != held.ID || paid.TotalPrice != 600 || !paid.CreatedAt.Equal(held.CreatedAt) {
		t.Errorf("paid is %+v, held was %+v", paid, held)
	}
	s.wantLeft(u, 400, p, 1)
	s.want(409, with("code", "order_not_payable", "order_status", "SUCCESS"), "POST", path+"/payment", `{"user_id":`+user+`}`)

	refunded := s.wantOrder(200, "PENDING SUCCESS REFUNDED", "POST", path+"/cancel", `{"user_id":"`+user+`","reason":"zu groß 🎈"}`)
	if reason := refunded.History[2].Reason; reason != "zu groß 🎈" {
		t.Errorf("the reason is %q", reason)
	}
	s.wantLeft(u, 1000, p, 3)
	s.want(409, with("code", "order_not_cancelable", "order_status", "REFUNDED"), "POST", path+"/cancel", "", "X-User-Id", user)
	s.want(409, with("code", "order_not_payable", "order_status", "REFUNDED"), "POST", path+"/payment", "", "X-User-Id", user)
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "GET", path, "", asAdmin...)
	s.auditClean()
}

func TestAPI_HeldOrderIsCancelledOrFails(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(300, 3)
	user := fmt.Sprint(u)
	bare := []string{"X-User-Id", user, "Content-Type", ""} // no body, no type

	held := s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 3, "later"))
	s.wantOrder(200, "PENDING CANCELED", "POST", "/order/"+held.ID+"/cancel", "", bare...)
	s.wantLeft(u, 1000, p, 3)
	s.want(409, with("code", "order_not_payable", "order_status", "CANCELED"), "POST", "/order/"+held.ID+"/payment", "", bare...)
	s.want(409, with("code", "order_not_cancelable", "order_status", "CANCELED"), "POST", "/order/"+held.ID+"/cancel", "", bare...)

	dear := s.Product(600, 5)
	held = s.wantOrder(201, "PENDING", "POST", "/order", line(u, dear, 2, "later"))
	s.wantLeft(u, 1000, dear, 3)
	refused := s.want(402, with("code", "insufficient_balance", "balance", "1000", "status", "402"), "POST", "/order/"+held.ID+"/payment", "", bare...)
	var problem struct{ Order json.RawMessage }
	if err := json.Unmarshal(refused.body, &problem); err != nil {
		t.Fatal(err)
	}
	failed := s.orderOf(problem.Order)
	if failed.steps() != "PENDING FAILED" || failed.ID != held.ID || refused.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("the problem is %v %s", refused.Header, refused.body)
	}
	s.wantLeft(u, 1000, dear, 5)
	s.wantOrder(200, "PENDING FAILED", "GET", "/order/"+held.ID+"?user_id="+user, "")
	s.want(409, with("code", "order_not_payable", "order_status", "FAILED"), "POST", "/order/"+held.ID+"/payment", "", bare...)
	s.want(409, with("code", "order_not_cancelable", "order_status", "FAILED"), "POST", "/order/"+held.ID+"/cancel", "", bare...)

	// Placing at once makes no order where the balance is too short.
	if a := s.want(402, with("code", "insufficient_balance", "balance", "1000"), "POST", "/order", line(u, dear, 2, "now")); a.field("order") != "" {
		t.Errorf("an order came of it: %s", a.body)
	}
	s.auditClean()
}

func TestAPI_AdminCancelsAnybodysOrder(t *testing.T) {
	s := start(t, shop.Config{})
	u, v, p := s.User(1000), s.User(0), s.Product(100, 9)
	place := func(payment string) string {
		return s.orderOf(s.want(201, nil, "POST", "/order", line(u, p, 1, payment)).body).ID
	}
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "POST", "/order/"+place("now")+"/cancel", `{"reason":"recall"}`, asAdmin...)
	s.wantOrder(200, "PENDING CANCELED", "POST", "/order/"+place("later")+"/cancel", "", asAdmin...)
	s.wantOrder(200, "PENDING CANCELED", "POST", "/order/"+place("later")+"/cancel", fmt.Sprintf(`{"user_id":%d}`, u), asAdmin...)
	s.want(404, with("code", "order_not_found"), "POST", "/order/"+place("later")+"/cancel", fmt.Sprintf(`{"user_id":%d}`, v), asAdmin...)
	s.wantLeft(u, 1000, p, 8)
	s.auditClean()
}

func TestAPI_OrderExpiresByItself(t *testing.T) {
	s := start(t, shop.Config{Hold: time.Second, RefundWindow: time.Millisecond})
	u, p := s.User(1000), s.Product(300, 3)
	user := fmt.Sprint(u)
	key := freshKey()
	placed := s.want(201, nil, "POST", "/order", line(u, p, 3, "later"), "Idempotency-Key", key)
	held := s.orderOf(placed.body)
	s.wantLeft(u, 1000, p, 0)
	path := "/order/" + held.ID
	var expired order
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		expired = s.orderOf(s.want(200, nil, "GET", path+"?user_id="+user, "").body)
		if expired.Status != "PENDING" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it never expires")
		}
	}
	if late := expired.UpdatedAt.Sub(*held.ExpiresAt); expired.steps() != "PENDING EXPIRED" || late < 0 || late > time.Second {
		t.Errorf("%s after its deadline it went through %s", late, expired.steps())
	}
	s.wantLeft(u, 1000, p, 3)
	s.want(409, with("code", "order_not_payable", "order_status", "EXPIRED"), "POST", path+"/payment", "", "X-User-Id", user)
	s.want(409, with("code", "order_not_cancelable", "order_status", "EXPIRED"), "POST", path+"/cancel", "", "X-User-Id", user)
	if again := s.want(201, nil, "POST", "/order", line(u, p, 3, "later"), "Idempotency-Key", key); string(again.body) != string(placed.body) {
		t.Errorf("the replay is %s, it was %s", again.body, placed.body)
	}

	// The refund window binds the buyer, not the admin.
	paid := s.wantOrder(201, "PENDING SUCCESS", "POST", "/order", line(u, p, 1, "now"))
	time.Sleep(10 * time.Millisecond)
	late := s.want(409, with("code", "order_not_cancelable", "order_status", "SUCCESS"), "POST", "/order/"+paid.ID+"/cancel", "", "X-User-Id", user)
	if !strings.Contains(late.field("detail"), "time") {
		t.Errorf("the detail does not name the time: %s", late.body)
	}
	s.wantLeft(u, 700, p, 2)
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "POST", "/order/"+paid.ID+"/cancel", "", asAdmin...)
	s.wantLeft(u, 1000, p, 3)
	s.auditClean()
}

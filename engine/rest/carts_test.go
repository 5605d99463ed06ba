package rest_test

import (
	"fmt"
	"testing"

	"stampede/cmd/shop"
)

// cart is a cart as the contract writes it.
type cart struct {
	UserID string `json:"user_id"`
	Items  []struct {
		ProductID string `json:"product_id"`
		Name      string
		Price     int64
		Quantity  int64
		Stock     int64
	}
	TotalPrice int64 `json:"total_price"`
}

// wantCart makes a request and wants a cart, written as product×quantity.
func (s *server) wantCart(want, method, path, body string, headers ...string) cart {
	s.t.Helper()
	a := s.want(200, nil, method, path, body, headers...)
	var c cart
	s.decodeInto(a.body, &c)
	got, total := "", int64(0)
	for _, i := range c.Items {
		got += fmt.Sprintf("%s×%d ", i.ProductID, i.Quantity)
		total += i.Price * i.Quantity
	}
	if got != want || c.TotalPrice != total || c.Items == nil {
		s.t.Errorf("%s %s %s: the cart is %s, want %s", method, path, body, a.body, want)
	}
	return c
}

func TestAPI_CartFromFirstToLast(t *testing.T) {
	s := start(t, shop.Config{})
	u, p, q := s.User(1000), s.Product(100, 5), s.Product(7, 2)
	user, both := fmt.Sprint(u), fmt.Sprintf("%d×3 %d×4 ", p, q)
	add := func(product int64, quantity int) string {
		return fmt.Sprintf(`{"user_id":%d,"product_id":%d,"quantity":%d}`, u, product, quantity)
	}
	s.wantCart("", "GET", "/cart?user_id="+user, "")
	s.want(409, with("code", "cart_empty"), "POST", "/cart/order", `{"user_id":`+user+`}`)
	s.wantCart(fmt.Sprintf("%d×2 ", p), "POST", "/cart/add", add(p, 2), "Idempotency-Key", "")
	s.wantCart(fmt.Sprintf("%d×3 ", p), "POST", "/cart/add", add(p, 1))
	s.wantCart(both, "POST", "/cart/add", fmt.Sprintf(`{"product_id":"%d","quantity":4}`, q), "X-User-Id", user)
	c := s.wantCart(both, "GET", "/cart", "", "X-User-Id", user)
	if i := c.Items[1]; c.UserID != user || i.Name != "Thing" || i.Price != 7 || i.Stock != 2 || c.TotalPrice != 328 {
		t.Errorf("the cart is %+v", c)
	}
	s.wantLeft(u, 1000, p, 5)

	// What cannot be had stays in the cart.
	s.want(409, with("code", "out_of_stock", "product_id", fmt.Sprint(q), "left", "2"), "POST", "/cart/order", `{"user_id":`+user+`}`)
	s.wantCart(both, "GET", "/cart?user_id="+user, "")
	s.wantCart(fmt.Sprintf("%d×3 ", p), "DELETE", fmt.Sprintf("/cart/remove?user_id=%d&product_id=%d", u, q), "")
	s.wantCart(fmt.Sprintf("%d×3 ", p), "DELETE", "/cart/remove", fmt.Sprintf(`{"user_id":%d,"product_id":"%d"}`, u, q))
	s.wantCart(fmt.Sprintf("%d×3 ", p), "DELETE", "/cart/remove?product_id=99999", "", "X-User-Id", user)
	s.wantCart(fmt.Sprintf("%d×3 ", p), "DELETE", fmt.Sprintf("/cart/remove?product_id=%d", q), fmt.Sprintf(`{"user_id":%d,"product_id":%d}`, u, q), "X-User-Id", user)

	bought := s.wantOrder(201, "PENDING SUCCESS", "POST", "/cart/order", "", "X-User-Id", user, "Content-Type", "")
	if bought.TotalPrice != 300 || bought.Items[0].ProductID != fmt.Sprint(p) {
		t.Errorf("bought %+v", bought)
	}
	s.wantCart("", "GET", "/cart?user_id="+user, "")
	s.wantLeft(u, 700, p, 2)
	s.want(409, with("code", "cart_empty"), "POST", "/cart/order", `{"user_id":`+user+`}`)

	s.wantCart(fmt.Sprintf("%d×1 ", q), "POST", "/cart/add", add(q, 1))
	held := s.wantOrder(201, "PENDING", "POST", "/cart/order", `{"user_id":`+user+`,"payment":"later"}`)
	s.wantCart("", "GET", "/cart?user_id="+user, "")
	s.wantLeft(u, 700, q, 1)
	s.wantOrder(200, "PENDING SUCCESS", "POST", "/order/"+held.ID+"/payment", `{"user_id":`+user+`}`)

	dear := s.Product(1_000_000_000, 10)
	s.want(200, nil, "POST", "/cart/add", add(dear, 1))
	if a := s.want(402, with("code", "insufficient_balance", "balance", "693"), "POST", "/cart/order", `{"user_id":`+user+`}`); a.field("order") != "" {
		t.Errorf("an order came of it: %s", a.body)
	}
	s.wantCart(fmt.Sprintf("%d×1 ", dear), "GET", "/cart?user_id="+user, "")
	s.wantCart("", "DELETE", fmt.Sprintf("/cart/remove?user_id=%d&product_id=%d", u, dear), "")
	s.auditClean()
}

func TestAPI_CartHoldsSoMuchAndNoMore(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(0), s.Product(1, 5)
	add := func(product int64, quantity int) string {
		return fmt.Sprintf(`{"user_id":%d,"product_id":%d,"quantity":%d}`, u, product, quantity)
	}
	s.want(200, nil, "POST", "/cart/add", add(p, 9_999))
	s.want(200, nil, "POST", "/cart/add", add(p, 1))
	full := s.want(400, with("code", "validation_failed", "product_id", fmt.Sprint(p), "in_cart", "10000"), "POST", "/cart/add", add(p, 1))
	if full.field("detail") == "" {
		t.Errorf("no detail: %s", full.body)
	}
	for range 99 {
		s.want(200, nil, "POST", "/cart/add", add(s.Product(1, 1), 1))
	}
	more := s.Product(1, 1)
	s.want(400, with("code", "validation_failed", "product_id", fmt.Sprint(more)), "POST", "/cart/add", add(more, 1))
	var c cart
	s.decodeInto(s.want(200, nil, "GET", fmt.Sprintf("/cart?user_id=%d", u), "").body, &c)
	if len(c.Items) != 100 || c.TotalPrice != 10_099 {
		t.Errorf("%d products for %d", len(c.Items), c.TotalPrice)
	}
	s.auditClean()
}

func TestAPI_ChangedPriceIsTakenFromThenOn(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(100, 5)
	user, path := fmt.Sprint(u), fmt.Sprintf("/products/%d", p)
	old := s.wantOrder(201, "PENDING SUCCESS", "POST", "/order", line(u, p, 1, "now"))
	s.want(200, nil, "POST", "/cart/add", fmt.Sprintf(`{"user_id":%d,"product_id":%d,"quantity":1}`, u, p))
	s.want(200, with("id", fmt.Sprint(p), "name", "Thing", "price", "250", "stock", "4", "created_at", ""), "PATCH", path, `{"price":250}`, asAdmin...)
	if o := s.wantOrder(201, "PENDING SUCCESS", "POST", "/order", line(u, p, 1, "now")); o.TotalPrice != 250 {
		t.Errorf("after the change it cost %d", o.TotalPrice)
	}
	s.want(200, with("name", "Lantern", "price", "250", "stock", "3"), "PATCH", path, `{"name":"Lantern"}`, asAdmin...)
	s.want(200, with("name", "Lantern", "price", "250", "stock", "3"), "GET", path, "")
	if c := s.wantCart(fmt.Sprintf("%d×1 ", p), "GET", "/cart?user_id="+user, ""); c.Items[0].Name != "Lantern" || c.TotalPrice != 250 {
		t.Errorf("the cart is %+v", c)
	}
	s.want(200, with("name", "Torch", "price", "0"), "PATCH", path, `{"name":"Torch","price":0}`, asAdmin...)
	if o := s.wantOrder(201, "PENDING SUCCESS", "POST", "/cart/order", `{"user_id":`+user+`}`); o.TotalPrice != 0 {
		t.Errorf("after the change it cost %d", o.TotalPrice)
	}
	// What was sold keeps its price, and is refunded at it.
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "POST", "/order/"+old.ID+"/cancel", `{"user_id":`+user+`}`)
	s.wantLeft(u, 750, p, 3)
	s.auditClean()
}

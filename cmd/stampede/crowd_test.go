package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// attempt is a request as a buyer knows it.
type attempt struct {
	method, path string
	key, body    string
	status       int // 0: no answer came
	answer       string
	replayed     bool
}

// definite tells whether the buyer knows what became of it. 503 says that nothing was done.
func (a *attempt) definite() bool {
	return a.status != 0 && a.status != http.StatusGatewayTimeout && a.status != http.StatusInternalServerError
}

// kept tells whether the answer stands for a change, and must therefore be given again: a 2xx, or the 402 that names the
// order it ended.
func (a *attempt) kept() bool {
	return a.status/100 == 2 || (a.status == http.StatusPaymentRequired && a.order() != nil)
}

// shopOrder is an order as it is answered.
type shopOrder struct {
	ID     string
	Status string
	Total  int64 `json:"total_price"`
}

// order is the order of the answer, also inside a problem; nil where there is none.
func (a *attempt) order() *shopOrder {
	if a.status/100 != 2 {
		var problem struct{ Order *shopOrder }
		_ = json.Unmarshal([]byte(a.answer), &problem) // what is no JSON holds no order
		return problem.Order
	}
	var o shopOrder
	if json.Unmarshal([]byte(a.answer), &o) != nil || o.ID == "" {
		return nil
	}
	return &o
}

// crowd buys, and keeps a log of every attempt and reply.
type crowd struct {
	t        *testing.T
	url      string
	buyers   []*customer
	products []string
	client   *http.Client

	mu  sync.Mutex
	log []*attempt
}

// customer is one of the crowd.
type customer struct {
	*crowd
	random  *rand.Rand
	user    string
	charged int64 // to begin with
	keys    int
	orders  []string // ids
}

func newCrowd(s *server, buyers int, stocks []int) *crowd {
	c := &crowd{t: s.t.(*testing.T), url: s.url, client: &http.Client{Timeout: 10 * time.Second}}
	var created struct{ ID string }
	for n := range buyers {
		if status := s.call("POST", "/users", "", map[string]any{"name": "A buyer", "email": fmt.Sprintf("b%d@example.com", n)}, &created); status != 201 {
			s.t.Fatalf("POST /users: %d", status)
		}
		amount := int64(1_000_000)
		switch n % 8 {
		case 0:
			amount = 100 // runs short
		case 4:
			amount = 1 // can pay for nothing
		}
		if status := s.call("POST", "/balance/charge", "charge", map[string]any{"user_id": created.ID, "amount": amount}, nil); status != 200 {
			s.t.Fatalf("POST /balance/charge: %d", status)
		}
		c.buyers = append(c.buyers, &customer{
			crowd: c, random: rand.New(rand.NewPCG(uint64(n), 1)), user: created.ID, charged: amount,
		})
	}
	for n, stock := range stocks {
		if status := s.call("POST", "/products", "", map[string]any{"name": fmt.Sprintf("Thing %d", n), "price": 3 + n, "stock": stock}, &created); status != 201 {
			s.t.Fatalf("POST /products: %d", status)
		}
		c.products = append(c.products, created.ID)
	}
	return c
}

// buy has every buyer act until stop is called.
func (c *crowd) buy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, b := range c.buyers {
		all.Go(func() {
			for ctx.Err() == nil {
				b.act()
				time.Sleep(time.Duration(b.random.IntN(6)) * time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// failToPay has everybody who can pay for nothing hold an order and try to pay it: in a short run with many kills none
// may have come to that. The shop is well again.
func (c *crowd) failToPay(s *server) {
	c.url = s.url
	for _, b := range c.buyers {
		if b.charged == 1 {
			b.place(fmt.Sprintf(`,"payment":"later","items":[{"product_id":%s,"quantity":1}]`, b.products[0]))
			b.do(http.MethodPost, "/order/"+b.orders[len(b.orders)-1]+"/payment", "")
		}
	}
}

// act does one thing that buyers do: half of the time it places an order that is paid at once.
func (b *customer) act() {
	switch b.random.IntN(16) {
	case 0, 1:
		b.place(fmt.Sprintf(`,"payment":"later","items":[%s]`, b.items()))
	case 2:
		b.do(http.MethodPost, "/cart/add", fmt.Sprintf(`,"product_id":%s,"quantity":%d`, b.product(), 1+b.random.IntN(3)))
	case 3:
		b.do(http.MethodPost, "/cart/add", fmt.Sprintf(`,"product_id":"%s","quantity":1`, b.product()))
	case 4:
		b.note(b.do(http.MethodPost, "/cart/order", ""))
	case 5:
		b.note(b.do(http.MethodPost, "/cart/order", `,"payment":"later"`))
	case 6, 7, 8:
		b.withOrder("/payment", "")
	case 9:
		b.withOrder("/cancel", "")
	case 10:
		b.withOrder("/cancel", `,"reason":"changed my mind"`)
	default:
		b.place(fmt.Sprintf(`,"items":[%s]`, b.items()))
	}
}

func (b *customer) place(rest string) { b.note(b.do(http.MethodPost, "/order", rest)) }

func (b *customer) items() string {
	items := fmt.Sprintf(`{"product_id":%s,"quantity":%d}`, b.products[0], 1+b.random.IntN(2))
	if b.random.IntN(4) == 0 {
		items += fmt.Sprintf(`,{"product_id":%s,"quantity":1}`, b.products[1])
	}
	return items
}

func (b *customer) product() string { return b.products[b.random.IntN(len(b.products))] }

// withOrder does something to one of the latest orders.
func (b *customer) withOrder(route, rest string) {
	if n := len(b.orders); n > 0 {
		b.do(http.MethodPost, "/order/"+b.orders[n-1-b.random.IntN(min(n, 4))]+route, rest)
	}
}

// note remembers an order that was placed.
func (b *customer) note(a *attempt) {
	if a.status == http.StatusCreated {
		b.orders = append(b.orders, a.order().ID)
	}
}

// do makes an attempt under a new key; rest follows the user in the body.
func (b *customer) do(method, path, rest string) *attempt {
	b.keys++
	a := &attempt{
		method: method, path: path, key: fmt.Sprint("k", b.keys), body: fmt.Sprintf(`{"user_id":%s%s}`, b.user, rest),
	}
	b.send(a)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.log = append(b.log, a)
	return a
}

// send makes one attempt and notes what came back.
func (c *crowd) send(a *attempt) {
	a.status, a.answer = 0, ""
	request, err := http.NewRequestWithContext(context.Background(), a.method, c.url+a.path, bytes.NewBufferString(a.body))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", a.key)
	answer, err := c.client.Do(request)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil {
		a.status, a.answer = answer.StatusCode, string(text)
		a.replayed = answer.Header.Get("Idempotent-Replayed") == "true"
	}
}

// resolve asks again for every attempt whose outcome is open, until it is not.
func (c *crowd) resolve(s *server) {
	c.url = s.url
	open := 0
	for _, a := range c.log {
		if a.definite() {
			continue
		}
		open++
		for deadline := time.Now().Add(patience); !a.definite() || a.status == http.StatusServiceUnavailable; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				c.t.Fatalf("%s under key %s of %s does not resolve: %d %s", a.path, a.key, a.body, a.status, a.answer)
			}
			c.send(a)
		}
	}
	byStatus, byRoute, failed := map[int]int{}, map[string]int{}, 0
	for _, a := range c.log {
		byStatus[a.status]++
		if a.kept() {
			byRoute[a.route()]++
		}
		if a.status == http.StatusPaymentRequired && a.kept() {
			failed++
		}
	}
	c.t.Logf("%d attempts, %d of them open after the kills; statuses %v; changes %v, %d of them a 402",
		len(c.log), open, byStatus, byRoute, failed)
	for _, route := range []string{"/order", "/cart/order", "/cart/add", "/payment", "/cancel"} {
		if byRoute[route] < 5 {
			c.t.Errorf("%d changes by %s: the load was no load", byRoute[route], route)
		}
	}
	if failed == 0 {
		c.t.Error("no payment failed for lack of balance")
	}
	if byRoute["/order"] < 100 {
		c.t.Errorf("only %d orders were placed: the load was no load", byRoute["/order"])
	}
}

// route is the path without an order's id.
func (a *attempt) route() string {
	if strings.HasPrefix(a.path, "/order/") {
		return a.path[strings.LastIndexByte(a.path, '/'):]
	}
	return a.path
}

// check holds what buyers were told against the shop and its books.
func (c *crowd) check(s *server, dir string) {
	orders := c.replay()
	c.checkOrders(s, orders)
	code, out, text := finish(c.t, "audit", "--data-dir", dir, "--json")
	if code != exitDone {
		c.t.Errorf("audit: exit %d: %s%s", code, out, text)
	}
	var found struct{ Summary struct{ Orders int } }
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&found); err != nil {
		c.t.Errorf("audit: %v: %s", err, out)
	}
	if found.Summary.Orders != len(orders) {
		c.t.Errorf("the books hold %d orders, buyers know of %d", found.Summary.Orders, len(orders))
	}
}

// knownOrder is what a buyer knows of an order at the end.
type knownOrder struct {
	shopOrder
	user string
}

// further says how far along a state of an order is.
var further = map[string]int{"PENDING": 1, "SUCCESS": 2, "FAILED": 2, "CANCELED": 2, "EXPIRED": 2, "REFUNDED": 3}

// replay asks again for everything that changed something: status and body stay byte for byte. It returns the orders
// as they were last answered.
func (c *crowd) replay() map[string]*knownOrder {
	orders := map[string]*knownOrder{}
	for _, a := range c.log {
		if !a.kept() {
			continue
		}
		again := &attempt{method: a.method, path: a.path, key: a.key, body: a.body}
		c.send(again)
		if again.status != a.status || again.answer != a.answer || !again.replayed {
			c.t.Errorf("%s under key %s of %s was answered %d %s, and now %d %s (replayed: %t)",
				a.path, a.key, a.body, a.status, a.answer, again.status, again.answer, again.replayed)
		}
		o := a.order()
		if o == nil {
			continue
		}
		known := orders[o.ID]
		if known == nil {
			user, _, _ := strings.Cut(strings.TrimPrefix(a.body, `{"user_id":`), ",")
			known = &knownOrder{user: strings.TrimSuffix(user, "}")}
			orders[o.ID] = known
		}
		switch {
		case further[o.Status] > further[known.Status]:
			known.shopOrder = *o
		case further[o.Status] == further[known.Status] && o.Status != known.Status:
			c.t.Errorf("order %s was answered as %s and as %s", o.ID, known.Status, o.Status)
		}
	}
	return orders
}

// checkOrders reads every order as its buyers know it, waits for the deadlines of those that nobody paid, and holds the
// balances against them.
func (c *crowd) checkOrders(s *server, orders map[string]*knownOrder) {
	spent, expired := map[string]int64{}, 0
	for id, known := range orders {
		var now shopOrder
		path := "/order/" + id + "?user_id=" + known.user
		for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
			if status := s.call("GET", path, "", nil, &now); status == http.StatusOK && now.Status != "PENDING" {
				break
			}
			if time.Now().After(deadline) {
				c.t.Fatalf("order %s stays %s", id, now.Status)
			}
		}
		want := known.Status
		if want == "PENDING" {
			want = "EXPIRED"
			expired++
		}
		if now.Status != want || now.Total != known.Total {
			c.t.Errorf("order %s is %+v, its buyer knows %s", id, now, known.Status)
		}
		if now.Status == "SUCCESS" {
			spent[known.user] += now.Total
		}
	}
	if expired == 0 {
		c.t.Error("no hold expired")
	}
	for _, b := range c.buyers {
		var balance struct{ Balance int64 }
		s.call("GET", "/balance?user_id="+b.user, "", nil, &balance)
		if want := b.charged - spent[b.user]; balance.Balance != want {
			c.t.Errorf("the balance of %s is %d, want %d", b.user, balance.Balance, want)
		}
	}
}

package rest_test

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
)

// atOnce sends requests together and returns how often each status was answered.
func (s *server) atOnce(n int, send func(i int) answer) map[int]int {
	s.t.Helper()
	statuses := make([]int, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { statuses[i] = send(i).StatusCode })
	}
	all.Wait()
	count := map[int]int{}
	for _, status := range statuses {
		count[status]++
	}
	return count
}

// One order, wanted by many at once: each step happens once.
func TestAPI_StepsOfOneOrderAtOnce(t *testing.T) {
	s := start(t, shop.Config{})
	u, p := s.User(1000), s.Product(300, 9)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	step := func(id, step, key string) answer {
		return s.send("POST", "/order/"+id+"/"+step, "", "X-User-Id", me[1], "Idempotency-Key", key)
	}
	hold := func() string { return s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 1, "later")).ID }

	held, key := hold(), freshKey()
	if got := s.atOnce(50, func(int) answer { return step(held, "payment", key) }); got[200] != 50 {
		t.Errorf("one payment, 50 times: %v", got)
	}
	s.wantLeft(u, 700, p, 8)
	if got := s.atOnce(20, func(int) answer { return step(held, "cancel", freshKey()) }); got[200] != 1 || got[409] != 19 {
		t.Errorf("20 refunds of one order: %v", got)
	}
	s.wantLeft(u, 1000, p, 9)
	held = hold()
	if got := s.atOnce(20, func(int) answer { return step(held, "payment", freshKey()) }); got[200] != 1 || got[409] != 19 {
		t.Errorf("20 payments of one order: %v", got)
	}
	s.wantLeft(u, 700, p, 8)
	for range 5 {
		held = hold()
		got := s.atOnce(20, func(i int) answer { return step(held, []string{"payment", "cancel"}[i%2], freshKey()) })
		if ended := s.orderOf(s.want(200, nil, "GET", "/order/"+held, "", me...).body); ended.Status != "CANCELED" && ended.Status != "REFUNDED" {
			t.Errorf("payments and cancels at once: %v, then %s", got, ended.steps())
		}
	}
	s.wantLeft(u, 700, p, 8)

	// A cart is bought once, and what many put into it adds up.
	put := fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p)
	key = freshKey()
	same := s.atOnce(10, func(int) answer {
		return s.send("POST", "/cart/add", put, "X-User-Id", me[1], "Idempotency-Key", key)
	})
	got := s.atOnce(1, func(int) answer { return s.send("POST", "/cart/add", put, "X-User-Id", me[1], "Idempotency-Key", "") })
	if same[200] != 10 || got[200] != 1 {
		t.Errorf("adding to the cart: %v %v", same, got)
	}
	s.wantCart(fmt.Sprintf("%d×2 ", p), "GET", "/cart", "", me...)
	if got := s.atOnce(20, func(int) answer { return s.send("POST", "/cart/order", "", me...) }); got[201] != 1 || got[409] != 19 {
		t.Errorf("20 orders of one cart: %v", got)
	}
	s.wantLeft(u, 100, p, 6)
	s.auditClean()
}

// Buyers of all partitions buy what lies in others: more than came with the product to each, up to the last unit.
func TestAPI_SeveralPartitions(t *testing.T) {
	s := start(t, shop.Config{Partitions: 4})
	const buyers, stock = 12, 2 * 12
	p := s.Product(10, stock)
	keys := s.Engine.Keys()
	bought, from := int64(0), map[int]bool{}
	var recalled []kept
	for range buyers {
		u := s.User(1000)
		from[keys.OfUser(u)] = true
		me := []string{"X-User-Id", fmt.Sprint(u)}
		s.wantCart(fmt.Sprintf("%d×2 ", p), "POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":2}`, p), me...)
		paid := s.wantOrder(201, "PENDING SUCCESS", "POST", "/cart/order", "", me...)
		held := s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 1, "later"))
		s.wantOrder(200, "PENDING SUCCESS", "POST", "/order/"+held.ID+"/payment", "", me...)
		recalled = append(recalled, s.keep(200, request{"POST", "/order/" + paid.ID + "/cancel", "", asAdmin}))
		bought++
		s.wantLeft(u, 990, p, stock-bought)
	}
	if len(from) < 3 {
		t.Fatalf("buyers of %d partitions", len(from))
	}
	last := s.User(1000)
	s.wantOrder(201, "PENDING SUCCESS", "POST", "/order", line(last, p, stock-buyers, "now"))
	bought = stock
	s.want(409, with("code", "out_of_stock"), "POST", "/order", line(last, p, 1, "now"))
	s.wantReplayed(recalled...)
	if top := s.want(200, nil, "GET", "/products/top", ""); !strings.Contains(string(top.body), fmt.Sprintf(`"sold":%d}`, bought)) {
		t.Errorf("%d sold, the top is %s", bought, top.body)
	}
	// An admin's key means one request, in whichever partition.
	other := s.Product(10, 1000)
	s.wantReused(recalled[0],
		request{"POST", fmt.Sprintf("/products/%d/stock", p), `{"delta":1,"reason":"x"}`, asAdmin},
		request{"POST", fmt.Sprintf("/products/%d/stock", other), `{"delta":1,"reason":"x"}`, asAdmin})
	s.auditClean()
}

// An order that Redis has let go is answered from the books, to the byte, and can still be given back.
func TestAPI_OrdersThatRedisLetGo(t *testing.T) {
	s := start(t, shop.Config{Partitions: 1}) // each keeps 10,000 events: several would take so many times the orders
	u, p := s.User(10_000), s.Product(7, 1_000_000)
	me := []string{"X-User-Id", fmt.Sprint(u)}
	step := func(id, step, body string) request { return request{"POST", "/order/" + id + "/" + step, body, me} }
	held := s.keep(201, request{"POST", "/order", line(u, p, 3, "later"), nil})
	paid := s.keep(200, step(held.id(), "payment", ""))
	refunded := s.keep(200, step(held.id(), "cancel", `{"reason":"ünwanted"}`))
	bought := s.keep(201, request{"POST", "/order", line(u, p, 2, "now"), nil})
	dear := s.Product(1_000_000, 5)
	hopeless := s.keep(201, request{"POST", "/order", line(u, dear, 1, "later"), nil})
	failed := s.keep(402, step(hopeless.id(), "payment", ""))
	all := []kept{held, paid, refunded, bought, hopeless, failed}
	orders := map[string]string{} // by id, as they are now
	for _, k := range []kept{held, bought, hopeless} {
		orders[k.id()] = string(s.want(200, nil, "GET", "/order/"+k.id(), "", me...).body)
	}
	s.fill(p)
	for id := range orders {
		n, err := strconv.ParseInt(id, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		key := s.Engine.Keys().Order(s.Engine.Keys().OfUser(u), n)
		for deadline := time.Now().Add(20 * time.Second); s.Redis.Exists(t.Context(), key).Val() > 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("Redis never lets order %s go", id)
			}
		}
	}
	s.wantReplayed(all...)
	for id, body := range orders {
		for _, headers := range [][]string{me, asAdmin} {
			if got := s.want(200, nil, "GET", "/order/"+id, "", headers...); string(got.body) != body {
				t.Errorf("from the books the order is %s, it was %s", got.body, body)
			}
		}
		s.want(404, with("code", "order_not_found"), "GET", "/order/"+id, "", "X-User-Id", "2")
		s.want(404, with("code", "order_not_found"), "POST", "/order/"+id+"/cancel", "", "X-User-Id", "2")
		s.want(404, with("code", "order_not_found"), "POST", "/order/"+id+"/payment", "", "X-User-Id", "2")
	}
	s.want(409, with("code", "order_not_payable", "order_status", "REFUNDED"), "POST", "/order/"+held.id()+"/payment", "", me...)
	s.want(409, with("code", "order_not_cancelable", "order_status", "FAILED"), "POST", "/order/"+hopeless.id()+"/cancel", "", me...)
	s.wantOrder(200, "PENDING SUCCESS REFUNDED", "POST", "/order/"+bought.id()+"/cancel", "", me...)
	s.want(200, with("balance", "10000"), "GET", "/balance", "", me...)
	s.wantReplayed(all...)
	s.auditClean()
}

// fill places orders until Redis has let go what came before.
func (s *server) fill(product int64) {
	s.t.Helper()
	const orders, workers = 12_000, 64
	u := s.User(1_000_000)
	errs := make([]error, workers)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := 0; i < orders/workers && errs[w] == nil; i++ {
				_, _, errs[w] = s.Engine.Place(s.t.Context(), engine.PlaceRequest{
					UserID: u, Lines: []engine.Line{{ProductID: product, Quantity: 1}}, Key: fmt.Sprintf("%d-%d", w, i),
				})
			}
		})
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			s.t.Fatal(err)
		}
	}
	s.Written()
}

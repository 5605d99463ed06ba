package rest_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
)

// shopper does whatever comes to mind, with orders that others have a hand in too.
type shopper struct {
	*server
	r        *rand.Rand
	users    []int64
	products []int64
	orders   *sync.Map // order id by user: the latest
}

// step makes one request and returns it with its answer.
func (s *shopper) step() (method, path string, a answer) {
	u, p, n := s.users[s.r.IntN(len(s.users))], s.products[s.r.IntN(len(s.products))], 1+s.r.IntN(3)
	me, payment := []string{"X-User-Id", fmt.Sprint(u)}, []string{"now", "later"}[s.r.IntN(2)]
	latest, _ := s.orders.LoadOrStore(u, "1")
	method, body, headers := http.MethodPost, "", me
	switch s.r.IntN(12) {
	case 0, 1:
		path, body = "/order", line(u, p, n, payment)
	case 2, 3:
		path = fmt.Sprintf("/order/%v/payment", latest)
	case 4:
		path = fmt.Sprintf("/order/%v/cancel", latest)
	case 5:
		path, headers = fmt.Sprintf("/order/%v/cancel", latest), asAdmin
	case 6, 7:
		path, body = "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":%d}`, p, n)
		if s.r.IntN(2) == 0 {
			headers = append([]string{"Idempotency-Key", ""}, me...)
		}
	case 8:
		path, body = "/cart/order", fmt.Sprintf(`{"payment":%q}`, payment)
	case 9:
		method, path = http.MethodDelete, fmt.Sprintf("/cart/remove?product_id=%d", p)
	case 10:
		method, headers = http.MethodPatch, asAdmin
		path, body = fmt.Sprintf("/products/%d", p), fmt.Sprintf(`{"price":%d}`, s.r.IntN(40))
	case 11:
		method = http.MethodGet
		path = []string{"/cart", "/orders?limit=5", "/products/top", fmt.Sprintf("/order/%v", latest), "/balance"}[s.r.IntN(5)]
	}
	a = s.send(method, path, body, headers...)
	if a.StatusCode == http.StatusCreated {
		s.orders.Store(u, a.field("id"))
	}
	return method, path, a
}

// Everything at once on a few users and products, with holds that run out meanwhile: nothing is ever a fault of
// the server, and the books close.
func TestAPI_EverythingAtOnce(t *testing.T) {
	s := start(t, shop.Config{Hold: time.Second})
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	users := []int64{s.User(2000), s.User(2000), s.User(300), s.User(0)}
	products := []int64{s.Product(10, 50), s.Product(20, 5), s.Product(30, 500)}
	orders, counts, mu := &sync.Map{}, map[string]int{}, sync.Mutex{}
	var all sync.WaitGroup
	for w := range 16 {
		all.Go(func() {
			one := &shopper{s, rand.New(rand.NewPCG(seed, uint64(w))), users, products, orders}
			for begun := time.Now(); time.Since(begun) < 4*time.Second; {
				method, path, a := one.step()
				kind := strings.FieldsFunc(path, func(r rune) bool { return r == '/' || r == '?' })
				mu.Lock()
				counts[fmt.Sprintf("%s %s %s %d", method, kind[0], kind[len(kind)-1][:min(7, len(kind[len(kind)-1]))], a.StatusCode)]++
				mu.Unlock()
				if a.StatusCode == http.StatusInternalServerError { // 503 and 504 are how a busy machine may answer
					t.Errorf("%s %s: %d %s", method, path, a.StatusCode, a.body)
				}
			}
		})
	}
	all.Wait()
	t.Logf("%v", counts)
	s.awaitNothingHeld()
	s.auditClean()
}

// awaitNothingHeld waits until every hold has ended.
func (s *server) awaitNothingHeld() {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		held := int64(0)
		for p := range s.Engine.Keys().Partitions() {
			held += s.Redis.ZCard(s.t.Context(), s.Engine.Keys().Holds(p)).Val()
		}
		if held == 0 {
			return
		} else if time.Now().After(deadline) {
			s.t.Fatalf("%d orders are held past their deadline", held)
		}
	}
}

package rest_test

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/engine/rest"
)

// until asks again while the answer is 503 or 504, and wants another in the end.
func (s *server) until(status int, request string) rawAnswer {
	s.t.Helper()
	for giveUp := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		a := s.once(request)
		if a.status == status {
			return a
		} else if (a.status != 503 && a.status != 504) || time.Now().After(giveUp) {
			s.t.Fatalf("%.300q: %q, want %d in the end", request, a.all, status)
		}
	}
}

// With a Redis that stands still the queue fills. What finds it full is answered at once, 503 with Retry-After; what
// was sent is 504; and every one of them has one outcome when asked again with its key.
func TestHTTP_FullQueueIsRefusedAtOnce(t *testing.T) {
	const orders, queue, workers, timeout = 200, 8, 2, 2 * time.Second
	s := start(t, shop.Config{})
	client, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 16, timeout)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	narrow, err := engine.New(engine.Config{
		Redis: client, Partitions: s.Engine.Keys().Partitions(), Node: 900, QueueMax: queue, Workers: workers, OperationTimeout: timeout, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = narrow.Close() })
	narrow.Start()
	if err := narrow.AwaitReady(within(t)); err != nil {
		t.Fatal(err)
	}
	s.addr = serve(t, rest.Config{Sales: narrow, Registry: s.Books, Health: health{s.Shop}, Log: log})
	u, p := s.User(1000), s.Product(1, 1000)
	requests := make([]string, orders)
	for i := range requests {
		requests[i] = call("POST", "/order", line(u, p, 1, "now"))
	}
	s.Written() // its writer runs in full by then
	running := len(goroutines())
	if err := s.Servers().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var refused []time.Duration
	for _, request := range requests {
		all.Go(func() {
			begun := time.Now()
			a := s.once(request)
			took := time.Since(begun)
			switch a.status {
			case 504:
				s.wantProblem(row{request, 504, "timeout", "same Idempotency-Key"}, a)
			default:
				s.wantProblem(row{request, 503, "overloaded", "not carried out. Send it again"}, a)
				mu.Lock()
				refused = append(refused, took)
				mu.Unlock()
			}
			if took > 10*time.Second {
				t.Errorf("answered after %s: %q", took, a.all)
			}
		})
	}
	all.Wait()
	if err := s.Servers().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// A batch is what waits in the queue: more than that and one batch a worker cannot be on its way.
	const atOnce = orders - queue*(workers+1)
	slices.Sort(refused)
	if len(refused) < atOnce || refused[atOnce-1] >= timeout {
		t.Errorf("%d were refused, after %v", len(refused), refused)
	}
	s.backTo(running)
	for _, request := range requests {
		s.until(201, request)
	}
	s.wantLeft(u, 1000-orders, p, 1000-orders)
	s.auditClean()
}

// Without Postgres the backlog grows to its cap; then what would add to it is 503 with Retry-After, until Postgres is
// back. Answers that were given before can still be had.
func TestHTTP_FullBacklogIsRefused(t *testing.T) {
	s := start(t, shop.Config{BacklogCap: 20_000, Partitions: 1}) // the cap is a partition's own
	u, p := s.User(100_000), s.Product(1, 100_000)
	held := s.wantOrder(201, "PENDING", "POST", "/order", line(u, p, 1, "later")).ID
	s.Written()
	if err := s.Stack.Postgres().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	order := func() string { return call("POST", "/order", line(u, p, 1, "now")) }
	placed := []string{order()}
	first := s.once(placed[0])
	var full rawAnswer
	for full.status != 503 {
		request := order()
		full = s.once(request)
		if full.status == 201 {
			placed = append(placed, request)
		} else {
			s.wantProblem(row{request, 503, "overloaded", "not carried out. Send it again"}, full)
		}
		if len(placed) > 1000 || full.status != 201 && full.status != 503 {
			t.Fatalf("after %d orders: %q", len(placed), full.all)
		}
	}
	user := fmt.Sprintf("X-User-Id: %d", u)
	late := []string{ // in an order in which each can be done
		order(), call("POST", "/balance/charge", `{"amount":5}`, user), call("POST", "/order/"+held+"/payment", "", user),
		call("POST", "/cart/add", fmt.Sprintf(`{"product_id":%d,"quantity":1}`, p), user), call("POST", "/cart/order", `{"payment":"later"}`, user),
		call("POST", fmt.Sprintf("/products/%d/stock", p), `{"delta":5}`, "Authorization: Bearer "+adminToken),
	}
	for _, request := range late {
		if a := s.once(request); a.status != 409 { // an empty cart is empty under any load
			s.wantProblem(row{request, 503, "overloaded", "not carried out. Send it again"}, a)
		}
	}
	if a := s.once(placed[0]); a.status != 201 || a.body != first.body || a.headers["idempotent-replayed"] != "true" {
		t.Errorf("the replay of an order over the cap is %q, it was %q", a.all, first.all)
	}
	if a := s.once(call("GET", "/order/"+held, "", user)); a.status != 200 {
		t.Errorf("an order over the cap is %q", a.all)
	}
	sold := int64(len(placed))
	s.wantLeft(u, 100_000-sold, p, 100_000-1-sold)
	if err := s.Stack.Postgres().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	for i, request := range late {
		s.until([]int{201, 200, 200, 200, 201, 200}[i], request)
	}
	s.wantLeft(u, 100_000-sold-1+5-1, p, 100_000-1-sold-1-1+5)
	s.auditClean()
}

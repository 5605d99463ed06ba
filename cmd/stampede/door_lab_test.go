package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"stampede/cmd/stack"
	"stampede/persist"
)

// serveAt runs `serve` on servers of a test until it is ready.
func serveAt(t *testing.T, redisURL string, books *stack.Stack, args ...string) *server {
	t.Helper()
	return launch(t, append(joining(redisURL, books), append([]string{"serve"}, args...)...)...).ready(secret)
}

// joining are the settings of a command that joins servers.
func joining(redisURL string, books *stack.Stack) []string {
	return []string{
		"STAMPEDE_REDIS_URL=" + redisURL, "STAMPEDE_POSTGRES_URL=" + books.PostgresURL(), "STAMPEDE_ADMIN_TOKEN=" + secret,
		"STAMPEDE_RATE_LIMIT_USER=0", "STAMPEDE_ADDR=127.0.0.1:0",
	}
}

// queue is a number of buyers who order a unit each, over and over, and keep what they were told and when.
type queue struct {
	t       *testing.T
	client  *http.Client
	product string
	stock   int
	users   []string
	placed  atomic.Int64

	mu  sync.Mutex
	log []*receipt
}

// receipt is what a buyer knows of an order.
type receipt struct {
	user, key string
	status    int    // 0: no answer came
	order     string // its id
	replayed  bool
	at        time.Time // of the answer
	by        string    // URL
}

const (
	queuePace   = 8 * time.Millisecond  // between a buyer's orders
	queueBreath = 50 * time.Millisecond // of one who was turned away
)

// lineUp opens accounts and lists a product that will do for all.
func lineUp(s *server, buyers, stock int) *queue {
	s.t.Helper()
	q := &queue{t: s.t.(*testing.T), client: &http.Client{Timeout: 10 * time.Second}, stock: stock}
	var created struct{ ID string }
	s.want(201, "POST", "/products", "", map[string]any{"name": "Thing", "price": 1, "stock": stock}, &created)
	q.product = created.ID
	for n := range buyers {
		s.want(201, "POST", "/users", "", map[string]any{"name": "Buyer", "email": fmt.Sprintf("q%d@example.com", n)}, &created)
		s.want(200, "POST", "/balance/charge", "charge", map[string]any{"user_id": created.ID, "amount": 1_000_000}, nil)
		q.users = append(q.users, created.ID)
	}
	return q
}

// shop has every buyer order at one of the servers until stop is called.
func (q *queue) shop(at ...*server) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for n, user := range q.users {
		url := at[n%len(at)].url
		all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				r := &receipt{user: user, key: fmt.Sprintf("%s %d", url, time.Now().UnixNano())}
				q.order(url, r)
				q.mu.Lock()
				q.log = append(q.log, r)
				q.mu.Unlock()
				if r.status == http.StatusCreated {
					q.placed.Add(1)
					time.Sleep(queuePace)
				} else {
					time.Sleep(queueBreath)
				}
			}
		})
	}
	return sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
}

// order makes an attempt. An answer is an order, "not done" or "unknown": anything else is a wrong one.
func (q *queue) order(url string, r *receipt) {
	r.status, r.order, r.replayed, r.by = 0, "", false, url
	body := fmt.Sprintf(`{"user_id":%s,"items":[{"product_id":%s,"quantity":1}]}`, r.user, q.product)
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url+"/order", bytes.NewBufferString(body))
	if err != nil {
		q.t.Error(err)
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", r.key)
	answer, err := q.client.Do(request)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return
	}
	r.at, r.status, r.replayed = time.Now(), answer.StatusCode, answer.Header.Get("Idempotent-Replayed") == "true"
	switch r.status {
	case http.StatusCreated:
		var o shopOrder
		if err := json.Unmarshal(text, &o); err != nil || o.Status != "SUCCESS" {
			q.t.Errorf("an order is answered by %s", text)
		}
		r.order = o.ID
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
	default:
		q.t.Errorf("an order is answered by %d %s", r.status, text)
	}
}

// await waits for n further orders.
func (q *queue) await(n int64) {
	q.t.Helper()
	target := q.placed.Load() + n
	for deadline := time.Now().Add(patience); q.placed.Load() < target; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			q.t.Fatalf("%d orders are still to come after %v", target-q.placed.Load(), patience)
		}
	}
}

// settle asks again for everything, twice, and returns the orders that were acknowledged and are gone. What was "not done"
// was not done; a key has one outcome; and as many units are gone as there are orders.
func (q *queue) settle(s *server) (gone []*receipt) {
	q.t.Helper()
	orders := map[string]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	next := make(chan *receipt)
	for range 8 {
		all.Go(func() {
			for r := range next {
				first, second := q.resolve(s, r), q.resolve(s, r)
				mu.Lock()
				switch {
				case !second.replayed || second.order != first.order:
					q.t.Errorf("key %q has two outcomes: order %s, and then %s (replayed: %t)", r.key, first.order, second.order, second.replayed)
				case r.status == http.StatusServiceUnavailable && first.replayed:
					q.t.Errorf("key %q was answered 503, and yet done: order %s", r.key, first.order)
				case r.status == http.StatusCreated && first.order != r.order:
					gone = append(gone, r)
				}
				orders[first.order] = true
				mu.Unlock()
			}
		})
	}
	for _, r := range q.log {
		next <- r
	}
	close(next)
	all.Wait()
	if len(orders) != len(q.log) {
		q.t.Errorf("%d orders under %d keys", len(orders), len(q.log))
	}
	var product struct{ Stock int }
	s.want(200, "GET", "/products/"+q.product, "", nil, &product)
	if product.Stock != q.stock-len(orders) {
		q.t.Errorf("%d units are left of %d, %d were ordered", product.Stock, q.stock, len(orders))
	}
	return gone
}

// resolve asks under a key until the answer is definite.
func (q *queue) resolve(s *server, asked *receipt) receipt {
	again := receipt{user: asked.user, key: asked.key}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if q.order(s.url, &again); again.status == http.StatusCreated {
			return again
		}
		if time.Now().After(deadline) {
			q.t.Errorf("key %q does not resolve: %d", again.key, again.status)
			return again
		}
	}
}

// count counts the receipts with a status, of a server.
func (q *queue) count(status int, by *server) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.log {
		if r.status == status && (by == nil || r.by == by.url) {
			n++
		}
	}
	return n
}

// audited is what `stampede audit` says of the servers; it must find nothing.
func audited(t *testing.T, redisURL string, books *stack.Stack) (losses map[int64]persist.Loss) {
	t.Helper()
	code, out, text := finish(t, append(joining(redisURL, books), "audit", "--json")...)
	var found struct{ Losses []persist.Loss }
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitDone {
		t.Errorf("audit: exit %d, %v: %s%s", code, err, out, text)
	}
	losses = map[int64]persist.Loss{}
	for _, l := range found.Losses {
		losses[l.Epoch] = l
	}
	return losses
}

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"
)

// shopper orders the same thing over and over, over one connection after another, until nobody listens any more.
type shopper struct {
	t             *testing.T
	address       string
	user, product string
	answered      *atomic.Int64 // of all shoppers

	placed     []string // orders that were answered
	unanswered int      // requests that no byte of an answer came to
}

// order is the request for one; unique among those of its buyer is the key.
func (c *shopper) order(key string) string {
	body := fmt.Sprintf(`{"user_id":%s,"items":[{"product_id":%s,"quantity":1}]}`, c.user, c.product)
	return fmt.Sprintf("POST /order HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nIdempotency-Key: %s\r\nContent-Length: %d\r\n\r\n%s", key, len(body), body)
}

func (c *shopper) shop() {
	for n := 0; ; n++ {
		conn, err := net.DialTimeout("tcp", c.address, patience)
		if err != nil {
			return
		}
		c.use(conn, n)
		_ = conn.Close()
	}
}

// use orders until the connection ends.
func (c *shopper) use(conn net.Conn, nth int) {
	r := bufio.NewReader(conn)
	for n := 0; ; n++ {
		status, body, last, err := exchange(conn, r, c.order(fmt.Sprint(nth, "-", n)))
		switch {
		case errors.Is(err, errNoAnswer):
			c.unanswered++
			return
		case err != nil:
			c.t.Error(err)
			return
		case status == http.StatusCreated:
			var made shopOrder
			if err := json.Unmarshal(body, &made); err != nil {
				c.t.Error(err)
			}
			c.placed = append(c.placed, made.ID)
			c.answered.Add(1)
		default:
			c.t.Errorf("an order is answered by %d %s", status, body)
		}
		if last {
			return
		}
	}
}

var errNoAnswer = errors.New("the connection ended without an answer")

// exchange sends a request and reads its answer; last tells whether it is the connection's last. It is errNoAnswer that
// not a byte of it came, and any other error that it stopped halfway, or never came though the connection stands.
func exchange(conn net.Conn, r *bufio.Reader, request string) (status int, body []byte, last bool, err error) {
	_ = conn.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(conn, request) // where it fails there is no answer
	if _, err := r.Peek(1); err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, nil, false, fmt.Errorf("a request hangs: %w", err)
		}
		return 0, nil, false, errNoAnswer
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, nil, false, fmt.Errorf("half an answer: %w", err)
	}
	body, err = io.ReadAll(answer.Body)
	if err != nil {
		return 0, nil, false, fmt.Errorf("half an answer: %w", err)
	}
	return answer.StatusCode, body, answer.Close, nil
}

// shoppers are new buyers who can afford a lot of one new thing.
func (s *server) shoppers(n int) []*shopper {
	s.t.Helper()
	var thing, buyer struct{ ID string }
	s.want(201, "POST", "/products", "", map[string]any{"name": "Thing", "price": 1, "stock": 1_000_000}, &thing)
	answered, all := &atomic.Int64{}, make([]*shopper, n)
	for i := range all {
		s.want(201, "POST", "/users", "", map[string]any{"name": "Buyer", "email": fmt.Sprintf("b%d@example.com", i)}, &buyer)
		s.want(200, "POST", "/balance/charge", "charge", map[string]any{"user_id": buyer.ID, "amount": 1_000_000}, nil)
		all[i] = &shopper{t: s.t.(*testing.T), address: s.address(), user: buyer.ID, product: thing.ID, answered: answered}
	}
	return all
}

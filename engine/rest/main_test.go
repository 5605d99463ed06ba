package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine/rest"
	"stampede/persist"
)

const adminToken = "test-admin-token"

// server is a shop behind HTTP.
type server struct {
	*shoptest.Shop
	t    *testing.T
	addr string
}

// health answers from the shop's own parts.
type health struct{ shop *shoptest.Shop }

func (h health) Check(ctx context.Context) rest.Readiness {
	lag, err := h.shop.Books.Lag(ctx)
	found := rest.Readiness{LagEvents: lag.Events, LagSeconds: lag.Age.Seconds()}
	for at, err := range map[*[]string]error{
		&found.Writer: err, &found.Partitions: h.shop.Engine.CheckDoors(ctx), &found.Postgres: h.shop.Books.Ping(ctx),
	} {
		if err != nil {
			*at = []string{err.Error()}
		}
	}
	return found
}

func start(t *testing.T, c shop.Config) *server {
	t.Helper()
	s := shoptest.Start(t, stack.Options{}, c)
	return &server{Shop: s, t: t, addr: serve(t, rest.Config{Sales: s.Engine, Registry: s.Books, Health: health{s}})}
}

// serve puts HTTP in front of what a config names until the test ends.
func serve(t *testing.T, c rest.Config) (addr string) {
	t.Helper()
	c.AdminToken, c.Metrics = adminToken, prometheus.NewRegistry()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	api, err := rest.New(c)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- api.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := api.Shutdown(ctx); err != nil {
			t.Errorf("shut down: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return ln.Addr().String()
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	body []byte
}

// field returns a field of a JSON body as text.
func (a answer) field(name string) string {
	var body map[string]any
	d := json.NewDecoder(bytes.NewReader(a.body))
	d.UseNumber()
	if err := d.Decode(&body); err != nil {
		return "unreadable: " + err.Error()
	}
	if body[name] == nil {
		return ""
	}
	return fmt.Sprint(body[name])
}

var keys atomic.Int64

// freshKey is an idempotency key that no other request has.
func freshKey() string { return fmt.Sprintf("key-%d", keys.Add(1)) }

// send makes a request; headers are pairs of name and value. A POST gets a fresh key, and what has a body JSON as its
// type, unless the headers say otherwise.
func (s *server) send(method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Idempotency-Key", freshKey())
	}
	if method == http.MethodPost || body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Del(headers[i])
		if headers[i+1] != "" {
			req.Header.Set(headers[i], headers[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	read, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp, read}
}

// want makes a request and wants its status, and fields (pairs of name and text) of its answer.
func (s *server) want(status int, fields []string, method, path, body string, headers ...string) answer {
	s.t.Helper()
	a := s.send(method, path, body, headers...)
	if a.StatusCode != status {
		s.t.Fatalf("%s %s %s: %d %s, want %d", method, path, body, a.StatusCode, a.body, status)
	}
	for i := 0; i < len(fields); i += 2 {
		if got := a.field(fields[i]); got != fields[i+1] {
			s.t.Errorf("%s %s %s: %s is %q, want %q: %s", method, path, body, fields[i], got, fields[i+1], a.body)
		}
	}
	return a
}

// with are the fields that an answer must have.
func with(fields ...string) []string { return fields }

// decodeInto reads the whole body, and fails where it has a field that the contract does not name.
func (s *server) decodeInto(body []byte, v any) {
	s.t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		s.t.Fatalf("%v: %s", err, body)
	}
}

// order is an order as the contract writes it.
type order struct {
	ID         string
	UserID     string `json:"user_id"`
	Status     string
	TotalPrice int64 `json:"total_price"`
	Items      []struct {
		ProductID string `json:"product_id"`
		Quantity  int64
		Price     int64
	}
	CreatedAt time.Time  `json:"created_at"`
	UpdatedAt time.Time  `json:"updated_at"`
	ExpiresAt *time.Time `json:"expires_at"`
	History   []struct {
		Status string
		Reason string
		At     time.Time
	}
}

// steps are the states that an order went through.
func (o order) steps() string {
	names := make([]string, len(o.History))
	for i, step := range o.History {
		names[i] = step.Status
	}
	return strings.Join(names, " ")
}

// orderOf reads an order and wants what is true of every one.
func (s *server) orderOf(body []byte) (o order) {
	s.t.Helper()
	s.decodeInto(body, &o)
	last := o.History[len(o.History)-1]
	var total int64
	for _, i := range o.Items {
		total += i.Price * i.Quantity
	}
	switch {
	case o.History[0].Status != "PENDING" || !o.History[0].At.Equal(o.CreatedAt):
		s.t.Errorf("it does not begin PENDING at its creation: %s", body)
	case last.Status != o.Status || !last.At.Equal(o.UpdatedAt):
		s.t.Errorf("its last step is not its status: %s", body)
	case (o.ExpiresAt != nil) != (o.Status == "PENDING"):
		s.t.Errorf("expires_at is there while PENDING, and only then: %s", body)
	case total != o.TotalPrice:
		s.t.Errorf("the total is not that of its items: %s", body)
	}
	return o
}

// wantOrder makes a request and wants an order that went through these states.
func (s *server) wantOrder(status int, steps, method, path, body string, headers ...string) order {
	s.t.Helper()
	o := s.orderOf(s.want(status, nil, method, path, body, headers...).body)
	if o.steps() != steps {
		s.t.Errorf("%s %s %s: the order went through %s, want %s", method, path, body, o.steps(), steps)
	}
	return o
}

// line is the body of an order of one line.
func line(user, product int64, quantity int, payment string) string {
	return fmt.Sprintf(`{"user_id":%d,"items":[{"product_id":%d,"quantity":%d}],"payment":%q}`, user, product, quantity, payment)
}

// wantLeft wants a balance and a stock, once no units of it are under way between partitions.
func (s *server) wantLeft(user, balance, product, stock int64) {
	s.t.Helper()
	path := fmt.Sprintf("/products/%d", product)
	s.Settle(func() bool { return s.send("GET", path, "").field("stock") == fmt.Sprint(stock) })
	s.want(200, with("balance", fmt.Sprint(balance)), "GET", fmt.Sprintf("/balance?user_id=%d", user), "")
	s.want(200, with("stock", fmt.Sprint(stock)), "GET", path, "")
}

// inEach is the stock with which a product comes to as many units in each partition.
func (s *server) inEach(units int64) int64 { return units * int64(s.Engine.Keys().Partitions()) }

var asAdmin = []string{"Authorization", "Bearer " + adminToken}

func (s *server) auditClean() {
	s.t.Helper()
	s.Written()
	_, err := s.Books.Audit(s.t.Context(), s.Redis, func(v persist.Violation) {
		s.t.Errorf("audit: %s: %s %s", v.Check, v.Subject, v.Detail)
	})
	if err != nil {
		s.t.Error(err)
	}
}

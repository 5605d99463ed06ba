package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
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

func (h health) Check(ctx context.Context) (int64, []error) {
	lag, err := h.shop.Books.Lag(ctx)
	var problems []error
	for _, err := range []error{err, h.shop.Engine.CheckDoors(ctx), h.shop.Books.Ping(ctx)} {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return lag, problems
}

func start(t *testing.T, c shop.Config) *server {
	t.Helper()
	s := &server{Shop: shoptest.Start(t, stack.Options{}, c), t: t}
	api, err := rest.New(rest.Config{
		Sales: s.Engine, Registry: s.Books, Health: health{s.Shop}, AdminToken: adminToken, Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = ln.Addr().String()
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
	return s
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

// send makes a request; headers are pairs of name and value. A POST gets JSON as its type and a fresh key unless the
// headers say otherwise.
func (s *server) send(method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Idempotency-Key", freshKey())
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

package rest_test

import (
	"errors"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stampede/engine/rest"
)

// deadline is how long these tests give a request: long enough for a good one on a busy machine.
const deadline = time.Second

// hasty is a server with a short deadline. What these tests send never comes to a shop.
func hasty(t *testing.T) *server {
	t.Helper()
	return bare(t, rest.Config{ReadTimeout: deadline})
}

// bare is a server without a shop.
func bare(t *testing.T, c rest.Config) *server {
	t.Helper()
	none := &refusing{}
	c.Sales, c.Registry, c.Health = none, none, none
	return &server{t: t, addr: serve(t, c)}
}

// drip sends text bit by bit until the server has enough of it, or all is sent.
func (c *rawConn) drip(text string, bit int, pause time.Duration) {
	for len(text) > 0 {
		n := min(bit, len(text))
		if _, err := c.Write([]byte(text[:n])); err != nil {
			return
		}
		text = text[n:]
		time.Sleep(pause)
	}
}

// A request that does not arrive in time is answered 408 and its connection closed, whatever keeps it. Bytes that
// drip in do not put the deadline off.
func TestHTTP_SlowRequestsAreCutOffAtTheDeadline(t *testing.T) {
	s := hasty(t)
	const user = "X-User-Id: 1"
	before := len(goroutines())
	good := call("GET", "/healthz", "")
	endless := strings.Repeat("x", 60_000) // at 100 bytes a second
	var all sync.WaitGroup
	for name, c := range map[string]struct {
		at     string // sent at once
		drip   string // sent slowly after it
		status int    // 408 where nothing is said
	}{
		"nothing":                  {},
		"a byte":                   {at: "P"},
		"a slow request line":      {drip: "GET /" + endless[:7000]},
		"slow headers":             {at: "GET /healthz HTTP/1.1\r\nHost: shop\r\nX-Filler: ", drip: endless[:7000]},
		"slow header lines":        {at: "GET /healthz HTTP/1.1\r\nHost: shop\r\n", drip: strings.Repeat("a:b\r\n", 1500)},
		"no end of the headers":    {at: "GET /healthz HTTP/1.1\r\nHost: shop\r\n"},
		"no body":                  {at: call("POST", "/balance/charge", "", user, "Content-Length: 100")},
		"half a body":              {at: call("POST", "/balance/charge", `{"amount":1`, user, "Content-Length: 100")},
		"a slow body":              {at: call("POST", "/balance/charge", `{"amount":1`, user, "Content-Length: 60000"), drip: endless},
		"slow chunks":              {at: call("POST", "/balance/charge", "", user, "Content-Length", "Transfer-Encoding: chunked"), drip: strings.Repeat("1\r\n \r\n", 9000)},
		"a slow chunk extension":   {at: call("POST", "/balance/charge", "1;", user, "Content-Length", "Transfer-Encoding: chunked"), drip: endless, status: 400}, // its parser says no more
		"no last chunk":            {at: call("POST", "/balance/charge", "1\r\n \r\n", user, "Content-Length", "Transfer-Encoding: chunked")},
		"no end of the last chunk": {at: call("POST", "/balance/charge", "0\r\n", user, "Content-Length", "Transfer-Encoding: chunked"), status: 400},
		"a slow second request":    {at: good + "GET /healthz HTTP/1.1\r\nX-Filler: ", drip: endless[:7000]},
	} {
		begun := time.Now()
		conn := s.dial()
		all.Go(func() {
			defer conn.Close() //nolint:errcheck // nothing is pending
			if _, err := conn.Write([]byte(c.at)); err != nil {
				t.Error(err)
			}
			go conn.drip(c.drip, 10, 100*time.Millisecond)
			if strings.HasPrefix(c.at, good) {
				if a, err := conn.answer("GET"); err != nil || a.status != 200 {
					t.Errorf("%s: the first request: %q, %v", name, a.all, err)
				}
			}
			a, err := conn.answer("GET")
			if err != nil {
				t.Errorf("%s: after %s %v", name, time.Since(begun), err)
				return
			}
			if took := time.Since(begun); took < deadline || took > 10*deadline {
				t.Errorf("%s: answered after %s", name, took)
			}
			want := row{"GET " + name, 408, "request_timeout", "arrive"}
			if c.status == 400 {
				want = row{"GET " + name, 400, "validation_failed", malformed}
			}
			s.wantProblem(want, a)
			if err := conn.ended(); err != nil || a.headers["connection"] != "close" {
				t.Errorf("%s: the connection stays: %v, %q", name, err, a.all)
			}
		})
	}
	begun := time.Now()
	silent := s.dial()
	go silent.drip(strings.Repeat("\r\n", 3000), 2, 100*time.Millisecond)
	if err := silent.ended(); err != nil || time.Since(begun) < deadline {
		t.Errorf("empty lines: after %s %v", time.Since(begun), err)
	}
	all.Wait()
	s.backTo(before)
}

// A client that announces Expect: 100-continue is told to go on, and has no longer than others.
func TestHTTP_ExpectedBodiesHaveTheSameDeadline(t *testing.T) {
	s := hasty(t)
	for body, status := range map[string]int{"a whole body": 200, "half a b": 408} {
		conn := s.dial()
		if _, err := conn.Write([]byte(call("GET", "/healthz", "", "Content-Length: 12", "Expect: 100-continue"))); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		for _, want := range []string{"HTTP/1.1 100 Continue", ""} {
			if got, err := conn.line(); got != want || err != nil {
				t.Fatalf("expecting to go on: %q, %v", got, err)
			}
		}
		if _, err := conn.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
		if a, err := conn.answer("GET"); err != nil || a.status != status {
			t.Errorf("%s: %q, %v, want %d", body, a.all, err, status)
		}
	}
}

// What cannot be read is answered on a connection of any age: the deadline of an earlier answer does not count.
func TestHTTP_RefusalsComeAfterAPauseToo(t *testing.T) {
	s := hasty(t)
	var all sync.WaitGroup
	for request, status := range map[string]int{
		call("POST", "/order", strings.Repeat("x", 64<<10+1)):                       413,
		call("POST", "/order", "", "Content-Length: 65537"):                         413,
		call("POST", "/order", "", "Content-Length: 65537", "Expect: 100-continue"): 413,
		call("GET", "/healthz", "", "X-Filler: "+strings.Repeat("f", 8<<10)):        431,
		call("GET", "/healthz", "", "Content-Length: -1"):                           400,
		call("GET", "/healthz", "", "X Y: z"):                                       400,
		call("GET", "/nowhere", ""):                                                 404,
	} {
		conn := s.dial()
		s.wantFit(conn, "nothing")
		all.Go(func() {
			time.Sleep(deadline + deadline/10)
			_, _ = conn.Write([]byte(request))
			if a, err := conn.answer("GET"); err != nil || a.status != status {
				t.Errorf("%.300q: %q, %v, want %d", request, a.all, err, status)
			}
		})
	}
	all.Wait()
}

// A thousand clients that never come to an end keep nobody else from being served.
func TestHTTP_AThousandSlowConnectionsDelayNobody(t *testing.T) {
	s := bare(t, rest.Config{ReadTimeout: time.Minute})
	before := len(goroutines())
	slow := make([]*rawConn, 1000)
	for i := range slow {
		slow[i] = s.dial()
		if _, err := slow[i].Write([]byte("POST /order HTTP/1.1\r\nHost: shop\r\nX-Filler: ")); err != nil {
			t.Fatal(err)
		}
	}
	for range 20 {
		conn, begun := s.dial(), time.Now()
		s.wantFit(conn, "a thousand slow ones")
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("a good request took %s", took)
		}
		_ = conn.Close()
	}
	for _, conn := range slow {
		if _, err := conn.Write([]byte("x")); err != nil { // they are all still there
			t.Fatal(err)
		}
		_ = conn.Close()
	}
	s.backTo(before)
}

// A client that asks and asks and never reads is cut off, and what served it ends.
func TestHTTP_ClientsThatDoNotReadAreCutOff(t *testing.T) {
	s := hasty(t)
	before := len(goroutines())
	conn := s.dial()
	requests := []byte(strings.Repeat(call("GET", "/metrics", ""), 100))
	var err error
	for giveUp := time.Now().Add(time.Minute); err == nil && time.Now().Before(giveUp); {
		_ = conn.SetWriteDeadline(giveUp)
		_, err = conn.Write(requests)
	}
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server still takes requests: %v", err)
	}
	s.backTo(before)
	_ = conn.Close()
}

// One address has so many connections; those above are refused at once, and one that ends makes room.
func TestHTTP_ConnectionsOfAnAddressAreLimited(t *testing.T) {
	s := bare(t, rest.Config{ConnsPerIP: 3})
	var conns []*rawConn
	for range 3 {
		conn := s.dial()
		s.wantFit(conn, "nothing")
		conns = append(conns, conn)
	}
	over := s.dial()
	a, err := over.answer("GET")
	if err != nil {
		t.Fatal(err)
	}
	s.wantProblem(row{"", 429, "rate_limited", "connections"}, a)
	if err := over.ended(); err != nil || a.headers["connection"] != "close" {
		t.Errorf("the connection above the limit stays: %v, %q", err, a.all)
	}
	for _, conn := range conns {
		s.wantFit(conn, "one above the limit")
	}
	_ = conns[0].Close()
	for giveUp := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		conn := s.dial()
		_, _ = conn.Write([]byte(call("GET", "/healthz", "")))
		a, err := conn.answer("GET")
		_ = conn.Close()
		switch {
		case err == nil && a.status == 200:
			return
		case time.Now().After(giveUp):
			t.Fatalf("a connection that ended makes no room: %q, %v", a.all, err)
		}
	}
}

package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"stampede/engine"
	"stampede/engine/rest"
)

// logbook is a log that a test reads.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is the log as it stands there.
func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// entry is a line of the log.
type entry struct {
	Level, Msg, Route, Code, Client, Error string
	Status, Skipped                        int
	RequestID                              string `json:"request_id"`
}

// lines returns those of a code.
func (l *logbook) lines(t *testing.T, code string) (found []entry) {
	t.Helper()
	for d := json.NewDecoder(strings.NewReader(l.String())); ; {
		var e entry
		switch err := d.Decode(&e); {
		case errors.Is(err, io.EOF):
			return found
		case err != nil:
			t.Fatal(err)
		case e.Code == code:
			found = append(found, e)
		}
	}
}

// crashing is a shop that refuses, and panics where it is asked for a balance.
type crashing struct {
	refusing
	panics any
}

func (b *crashing) Balance(context.Context, int64) (int64, error) { panic(b.panics) }

// loggedServer is one without a real shop, and its log.
func loggedServer(t *testing.T, b *crashing, l rest.Limits) (*server, *logbook) {
	t.Helper()
	log := &logbook{}
	return &server{t: t, addr: serve(t, rest.Config{
		Sales: b, Registry: b, Health: b, Limits: l, Log: slog.New(slog.NewJSONHandler(log, nil)),
	})}, log
}

var madeID = regexp.MustCompile(`^[A-Z2-7]{10}-[0-9a-z]{1,13}$`)

func TestRequestID_TakenOverOrMade(t *testing.T) {
	s, _ := loggedServer(t, &crashing{}, rest.Limits{})
	conn, longest := s.dial(), strings.Repeat("Az09-_.x", 8)
	for _, id := range []string{"a", "0", ".", "gw-7_Q.1", longest} {
		if got := s.exchange(conn, call("GET", "/healthz", "", "X-Request-Id: "+id)).Header.Get("X-Request-Id"); got != id {
			t.Errorf("%q is answered by %q", id, got)
		}
		if got := s.exchange(conn, call("GET", "/nothing", "", "x-request-id:"+id)).Header.Get("X-Request-Id"); got != id {
			t.Errorf("on a refusal %q is answered by %q", id, got)
		}
	}
	for _, headers := range [][]string{
		nil,
		{"X-Request-Id:"},
		{"X-Request-Id: " + longest + "y"},
		{"X-Request-Id: a b"},
		{"X-Request-Id: a,b"},
		{"X-Request-Id: a/b"},
		{"X-Request-Id: a:b"},
		{`X-Request-Id: "a"`},
		{"X-Request-Id: a%0d%0aSet-Cookie:x"},
		{"X-Request-Id: ä"},
		{"X-Request-Id: a\u2028b"},
		{"X-Request-Id: <a>"},
		{"X-Request-Id: " + strings.Repeat("a", 4000)},
		{"X-Request-Id: a", "X-Request-Id: a"},
		{"X-Request-Id: a", "x-request-id: b"},
	} {
		for _, path := range []string{"/healthz", "/nothing"} {
			a := s.exchange(conn, call("GET", path, "", headers...))
			if got := a.Header.Values("X-Request-Id"); len(got) != 1 || !madeID.MatchString(got[0]) {
				t.Errorf("%.100q on %s is answered by %q", headers, path, got)
			}
		}
	}
}

// What never became a request has an id too, and not that of the request before on the same connection.
func TestRequestID_OfWhatIsNoRequest(t *testing.T) {
	s, _ := loggedServer(t, &crashing{}, rest.Limits{})
	for _, c := range []struct {
		raw    string
		status int
	}{
		{"x\r\n\r\n", 400},
		{"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400},
		{"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Filler: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", 431},
		{call("POST", "/order", strings.Repeat("x", 65<<10)), 413},
		{call("POST", "/order", "", "Content-Length: 70000", "Expect: 100-continue"), 413},
		{call("PUT", "/order", ""), 405},
	} {
		conn := s.dial()
		s.exchange(conn, call("GET", "/healthz", "", "X-Request-Id: before"))
		a := s.exchange(conn, c.raw)
		if got := a.Header.Values("X-Request-Id"); a.StatusCode != c.status || len(got) != 1 || !madeID.MatchString(got[0]) {
			t.Errorf("%.60q: %d with the id %q", c.raw, a.StatusCode, got)
		}
	}
}

func TestRequestID_NoTwoAreTheSame(t *testing.T) {
	const conns, each = 4, 2500
	s, _ := loggedServer(t, &crashing{}, rest.Limits{})
	twin, _ := loggedServer(t, &crashing{}, rest.Limits{}) // ids of two processes differ too
	var all sync.WaitGroup
	var answers [conns]string
	for n := range conns {
		conn := []*server{s, twin}[n%2].dial()
		all.Go(func() {
			_, _ = io.WriteString(conn, strings.Repeat(call("GET", "/healthz", ""), each-1)+call("GET", "/healthz", "", "Connection: close"))
		})
		all.Go(func() {
			read, _ := io.ReadAll(conn)
			answers[n] = string(read)
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for _, id := range regexp.MustCompile(`X-Request-Id: \S+`).FindAllString(strings.Join(answers[:], ""), -1) {
		seen[id] = true
	}
	if len(seen) != conns*each {
		t.Errorf("%d requests have %d ids", conns*each, len(seen))
	}
}

// An error on our side is a 500 that tells nothing but an id, by which the log has the rest. It ends one request only.
func TestRequestLog_InternalErrors(t *testing.T) {
	const inside = "the secret of the inside"
	b := &crashing{refusing: refusing{err: errors.New(inside)}}
	s, log := loggedServer(t, b, rest.Limits{})
	conn := s.dial()
	written := 0
	for _, c := range []struct {
		route, request string
		panics         any
		logged         string
	}{
		{"GET /orders", call("GET", "/orders?user_id=1", ""), nil, inside},
		{"POST /order/{id}/payment", call("POST", "/order/7/payment", "", "X-User-Id: 1", "X-Request-Id: gateway-1"), nil, inside},
		{"GET /balance", call("GET", "/balance?user_id=1", ""), inside, "panic: " + inside},
		{"GET /balance", call("GET", "/balance?user_id=1", "", "X-Request-Id: gateway-2"), errors.New(inside), "panic: " + inside},
		{"GET /balance", call("GET", "/balance?user_id=1", ""), &engine.Refusal{Reason: engine.ErrOutOfStock}, "panic: "},
		{"GET /cart", call("GET", "/cart?user_id=1", ""), nil, "nil pointer"}, // nobody is there to be asked
		{"POST /products", call("POST", "/products", `{"name":"x","price":1,"stock":1}`, showAdmin), nil, "nil pointer"},
	} {
		b.panics = c.panics
		_, _ = io.WriteString(conn, c.request)
		a, err := conn.answer(methodOf(c.request))
		if err != nil {
			t.Fatalf("%s: %v", c.route, err)
		}
		s.wantProblem(row{c.request, 500, "internal", "id in the log"}, a)
		if leak := regexp.MustCompile(`secret|panic|goroutine|nil|runtime|\.go`).FindString(a.all); leak != "" {
			t.Errorf("%s: the answer tells of %q: %s", c.route, leak, a.all)
		}
		id := a.headers["x-request-id"]
		if given := regexp.MustCompile(`gateway-\d`).FindString(c.request); given != "" && id != given {
			t.Errorf("%s: the id is %q, it came with %q", c.route, id, given)
		}
		body := answer{body: []byte(a.body)}
		lines := log.lines(t, "internal")
		written++
		last := lines[len(lines)-1]
		if len(lines) != written || body.field("id") != id || last.RequestID != id || last.Level != "ERROR" || last.Route != c.route || last.Status != 500 ||
			!strings.Contains(last.Error, c.logged) || last.Client != "127.0.0.1" {
			t.Errorf("%s: the id in header and body is %q and %q, line %d of the log %+v", c.route, id, body.field("id"), len(lines), last)
		}
		if strings.HasPrefix(c.logged, "panic: ") && !strings.Contains(last.Error, "requestlog_test.go") {
			t.Errorf("%s: the log does not say where it was: %s", c.route, last.Error)
		}
		s.wantFit(conn, c.request)
	}
}

// A flood of refusals is a few lines, which add up. Internal errors have a line each: their ids were given out.
func TestRequestLog_FloodsAreAFewLines(t *testing.T) {
	const flood, conns = 1000, 4
	b := &crashing{refusing: refusing{err: fmt.Errorf("%w: full", engine.ErrOverloaded)}}
	s, log := loggedServer(t, b, rest.Limits{})
	send := func(n int, requests ...string) {
		var all sync.WaitGroup
		for range conns {
			conn := s.dial()
			all.Go(func() {
				for i := range n / conns {
					s.exchange(conn, requests[i%len(requests)])
				}
			})
		}
		all.Wait()
	}
	begun := time.Now()
	send(flood, call("POST", "/cart/order", "", "X-User-Id: 1"), call("GET", "/orders?user_id=1", ""))
	seconds := int(time.Since(begun).Seconds())
	if lines := log.lines(t, "overloaded"); len(lines) < 2 || len(lines) > 2*(1+seconds) {
		t.Errorf("%d lines about %d refusals on two routes in %d s", len(lines), flood, seconds)
	}
	b.err = errors.New("broken")
	send(12, call("GET", "/orders?user_id=1", ""))
	time.Sleep(time.Second) // a line is due again
	send(4, call("GET", "/orders?user_id=1", ""))
	b.err = engine.ErrOverloaded
	send(8, call("POST", "/cart/order", "", "X-User-Id: 1"), call("GET", "/orders?user_id=1", ""))
	for code, want := range map[string]int{"overloaded": flood + 8, "internal": 16} {
		spoken := 0
		for _, e := range log.lines(t, code) {
			spoken += 1 + e.Skipped
			if e.Level != map[string]string{"overloaded": "WARN", "internal": "ERROR"}[code] || e.RequestID == "" || e.Msg != "request refused" {
				t.Errorf("a line is %+v", e)
			}
		}
		// The last second's are told of by the next line.
		if short := want - spoken; short < 0 || short > 6 || code == "internal" && short != 0 {
			t.Errorf("the lines about %s speak for %d, %d came", code, spoken, want)
		}
	}
}

func TestRequestLog_ALineASecond(t *testing.T) {
	var times []time.Duration
	for at := range 31 {
		times = append(times, time.Duration(at)*100*time.Millisecond)
	}
	times = append(times, time.Hour)
	if skipped := rest.RefusalLines(times...); !slices.Equal(skipped, []int{0, 9, 9, 9, 0}) {
		t.Errorf("lines that skipped %v", skipped)
	}
}

// What is between a client and its request is not the operator's: nothing is written. Of refused credentials and rates
// a line is, without them.
func TestRequestLog_IsNotAboutClients(t *testing.T) {
	b := &crashing{}
	s, log := loggedServer(t, b, rest.Limits{UserRate: 1})
	conn := s.dial()
	for user, c := range []struct {
		err    error
		status int
	}{
		{engine.ErrInvalid, 400},
		{engine.ErrKeyReused, 422},
		{engine.ErrUserNotFound, 404},
		{engine.ErrOrderNotFound, 404},
		{engine.ErrCartEmpty, 409},
		{&engine.Refusal{Reason: engine.ErrOutOfStock}, 409},
		{&engine.Refusal{Reason: engine.ErrInsufficientBalance}, 402},
		{engine.ErrNotPayable, 409},
	} {
		b.err = c.err
		if a := s.exchange(conn, call("POST", "/cart/order", "", fmt.Sprint("X-User-Id: ", 2+user))); a.StatusCode != c.status {
			t.Errorf("%v: %d", c.err, a.StatusCode)
		}
	}
	for request, status := range map[string]int{
		call("GET", "/healthz", ""): 200, call("GET", "/metrics", ""): 200, call("GET", "/docs", ""): 200, call("GET", "/nothing", ""): 404,
		call("PUT", "/order", ""): 405, call("POST", "/order", "{"): 400, call("POST", "/order", "{}", "Content-Type: text/plain"): 415,
	} {
		if a := s.exchange(conn, request); a.StatusCode != status {
			t.Errorf("%.100q: %d", request, a.StatusCode)
		}
	}
	s.refusedAndClosed(
		row{"x\r\n\r\n", 400, "validation_failed", "HTTP"},
		row{"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: " + strings.Repeat("x", 9<<10) + "\r\n\r\n", 431, "headers_too_large", "8 KiB"},
		row{call("POST", "/order", "", "Content-Length: 70000"), 413, "payload_too_large", "64 KiB"},
	)
	if text := log.String(); text != "" {
		t.Errorf("the log is %s", text)
	}

	s.exchange(conn, call("POST", "/users", `{"name":"`+mark+`"}`, "Authorization: Bearer hunter2secret", "X-User-Id: 1"))
	s.exchange(conn, call("GET", "/users/7?name="+mark, "", "X-User-Id: 1"))
	for status := 0; status != 429; {
		status = s.exchange(conn, call("POST", "/cart/order?name="+mark, "", "X-User-Id: 1")).StatusCode
	}
	for code, route := range map[string]string{"unauthorized": "POST /users", "forbidden": "GET /users/{id}", "rate_limited": "POST /cart/order"} {
		if lines := log.lines(t, code); len(lines) != 1 || lines[0].Level != "INFO" || lines[0].Route != route || lines[0].RequestID == "" || lines[0].Client != "127.0.0.1" {
			t.Errorf("the lines about %s are %+v", code, lines)
		}
	}
	if text := log.String(); strings.Contains(text, "hunter2") || strings.Contains(text, mark) {
		t.Errorf("the log repeats requests: %s", text)
	}
}

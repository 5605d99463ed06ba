package rest_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Requests of these tests are bytes on a TCP connection, so that what is malformed really is, and answers are read
// without the leniency of an HTTP client.

// patience is the longest wait for an answer: what comes in time does so at once.
const patience = 20 * time.Second

// mark stands in what requests bring along. No answer repeats it.
const mark = "zq7mark"

// rawConn is a connection.
type rawConn struct {
	net.Conn
	r *bufio.Reader
}

func (s *server) dial() *rawConn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &rawConn{conn, bufio.NewReader(conn)}
}

// rawAnswer is an answer as it came.
type rawAnswer struct {
	status  int
	headers map[string]string // by lower-case name
	body    string
	all     string
}

var (
	statusLine = regexp.MustCompile(`^HTTP/1\.1 ([1-5][0-9][0-9]) [A-Z][A-Za-z -]+$`)
	headerLine = regexp.MustCompile(`^([A-Z][A-Za-z0-9-]*): ([!-~]|[!-~][ -~]*[!-~])$`)
	digits     = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)
)

// line reads one that ends in CRLF.
func (c *rawConn) line() (string, error) {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	text, found := strings.CutSuffix(line, "\r\n")
	if !found || strings.Contains(text, "\r") {
		return "", fmt.Errorf("the line %q of the answer does not end in CRLF", line)
	}
	return text, nil
}

// answer reads one to a request of a method.
func (c *rawConn) answer(method string) (a rawAnswer, err error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return a, err
	}
	status, err := c.line()
	if err != nil {
		return a, err
	}
	parts := statusLine.FindStringSubmatch(status)
	if parts == nil {
		return a, fmt.Errorf("the status line is %q", status)
	}
	a.status, _ = strconv.Atoi(parts[1])
	a.all, a.headers = status+"\r\n", map[string]string{}
	for {
		text, err := c.line()
		if err != nil {
			return a, err
		}
		a.all += text + "\r\n"
		if text == "" {
			break
		}
		parts := headerLine.FindStringSubmatch(text)
		if parts == nil {
			return a, fmt.Errorf("a header line is %q", text)
		}
		name := strings.ToLower(parts[1])
		if _, twice := a.headers[name]; twice {
			return a, fmt.Errorf("the header %s stands twice", name)
		}
		a.headers[name] = parts[2]
	}
	if a.headers["date"] == "" || a.headers["transfer-encoding"] != "" || !digits.MatchString(a.headers["content-length"]) {
		return a, fmt.Errorf("the headers are %v", a.headers)
	}
	if method != "HEAD" {
		length, _ := strconv.Atoi(a.headers["content-length"])
		body := make([]byte, length)
		if _, err := io.ReadFull(c.r, body); err != nil {
			return a, fmt.Errorf("the body is shorter than its Content-Length %d: %w", length, err)
		}
		a.body = string(body)
	}
	a.all += a.body
	return a, nil
}

// ended tells whether the server has closed the connection, and nothing came before; a reset could have overtaken an
// answer.
func (c *rawConn) ended() error {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	b, err := c.r.ReadByte()
	switch {
	case err == nil:
		rest, _ := c.r.Peek(c.r.Buffered())
		return fmt.Errorf("more follows: %q", string(b)+string(rest))
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// call writes a well-formed request. A header line takes the place of the standard ones of its name; a name alone
// leaves them out.
func call(method, path, body string, headers ...string) string {
	lines := []string{"Host: shop", "X-Mark: " + mark}
	if method == "POST" {
		lines = append(lines, "Idempotency-Key: "+freshKey())
	}
	if method == "POST" || body != "" {
		lines = append(lines, "Content-Type: application/json", fmt.Sprintf("Content-Length: %d", len(body)))
	}
	name := func(line string) string {
		name, _, _ := strings.Cut(line, ":")
		return strings.ToLower(name)
	}
	lines = slices.DeleteFunc(lines, func(line string) bool {
		return slices.ContainsFunc(headers, func(h string) bool { return name(h) == name(line) })
	})
	for _, h := range headers {
		if strings.Contains(h, ":") {
			lines = append(lines, h)
		}
	}
	return method + " " + path + " HTTP/1.1\r\n" + strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

// methodOf is the method of a request, GET where it cannot be told.
func methodOf(raw string) string {
	method, _, _ := strings.Cut(raw, " ")
	return method
}

// once sends a request on a connection of its own.
func (s *server) once(request string) rawAnswer {
	s.t.Helper()
	conn := s.dial()
	defer conn.Close() //nolint:errcheck // all is read
	if _, err := conn.Write([]byte(request)); err != nil {
		s.t.Error(err)
	}
	a, err := conn.answer(methodOf(request))
	if err != nil {
		s.t.Errorf("%.300q: %v", request, err)
	}
	return a
}

// row is a request and the refusal that it must meet.
type row struct {
	request string
	status  int
	code    string
	detail  string // a regular expression: what helps
}

// refused sends requests that are well-formed HTTP, each with a good one behind it, and wants the one refused and the
// other answered.
func (s *server) refused(rows ...row) {
	s.t.Helper()
	conn := s.dial()
	defer conn.Close() //nolint:errcheck // nothing is pending
	for _, r := range rows {
		if _, err := conn.Write([]byte(r.request + goodRequest)); err != nil {
			s.t.Fatalf("%.300q: %v", r.request, err)
		}
		a, err := conn.answer(methodOf(r.request))
		if err != nil {
			s.t.Fatalf("%.300q: %v", r.request, err)
		}
		s.wantProblem(r, a)
		if a.headers["connection"] != "" {
			s.t.Errorf("%.300q: Connection is %q", r.request, a.headers["connection"])
		}
		s.wantGood(conn, r.request)
	}
}

var goodRequest = call("GET", "/healthz", "")

// wantGood reads the answer to a good request that came after another.
func (s *server) wantGood(conn *rawConn, after string) {
	s.t.Helper()
	if a, err := conn.answer("GET"); err != nil || a.status != 200 || a.body != `{"status":"ok"}` {
		s.t.Fatalf("after %.300q a good request is answered by %q, %v", after, a.all, err)
	}
}

// wantFit wants the connection fit for a good request.
func (s *server) wantFit(conn *rawConn, after string) {
	s.t.Helper()
	if _, err := conn.Write([]byte(goodRequest)); err != nil {
		s.t.Fatalf("after %.300q: %v", after, err)
	}
	s.wantGood(conn, after)
}

// refusedAndClosed sends what is no HTTP, or too much of it, and wants each refused and the connection closed.
func (s *server) refusedAndClosed(rows ...row) {
	s.t.Helper()
	for _, r := range rows {
		conn := s.dial()
		_, _ = conn.Write([]byte(r.request)) // the server need not read it all
		a, err := conn.answer(methodOf(r.request))
		if err != nil {
			s.t.Errorf("%.300q: %v", r.request, err)
		} else {
			s.wantProblem(r, a)
			if a.headers["connection"] != "close" {
				s.t.Errorf("%.300q: Connection is %q", r.request, a.headers["connection"])
			}
			if err := conn.ended(); err != nil {
				s.t.Fatalf("%.300q: the connection is not closed: %v", r.request, err)
			}
		}
		_ = conn.Close()
	}
}

// wantProblem wants an answer to be the row's problem and nothing else.
func (s *server) wantProblem(r row, a rawAnswer) {
	s.t.Helper()
	fail := func(format string, args ...any) {
		s.t.Helper()
		s.t.Errorf("%.300q: %s; want %d %s %q, got %q", r.request, fmt.Sprintf(format, args...), r.status, r.code, r.detail, a.all)
	}
	var p struct {
		Type, Title, Code, Detail string
		Status                    int
	}
	if methodOf(r.request) != "HEAD" {
		if err := json.Unmarshal([]byte(a.body), &p); err != nil {
			fail("the body is no JSON: %v", err)
			return
		}
	}
	switch {
	case a.status != r.status:
		fail("the status is wrong")
	case strings.Contains(a.all, mark):
		fail("the answer repeats the request")
	case methodOf(r.request) == "HEAD":
	case p.Status != r.status, p.Code != r.code, p.Type != "urn:stampede:problem:"+r.code, p.Title == "":
		fail("the problem is another")
	case p.Detail == "", !pattern(r.detail).MatchString(p.Detail):
		fail("the detail does not help")
	}
	for header, want := range map[string]string{
		"content-type": `^application/problem\+json$`, "x-content-type-options": "^nosniff$", "cache-control": "^no-store$",
		"x-request-id": only(r.request != "", "^[A-Za-z0-9._-]+$"), "server": "^$", "idempotent-replayed": "^$",
		"allow": only(r.status == 405, "^[A-Z]+(, [A-Z]+)*$"), "www-authenticate": only(r.status == 401, "^Bearer"),
		"retry-after": only(r.status == 429 || r.status == 503, "^[1-9][0-9]*$"),
	} {
		if !pattern(want).MatchString(a.headers[header]) {
			fail("the header %s is %q", header, a.headers[header])
		}
	}
}

// only is what a header must match where it belongs; elsewhere it must not stand.
func only(belongs bool, want string) string {
	if belongs {
		return want
	}
	return "^$"
}

var patterns sync.Map // by text: they are the same few, ten thousand times

func pattern(text string) *regexp.Regexp {
	if known, found := patterns.Load(text); found {
		return known.(*regexp.Regexp)
	}
	compiled := regexp.MustCompile(text)
	patterns.Store(text, compiled)
	return compiled
}

// What reads the answers must notice what is wrong with them.
func TestRaw_AnswersAreReadStrictly(t *testing.T) {
	const good = "HTTP/1.1 200 OK\r\nDate: x\r\nContent-Length: 2\r\n\r\nok"
	for _, c := range []struct {
		text string
		fine bool
	}{
		{good, true},
		{strings.Replace(good, "HTTP/1.1", "HTTP/1.0", 1), false},
		{strings.Replace(good, "\r\nDate", "\nDate", 1), false},
		{strings.Replace(good, "Date: x", "Date:x", 1), false},
		{strings.Replace(good, "Date: x", "Date: x\r\nDate: x", 1), false},
		{strings.Replace(good, "Length: 2", "Length: 3", 1), false},
		{strings.Replace(good, "Length: 2", "Length: 02", 1), false},
		{strings.Replace(good, "Content-Length: 2\r\n", "", 1), false},
	} {
		here, there := net.Pipe()
		go func() {
			_, _ = there.Write([]byte(c.text))
			_ = there.Close()
		}()
		if a, err := (&rawConn{here, bufio.NewReader(here)}).answer("GET"); (err == nil) != c.fine {
			t.Errorf("%q is read as %+v, %v", c.text, a, err)
		}
		_ = here.Close()
	}
}

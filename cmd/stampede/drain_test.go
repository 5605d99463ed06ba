package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
	"stampede/persist"
)

// stopMax is how long an orderly stop of `serve` may take.
const stopMax = drainMax + closeMax

// serveOn runs `serve` on the servers of a test until it is ready.
func serveOn(t *testing.T, on *stack.Stack) *server {
	t.Helper()
	return launch(t, "STAMPEDE_REDIS_URL="+on.RedisURL(), "STAMPEDE_POSTGRES_URL="+on.PostgresURL(), "STAMPEDE_ADMIN_TOKEN="+secret,
		"STAMPEDE_RATE_LIMIT_USER=0", "STAMPEDE_ADDR=127.0.0.1:0", "serve").ready(secret)
}

func (s *server) address() string { return strings.TrimPrefix(s.url, "http://") }

// connect opens a connection and sends the beginning of a request.
func (s *server) connect(begin string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.address())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, begin); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

// dribble sends a header that never ends, a byte at a time, until the other side has had enough.
func (s *server) dribble() {
	conn := s.connect("GET /products HTTP/1.1\r\nHost: shop\r\nX-Slow: ")
	go func() {
		for {
			if _, err := conn.Write([]byte("x")); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
}

// awaitConnections waits until the server has taken that many beside the one that asks: what only the kernel has taken
// ends with the listener.
func (s *server) awaitConnections(n int) {
	s.t.Helper()
	var open int
	for deadline := time.Now().Add(patience); open <= n; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%d connections, want %d and one more", open, n)
		}
		resp, err := http.Get(s.url + "/metrics")
		if err != nil {
			s.t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			s.t.Fatal(err)
		}
		_, line, _ := strings.Cut(string(text), "\nstampede_http_connections ")
		_, _ = fmt.Sscan(line, &open)
	}
}

// awaitRefusal waits until nobody listens any more.
func (s *server) awaitRefusal() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", s.address())
		if errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if err == nil {
			_ = conn.Close()
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("connections are still accepted: %v", err)
		}
	}
}

// awaitLogged waits until the log says something.
func (p *program) awaitLogged(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !strings.Contains(p.err.String(), text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("the log never says that %s", text)
		}
	}
}

// wantRunning wants the program not to have ended.
func (s *server) wantRunning(when string) {
	s.t.Helper()
	select {
	case <-s.exited:
		s.t.Fatalf("%s: it has ended", when)
	default:
	}
}

// wantStopped waits for the end, and wants it in order and in time.
func (s *server) wantStopped(since time.Time, within time.Duration) {
	s.t.Helper()
	if code := s.code(); code != exitDone {
		s.t.Errorf("exit code %d", code)
	}
	if took := time.Since(since); took > within {
		s.t.Errorf("it took %s to stop, at most %s is right", took, within)
	}
}

// wantInBooks wants the orders of the shoppers, and no others than they asked for, in PostgreSQL, nothing left in Redis
// that it lacks, and the audit content.
func wantInBooks(t *testing.T, on *stack.Stack, shoppers []*shopper) {
	t.Helper()
	if lag := lagOf(t, on); lag != 0 {
		t.Errorf("%d events are in Redis alone", lag)
	}
	conn, err := pgx.Connect(within(t), on.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	rows, _ := conn.Query(within(t), "SELECT id::text FROM orders") // CollectRows tells the error
	written, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(within(t))
	slices.Sort(written)
	answered, open := 0, 0
	for _, c := range shoppers {
		answered += len(c.placed)
		open += c.unanswered
		for _, id := range c.placed {
			if _, found := slices.BinarySearch(written, id); !found {
				t.Errorf("order %s was answered, and is not in the books", id)
			}
		}
	}
	if len(written) < answered || len(written) > answered+open {
		t.Errorf("%d orders are in the books; %d were answered and %d requests were not", len(written), answered, open)
	}
	code, out, text := finish(t, "STAMPEDE_REDIS_URL="+on.RedisURL(), "STAMPEDE_POSTGRES_URL="+on.PostgresURL(), "audit")
	if code != exitDone || !strings.Contains(out, "all holds") {
		t.Errorf("audit: %d\n%s%s", code, out, text)
	}
}

// lagOf is how many events Redis holds and PostgreSQL does not, as they stand there.
func lagOf(t *testing.T, on *stack.Stack) int64 {
	t.Helper()
	client, err := engine.Connect(engine.Redis{URL: on.RedisURL()}, 1, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	books, err := persist.OpenExisting(within(t), on.PostgresURL(), quietLog())
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	unstarted, err := engine.New(engine.Config{Redis: client, Partitions: 1})
	if err != nil {
		t.Fatal(err)
	}
	books.Attach(unstarted)
	lag, err := books.Lag(within(t))
	if err != nil {
		t.Fatal(err)
	}
	return lag.Events
}

// A signal under load: what is under way is answered, nobody new is let in, clients who only keep a connection busy cost
// no more than the bound, and all that was answered is in the books at the end, though the writer got nowhere at first.
func TestServe_StopsInOrderUnderLoad(t *testing.T) {
	t.Parallel()
	on := stacktest.Start(t, stack.Options{})
	s := serveOn(t, on)
	shoppers := s.shoppers(25)
	late := shoppers[24] // sends half of a request before the signal, and the rest after
	request := late.order("late")
	unfinished := s.connect(request[:len(request)-20])
	s.dribble()
	idle, silent := s.connect(""), s.connect("")
	s.awaitConnections(4)
	if status, _, last, err := exchange(idle, bufio.NewReader(idle), "GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n"); status != 200 || last || err != nil {
		t.Fatalf("%d %v %v", status, last, err)
	}

	var all sync.WaitGroup
	for _, c := range shoppers[:24] {
		all.Go(c.shop)
	}
	awaitAnswered := func(orders int64) {
		t.Helper()
		for deadline := time.Now().Add(patience); late.answered.Load() < orders; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("only %d orders are answered: that is no load", late.answered.Load())
			}
		}
	}
	awaitAnswered(500)
	unlock := lockBooks(t, on)
	awaitAnswered(late.answered.Load() + 100)
	signalled := time.Now()
	s.signal(syscall.SIGTERM)
	s.awaitRefusal()
	all.Wait()
	s.wantRunning("with a request under way")
	if n, err := idle.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the idle connection stays open: %d, %v", n, err)
	}
	status, body, last, err := exchange(unfinished, bufio.NewReader(unfinished), request[len(request)-20:])
	if status != 201 || !last || err != nil {
		t.Errorf("the request under way is answered by %d %s, the last %v, %v", status, body, last, err)
	}
	var made shopOrder
	_ = json.Unmarshal(body, &made) // no order is missed below
	late.placed = append(late.placed, made.ID)
	if n, err := silent.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection without a request stays open: %d, %v", n, err)
	}
	s.awaitLogged("requests under way were cut") // of the one who dribbles
	unlock()
	s.wantStopped(signalled, stopMax)
	if text := s.err.String(); strings.Contains(text, "waits in Redis") || strings.Contains(text, "does not close") {
		t.Errorf("the log tells of the stop:\n%s", text)
	}
	wantInBooks(t, on, shoppers)
}

// lockBooks keeps the writer from writing until unlock is called.
func lockBooks(t *testing.T, on *stack.Stack) (unlock func()) {
	t.Helper()
	conn, err := pgx.Connect(within(t), on.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if _, err := conn.Exec(within(t), "BEGIN; LOCK TABLE events IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	return func() {
		if _, err := conn.Exec(within(t), "ROLLBACK"); err != nil {
			t.Error(err)
		}
	}
}

// Beside a PostgreSQL that hangs the stop has its bound too; what the writer did not reach waits in Redis for the next
// start. A second signal has no patience with anybody.
func TestServe_StopsBesideAFrozenPostgres(t *testing.T) {
	t.Parallel()
	on := stacktest.Start(t, stack.Options{})
	first := serveOn(t, on)
	shoppers := first.shoppers(1)
	first.awaitWritten()
	pidFile := filepath.Join(on.PostgresDir(), "postmaster.pid")
	freeze(t, pidFile)
	t.Cleanup(func() { thaw(t, pidFile) })
	for n := range 20 {
		var made shopOrder
		first.want(201, "POST", "/order", fmt.Sprint(n), map[string]any{
			"user_id": shoppers[0].user, "items": []map[string]any{{"product_id": shoppers[0].product, "quantity": 1}},
		}, &made)
		shoppers[0].placed = append(shoppers[0].placed, made.ID)
	}
	signalled := time.Now()
	first.signal(syscall.SIGTERM)
	first.wantStopped(signalled, stopMax)
	if text := first.err.String(); !strings.Contains(text, "waits in Redis") && !strings.Contains(text, "does not close") {
		t.Errorf("the log tells nothing of what is not written:\n%s", text)
	}

	thaw(t, pidFile)
	second := serveOn(t, on)
	second.awaitWritten()
	second.dribble()
	second.connect(shoppers[0].order("never")[:80])
	second.awaitConnections(2)
	second.signal(syscall.SIGTERM)
	second.awaitRefusal()
	time.Sleep(echo + 100*time.Millisecond) // until then another signal is an echo
	second.wantRunning("after one signal")
	signalled = time.Now()
	second.signal(syscall.SIGTERM)
	second.wantStopped(signalled, drainMax/2)
	wantInBooks(t, on, shoppers)
}

// thaw has PostgreSQL's processes go on.
func thaw(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return // it has ended
	}
	var postmaster, child int
	if _, err := fmt.Sscan(string(text), &postmaster); err != nil {
		t.Fatal(err)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", postmaster))
	if err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(postmaster, syscall.SIGCONT) // one that has ended is as good
	for _, field := range strings.Fields(string(children)) {
		if _, err := fmt.Sscan(field, &child); err == nil {
			_ = syscall.Kill(child, syscall.SIGCONT)
		}
	}
}

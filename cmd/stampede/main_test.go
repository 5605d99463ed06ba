package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is the command as users run it.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "stampede-binary-*")
	if err == nil {
		binary = filepath.Join(dir, "stampede")
		err = build(binary)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "build the command:", err)
		os.Exit(1)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// build takes the race detector along where the tests run under it: a race then ends the command with code 66.
func build(to string) error {
	args := []string{"build", "-ldflags", "-X main.version=v0-test -X main.commit=abc123", "-o", to}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "-race" && setting.Value == "true" {
				args = append(args, "-race")
			}
		}
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// patience bounds every wait for another process.
const patience = 30 * time.Second

// program is the command on its way.
type program struct {
	t        testing.TB
	cmd      *exec.Cmd
	out, err *transcript
	exited   chan struct{}
}

// transcript is what a program wrote so far.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *transcript) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *transcript) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// launch starts the command with variables ("NAME=value") before its arguments. It is killed when the test ends, at
// the latest.
func launch(t testing.TB, args ...string) *program {
	t.Helper()
	p := &program{t: t, out: &transcript{}, err: &transcript{}, exited: make(chan struct{})}
	p.prepare(args)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.err
	p.begin()
	return p
}

func (p *program) prepare(args []string) {
	// Under the race detector a program sleeps for a second before it exits, unless told not to.
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "GORACE=atexit_sleep_ms=0"}
	for len(args) > 0 && strings.HasPrefix(args[0], "STAMPEDE_") {
		env, args = append(env, args[0]), args[1:]
	}
	p.cmd = exec.Command(binary, args...)
	p.cmd.Env = env
}

func (p *program) begin() {
	p.t.Helper()
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.cmd.Wait() // how it ended stands in ProcessState
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.exited
		if p.t.Failed() {
			p.t.Logf("%s:\n%s%s", strings.Join(p.cmd.Args[1:], " "), p.out, p.err)
		}
	})
}

func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %v: %v", sig, err)
	}
}

// code waits for the end and returns the exit code; -1 after a signal.
func (p *program) code() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		p.t.Fatalf("%v does not end:\n%s", p.cmd.Args[1:], p.err)
		return 0
	}
}

// stop sends SIGINT and wants an orderly end.
func (p *program) stop() {
	p.t.Helper()
	p.signal(syscall.SIGINT)
	if code := p.code(); code != exitDone {
		p.t.Errorf("exit code %d after SIGINT, want 0\n%s", code, p.err)
	}
}

// finish runs the command to its end.
func finish(t testing.TB, args ...string) (code int, out, err string) {
	t.Helper()
	p := launch(t, args...)
	code = p.code()
	return code, p.out.String(), p.err.String()
}

// server is an `up` or `serve` that is ready.
type server struct {
	*program
	url   string
	token string
}

const readyLine = "Stampede is ready at "

// ready waits until the program says so.
func (p *program) ready(token string) *server {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if line, _, whole := strings.Cut(p.out.String(), "\n"); whole {
			url, found := strings.CutPrefix(line, readyLine)
			if !found {
				p.t.Fatalf("first line on stdout: %q", line)
			}
			return &server{program: p, url: url, token: token}
		}
		select {
		case <-p.exited:
			p.t.Fatalf("%v ended before it was ready:\n%s", p.cmd.Args[1:], p.err)
		default:
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%v is never ready:\n%s", p.cmd.Args[1:], p.err)
		}
	}
}

// up runs `up` on a free port until it is ready.
func up(t testing.TB, dir string, args ...string) *server {
	t.Helper()
	s := launch(t, append([]string{"up", "--addr", "127.0.0.1:0", "--data-dir", dir}, args...)...).ready("")
	s.token = env(t, dir).adminToken
	return s
}

func env(t testing.TB, dir string) stackEnv {
	t.Helper()
	e, err := readStackEnv(dir)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// call makes a request as admin, if the token is known, with an idempotency key, and reads the answer into to.
func (s *server) call(method, path, key string, body, to any) int {
	s.t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, bytes.NewReader(text))
	if err != nil {
		s.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer answer.Body.Close()
	if text, err = io.ReadAll(answer.Body); err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	if to != nil {
		if err := json.Unmarshal(text, to); err != nil {
			s.t.Fatalf("%s %s: %d %s: %v", method, path, answer.StatusCode, text, err)
		}
	}
	return answer.StatusCode
}

// purchase is an order with what it needs, made by HTTP.
type purchase struct{ user, product, order string }

func (s *server) buy(email string) purchase {
	s.t.Helper()
	var made purchase
	var created struct{ ID string }
	if status := s.call("POST", "/users", "", map[string]any{"name": "A buyer", "email": email}, &created); status != 201 {
		s.t.Fatalf("POST /users: %d", status)
	}
	made.user = created.ID
	if status := s.call("POST", "/balance/charge", "charge", map[string]any{"user_id": made.user, "amount": 1000}, nil); status != 200 {
		s.t.Fatalf("POST /balance/charge: %d", status)
	}
	if status := s.call("POST", "/products", "", map[string]any{"name": "A thing of " + email, "price": 300, "stock": 5}, &created); status != 201 {
		s.t.Fatalf("POST /products: %d", status)
	}
	made.product = created.ID
	if status := s.order(made, &created); status != 201 {
		s.t.Fatalf("POST /order: %d", status)
	}
	made.order = created.ID
	return made
}

// order places the order of a purchase, under a key of its own.
func (s *server) order(p purchase, to any) int {
	s.t.Helper()
	items := []map[string]any{{"product_id": p.product, "quantity": 2}}
	return s.call("POST", "/order", "order", map[string]any{"user_id": p.user, "items": items}, to)
}

// wantKept looks whether everything about a purchase is still there.
func (s *server) wantKept(p purchase) {
	s.t.Helper()
	var order struct {
		Status string
		Total  int64 `json:"total_price"`
	}
	s.call("GET", "/order/"+p.order+"?user_id="+p.user, "", nil, &order)
	if order.Status != "SUCCESS" || order.Total != 600 {
		s.t.Errorf("order %s: %+v", p.order, order)
	}
	var balance struct{ Balance int64 }
	if s.call("GET", "/balance?user_id="+p.user, "", nil, &balance); balance.Balance != 400 {
		s.t.Errorf("balance %d, want 400", balance.Balance)
	}
	var product struct{ Stock int64 }
	if s.call("GET", "/products/"+p.product, "", nil, &product); product.Stock != 3 {
		s.t.Errorf("stock %d, want 3", product.Stock)
	}
}

// wantNothingLeft fails where a process still works below the directory.
func wantNothingLeft(t testing.TB, dir string) {
	t.Helper()
	if left := processesBelow(t, dir); len(left) > 0 {
		t.Errorf("still running in %s: %v", dir, left)
	}
}

func processesBelow(t testing.TB, dir string) (found []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			name, err := os.ReadFile(filepath.Join(filepath.Dir(link), "comm"))
			if !errors.Is(err, os.ErrNotExist) {
				found = append(found, link+" "+strings.TrimSpace(string(name)))
			}
		}
	}
	return found
}

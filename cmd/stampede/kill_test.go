package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// Kills of every process in turn while buyers buy: whatever was answered stands, whatever was not resolves to one
// outcome when it is asked again, and the books close.
func TestKill_NoAnsweredOrderIsLost(t *testing.T) {
	kills := 3
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		kills = 50
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d kills", seed, kills)
	random := rand.New(rand.NewPCG(seed, 0))
	dir, port := stacktest.Dir(t), freePort(t)
	args := []string{"up", "--addr", "127.0.0.1:" + strconv.Itoa(port), "--data-dir", dir}
	s := launch(t, args...).ready("")
	s.token = env(t, dir).adminToken
	crowd := newCrowd(s, 16, []int{40_000, 300})

	stop := crowd.buy()
	victims := []string{"redis-server", "postgres", "stampede"}
	for n := range kills {
		time.Sleep(time.Duration(300+random.IntN(700)) * time.Millisecond)
		switch victim := victims[n%len(victims)]; victim {
		case "stampede":
			s.signal(syscall.SIGKILL)
			<-s.exited
			s = launch(t, args...).ready(s.token)
		default:
			pid := childOf(t, s.cmd.Process.Pid, victim)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	s.awaitReady()
	stop()
	crowd.resolve(s)
	crowd.check(s, dir)
	s.stop()
	wantNothingLeft(t, dir)
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// childOf waits for a child with that name: it may just be on its way back from an earlier kill.
func childOf(t *testing.T, parent int, name string) int {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range stats {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it has just ended
			}
			var pid, ppid int
			var comm, state string
			if _, err := fmt.Sscan(string(text), &pid, &comm, &state, &ppid); err == nil && ppid == parent && comm == "("+name+")" {
				return pid
			}
		}
	}
	t.Fatalf("%d has no child %s", parent, name)
	return 0
}

// awaitReady waits until /readyz says so.
func (s *server) awaitReady() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var body struct{ Problems []string }
		if s.call("GET", "/readyz", "", nil, &body) == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("never ready: %v", body.Problems)
		}
	}
}

// attempt is an order as a buyer knows it.
type attempt struct {
	key, body string
	status    int // 0: no answer came
	answer    string
}

// definite tells whether the buyer knows what became of it. 503 says that nothing was done.
func (a *attempt) definite() bool {
	return a.status != 0 && a.status != http.StatusGatewayTimeout && a.status != http.StatusInternalServerError
}

// crowd buys, and keeps a log of every attempt and reply.
type crowd struct {
	t        *testing.T
	url      string
	users    []string
	products []string
	client   *http.Client

	mu  sync.Mutex
	log []*attempt
}

func newCrowd(s *server, buyers int, stocks []int) *crowd {
	c := &crowd{t: s.t.(*testing.T), url: s.url, client: &http.Client{Timeout: 10 * time.Second}}
	var created struct{ ID string }
	for n := range buyers {
		if status := s.call("POST", "/users", "", map[string]any{"name": "A buyer", "email": fmt.Sprintf("b%d@example.com", n)}, &created); status != 201 {
			s.t.Fatalf("POST /users: %d", status)
		}
		// Some run short.
		amount := 1_000_000
		if n%4 == 0 {
			amount = 500
		}
		if status := s.call("POST", "/balance/charge", "charge", map[string]any{"user_id": created.ID, "amount": amount}, nil); status != 200 {
			s.t.Fatalf("POST /balance/charge: %d", status)
		}
		c.users = append(c.users, created.ID)
	}
	for n, stock := range stocks {
		if status := s.call("POST", "/products", "", map[string]any{"name": fmt.Sprintf("Thing %d", n), "price": 3 + n, "stock": stock}, &created); status != 201 {
			s.t.Fatalf("POST /products: %d", status)
		}
		c.products = append(c.products, created.ID)
	}
	return c
}

// buy has every buyer place orders until stop is called.
func (c *crowd) buy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for n, user := range c.users {
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(n), 1))
			for i := 0; ctx.Err() == nil; i++ {
				items := fmt.Sprintf(`{"product_id":%s,"quantity":%d}`, c.products[0], 1+random.IntN(2))
				if random.IntN(4) == 0 {
					items += fmt.Sprintf(`,{"product_id":%s,"quantity":1}`, c.products[1])
				}
				a := &attempt{key: fmt.Sprintf("k%d", i), body: fmt.Sprintf(`{"user_id":%s,"items":[%s]}`, user, items)}
				c.send(a)
				c.mu.Lock()
				c.log = append(c.log, a)
				c.mu.Unlock()
				time.Sleep(time.Duration(random.IntN(6)) * time.Millisecond)
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// send makes one attempt and notes what came back.
func (c *crowd) send(a *attempt) {
	a.status, a.answer = 0, ""
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, c.url+"/order", bytes.NewBufferString(a.body))
	if err != nil {
		return
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", a.key)
	answer, err := c.client.Do(request)
	if err != nil {
		return
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil {
		a.status, a.answer = answer.StatusCode, string(text)
	}
}

// resolve asks again for every attempt whose outcome is open, until it is not.
func (c *crowd) resolve(s *server) {
	c.url = s.url
	open := 0
	for _, a := range c.log {
		if a.definite() {
			continue
		}
		open++
		for deadline := time.Now().Add(patience); !a.definite() || a.status == http.StatusServiceUnavailable; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				c.t.Fatalf("key %s of %s does not resolve: %d %s", a.key, a.body, a.status, a.answer)
			}
			c.send(a)
		}
	}
	byStatus := map[int]int{}
	for _, a := range c.log {
		byStatus[a.status]++
	}
	c.t.Logf("%d attempts, %d of them open after the kills; statuses %v", len(c.log), open, byStatus)
	if byStatus[http.StatusCreated] < 100 {
		c.t.Errorf("only %d orders were placed: the load was no load", byStatus[http.StatusCreated])
	}
}

// check holds what buyers were told against the shop and its books.
func (c *crowd) check(s *server, dir string) {
	placed := 0
	for _, a := range c.log {
		if a.status != http.StatusCreated {
			continue
		}
		placed++
		again := &attempt{key: a.key, body: a.body}
		c.send(again)
		if again.status != http.StatusCreated || again.answer != a.answer {
			c.t.Errorf("key %s of %s was answered %s, and now %d %s", a.key, a.body, a.answer, again.status, again.answer)
		}
	}
	code, out, text := finish(c.t, "audit", "--data-dir", dir, "--json")
	if code != exitDone {
		c.t.Errorf("audit: exit %d: %s%s", code, out, text)
	}
	var found struct{ Summary struct{ Orders int } }
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&found); err != nil {
		c.t.Errorf("audit: %v: %s", err, out)
	}
	if found.Summary.Orders != placed {
		c.t.Errorf("the books hold %d orders, buyers know of %d", found.Summary.Orders, placed)
	}
}

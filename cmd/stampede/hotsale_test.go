package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

const hotBuyers = 96

// hotUnits is how many units are on sale: where time is short enough that the faults come in the middle.
func hotUnits() int64 {
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		return 10_000
	}
	return 2_500
}

// hotSale is one product that everybody wants, sold by two processes on a cluster.
type hotSale struct {
	t       *testing.T
	on      *stack.Stack
	servers []*server
	client  *http.Client
	product string
	users   []string

	mu   sync.RWMutex
	urls []string // of the processes that live

	keys     atomic.Int64
	accepted atomic.Int64
	gone     atomic.Int64 // answers that it is sold out
	later    atomic.Int64 // 503
	unknown  atomic.Int64 // 504, or none
}

func newHotSale(t *testing.T) *hotSale {
	t.Helper()
	on := stacktest.Start(t, stack.Options{RedisNodes: 3, RedisReplicas: 1, RedisNodeTimeout: time.Second})
	h := &hotSale{t: t, on: on, client: &http.Client{
		Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: hotBuyers},
	}}
	for range 2 {
		s := serveOn(t, on)
		h.servers, h.urls = append(h.servers, s), append(h.urls, s.url)
	}
	var made struct{ ID string }
	for i := range hotBuyers {
		h.servers[0].want(201, "POST", "/users", "", map[string]any{"name": "Buyer", "email": fmt.Sprintf("hot%d@example.com", i)}, &made)
		h.servers[0].want(200, "POST", "/balance/charge", "charge", map[string]any{"user_id": made.ID, "amount": 1_000_000}, nil)
		h.users = append(h.users, made.ID)
	}
	return h
}

// offer lists a new product.
func (h *hotSale) offer(units int64) {
	h.t.Helper()
	var made struct{ ID string }
	h.servers[len(h.servers)-1].want(201, "POST", "/products", "", map[string]any{"name": "Hot", "price": 1, "stock": units}, &made)
	h.product = made.ID
	h.accepted.Store(0)
}

func (h *hotSale) url(n int64) string {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.urls[n%int64(len(h.urls))]
}

// die kills a process; buyers go on with the others.
func (h *hotSale) die(n int) {
	h.mu.Lock()
	h.urls = append(h.urls[:n:n], h.urls[n+1:]...)
	h.mu.Unlock()
	h.servers[n].signal(syscall.SIGKILL)
	<-h.servers[n].exited
	h.servers = append(h.servers[:n:n], h.servers[n+1:]...)
}

// everybodyBuys has all buyers order a unit each, over and over, until they hear that it is gone.
func (h *hotSale) everybodyBuys() {
	var all sync.WaitGroup
	for n, user := range h.users {
		all.Go(func() {
			for h.buy(user, int64(n)) {
			}
		})
	}
	all.Wait()
}

// buy orders until the outcome is known; false: it is gone.
func (h *hotSale) buy(user string, n int64) bool {
	key := fmt.Sprint("hot ", h.keys.Add(1))
	body := fmt.Sprintf(`{"user_id":%s,"items":[{"product_id":%s,"quantity":1}]}`, user, h.product)
	for deadline := time.Now().Add(2 * patience); ; n++ {
		status, answer := h.send(h.url(n), key, body)
		switch status {
		case http.StatusCreated:
			h.accepted.Add(1)
			return true
		case http.StatusConflict:
			var problem struct {
				Code string
				Left *int64
			}
			if err := json.Unmarshal(answer, &problem); err != nil || problem.Code != "out_of_stock" || problem.Left == nil || *problem.Left > 0 {
				h.t.Errorf("refused with %s", answer)
			}
			h.gone.Add(1)
			return false
		case http.StatusServiceUnavailable:
			h.later.Add(1)
		case http.StatusGatewayTimeout, 0:
			h.unknown.Add(1)
		default:
			h.t.Errorf("an order is answered by %d %s", status, answer)
			return false
		}
		if time.Now().After(deadline) {
			h.t.Errorf("the order under key %q never has an outcome: %d %s", key, status, answer)
			return false
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// send makes a request; status 0: no answer came.
func (h *hotSale) send(url, key, body string) (status int, answer []byte) {
	request, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, url+"/order", bytes.NewBufferString(body))
	if err != nil {
		return 0, nil
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	response, err := h.client.Do(request)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	if answer, err = io.ReadAll(response.Body); err != nil {
		return 0, nil
	}
	return response.StatusCode, answer
}

// sold is how many units the books know to be sold and not given back.
func (h *hotSale) sold() (units int64) {
	h.t.Helper()
	h.servers[len(h.servers)-1].awaitWritten()
	conn, err := pgx.Connect(within(h.t), h.on.PostgresURL())
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close(within(h.t)) }()
	err = conn.QueryRow(within(h.t), "SELECT coalesce(sum(quantity), 0)::bigint FROM order_items WHERE product_id = $1", h.product).Scan(&units)
	if err != nil {
		h.t.Fatal(err)
	}
	return units
}

func (h *hotSale) report(what string, took time.Duration) {
	h.t.Logf("%s: %d accepted in %v, %d times sold out, %d times 503, %d times unknown", what, h.accepted.Load(), took.Round(time.Millisecond),
		h.gone.Load(), h.later.Load(), h.unknown.Load())
}

// A hot product is sold to buyers of all partitions by two processes on a cluster of three masters: all of it, and no more.
// And again while a process is killed, and a master, whose replica lags and takes over; the old master comes back.
func TestCluster_HotProductSellsToTheLastUnit(t *testing.T) {
	t.Parallel()
	h, units := newHotSale(t), hotUnits()

	h.offer(units)
	start := time.Now()
	h.everybodyBuys()
	h.report("calm", time.Since(start))
	if sold := h.sold(); sold != units || h.accepted.Load() != units {
		t.Errorf("of %d units %d were accepted and %d sold", units, h.accepted.Load(), sold)
	}
	wantInOrder(t, h.on)

	h.offer(units)
	start = time.Now()
	var faults sync.WaitGroup
	faults.Go(func() { h.faults() })
	h.everybodyBuys()
	faults.Wait()
	// A failover takes back what its replica had not got: those units are for sale again.
	h.everybodyBuys()
	h.report("with faults", time.Since(start))
	sold := h.sold()
	if sold != units || h.accepted.Load() < units {
		t.Errorf("of %d units %d were accepted and %d sold", units, h.accepted.Load(), sold)
	}
	// Those of the process that was killed before are the only ones that nobody can name.
	lost, named := h.accepted.Load()-sold, h.named()
	t.Logf("%d orders were acknowledged by a master and lost with it, %d events are named", lost, named)
	if lost > named {
		t.Errorf("%d orders are lost, the books name %d events", lost, named)
	}
	wantInOrder(t, h.on)
}

// faults kills a process, lets a replica lag, kills its master, waits for the promotion and has the old master come back.
func (h *hotSale) faults() {
	ctx := h.t.Context()
	time.Sleep(300 * time.Millisecond)
	h.die(0)
	time.Sleep(200 * time.Millisecond)
	masters := stacktest.Masters(h.t, h.on)
	victim := masters[1]
	nodes := h.on.Redises()
	var replica stack.RedisNode
	for i, node := range nodes {
		if node.Addr == victim.Addr {
			replica = nodes[(i+3)%len(nodes)]
		}
	}
	h.cutOff(replica, victim)
	time.Sleep(200 * time.Millisecond) // it lags by that
	if err := victim.HaltNow(ctx); err != nil {
		h.t.Error(err)
	}
	promoted := stacktest.AwaitPromotion(h.t, h.on, victim)
	if promoted.Addr != replica.Addr {
		h.t.Errorf("%s took over from %s, whose replica is %s", promoted.Addr, victim.Addr, replica.Addr)
	}
	if err := victim.Resume(ctx); err != nil {
		h.t.Error(err)
	}
}

// cutOff breaks the connection from a replica to its master, for good.
func (h *hotSale) cutOff(replica, master stack.RedisNode) {
	h.do(replica, "CONFIG", "SET", "masterauth", "wrong")
	h.do(master, "CLIENT", "KILL", "TYPE", "replica")
}

func (h *hotSale) do(node stack.RedisNode, command ...any) {
	o, err := redis.ParseURL(node.URL)
	if err != nil {
		h.t.Fatal(err)
	}
	client := redis.NewClient(o)
	defer client.Close() //nolint:errcheck // nothing is pending
	if err := client.Do(h.t.Context(), command...).Err(); err != nil {
		h.t.Errorf("%v: %v", command, err)
	}
}

// named is how many acknowledged events the books name as lost.
func (h *hotSale) named() (events int64) {
	h.t.Helper()
	conn, err := pgx.Connect(within(h.t), h.on.PostgresURL())
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = conn.Close(within(h.t)) }()
	err = conn.QueryRow(within(h.t), "SELECT coalesce(sum(acknowledged_seq - ended_seq), 0)::bigint FROM losses").Scan(&events)
	if err != nil {
		h.t.Fatal(err)
	}
	return events
}

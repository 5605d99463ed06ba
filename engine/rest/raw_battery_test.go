package rest_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop"
	"stampede/engine"
)

// battery is a shop that is asked for everything that it must refuse.
type battery struct {
	*server
	buyer, other     int64 // with something in their carts
	nobody           int64 // a buyer who has done nothing
	product, another int64
	dear             []int64 // 100 products at the highest price; the other buyer has a cart full of them
	held             string  // an order of the buyer, unpaid
}

// as is the battery under a test of its own.
func (b *battery) as(t *testing.T) *battery {
	s, c := *b.server, *b
	s.t, c.server = t, &s
	return &c
}

func newBattery(t *testing.T) *battery {
	t.Helper()
	b := &battery{server: start(t, shop.Config{})}
	b.buyer, b.other, b.nobody = b.User(1000), b.User(1000), b.User(0)
	b.product, b.another = b.Product(10, 100), b.Product(1, 100)
	b.held = b.wantOrder(201, "PENDING", "POST", "/order", line(b.buyer, b.product, 1, "later")).ID
	b.wantOrder(201, "PENDING SUCCESS", "POST", "/order", line(b.buyer, b.product, 1, "now"))
	b.want(200, nil, "POST", "/cart/add", fmt.Sprintf(`{"user_id":%d,"product_id":%d,"quantity":3}`, b.buyer, b.another))
	return b
}

// TestAPI_BadInput sends whatever a client may not send to every route that would take it. Each request is refused
// as the contract says, and when all are through nothing has changed, nothing was written, and nothing lingers.
func TestAPI_BadInput(t *testing.T) {
	b := newBattery(t)
	for range engine.LinesMax {
		p := b.Product(engine.PriceMax, b.inEach(engine.QuantityMax)) // none is lent for what is refused then
		if _, _, err := b.Engine.AddToCart(t.Context(), engine.CartAddRequest{UserID: b.other, ProductID: p, Quantity: engine.QuantityMax}); err != nil {
			t.Fatal(err)
		}
		b.dear = append(b.dear, p)
	}
	http.DefaultClient.CloseIdleConnections()
	before, running := b.everything(), len(goroutines())
	for _, theme := range []struct {
		name string
		run  func(*battery)
	}{
		{"json", (*battery).badJSON},
		{"numbers", (*battery).badNumbers},
		{"lines", (*battery).badLines},
		{"the dearest order", (*battery).dearest},
		{"text", (*battery).badText},
		{"ids", (*battery).badIDs},
		{"keys", (*battery).badKeys},
		{"paths", (*battery).badPaths},
		{"lists", (*battery).badLists},
		{"media types", (*battery).badMedia},
		{"sizes", (*battery).badSizes},
		{"batches", (*battery).badBatches},
		{"framing", (*battery).badFraming},
		{"chunks", (*battery).badChunks},
		{"request lines", (*battery).badRequestLines},
		{"headers", (*battery).badHeaders},
		{"smuggling", (*battery).smuggling},
		{"cut off", (*battery).cutOff},
	} {
		t.Run(theme.name, func(t *testing.T) { theme.run(b.as(t)) })
	}
	b.wantUnchanged(before)
	b.auditClean()
	b.backTo(running)
	b.takesThem()
}

// taker is a route that takes a body, with one that it takes.
type taker struct {
	method, path, body string
	status             int    // of the success
	as                 string // the header line that says who acts
}

// takers are all of them, in an order in which each can succeed.
func (b *battery) takers() []taker {
	user := fmt.Sprintf(`"user_id":%d`, b.buyer)
	buyer, admin := fmt.Sprintf("X-User-Id: %d", b.buyer), "Authorization: Bearer "+adminToken
	return []taker{
		{"POST", "/users", `{"name":"Eve","email":"eve@example.com"}`, 201, admin},
		{"POST", "/balance/charge", `{` + user + `,"amount":5}`, 200, buyer},
		{"POST", "/products", `{"name":"Lamp","price":5,"stock":5}`, 201, admin},
		{"PATCH", fmt.Sprintf("/products/%d", b.product), `{"name":"Lamp","price":5}`, 200, admin},
		{"POST", fmt.Sprintf("/products/%d/stock", b.product), `{"delta":5,"reason":"more"}`, 200, admin},
		{"POST", "/order", fmt.Sprintf(`{%s,"items":[{"product_id":%d,"quantity":2}],"payment":"now"}`, user, b.product), 201, buyer},
		{"POST", "/order/" + b.held + "/payment", `{` + user + `}`, 200, buyer},
		{"POST", "/order/" + b.held + "/cancel", `{` + user + `,"reason":"no"}`, 200, buyer},
		{"POST", "/cart/add", fmt.Sprintf(`{%s,"product_id":%d,"quantity":2}`, user, b.product), 200, buyer},
		{"DELETE", "/cart/remove", fmt.Sprintf(`{%s,"product_id":%d}`, user, b.product), 200, buyer},
		{"POST", "/cart/order", `{` + user + `,"payment":"now"}`, 201, buyer},
	}
}

// all are the takers, and the batch, which answers what is wrong with the values of an order inside a success.
func (b *battery) all() []taker {
	batch := fmt.Sprintf(`{"orders":[{"idempotency_key":%q,"user_id":%d,"items":[{"product_id":%d,"quantity":2}]}]}`, freshKey(), b.buyer, b.product)
	return append(b.takers(), taker{"POST", "/orders/batch", batch, 200, "Authorization: Bearer " + adminToken})
}

// oneIn picks every so many of the rows that are sent to one route of several, which read them with the same code: for each
// route others. The long tests send all.
func oneIn(n, route int, rows []row) (some []row) {
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		return rows
	}
	for i := route % n; i < len(rows); i += n {
		some = append(some, rows[i])
	}
	return some
}

// with is a request of the taker with another body.
func (k taker) with(body string, headers ...string) string {
	return call(k.method, k.path, body, append([]string{k.as, "Content-Type: application/json"}, headers...)...)
}

// takesThem shows that what the battery spoiled was good.
func (b *battery) takesThem() {
	b.t.Helper()
	conn := b.dial()
	for _, k := range b.all() {
		if _, err := conn.Write([]byte(k.with(k.body))); err != nil {
			b.t.Fatal(err)
		}
		if a, err := conn.answer(k.method); err != nil || a.status != k.status {
			b.t.Errorf("%s %s %s: %q, %v", k.method, k.path, k.body, a.all, err)
		}
	}
	b.auditClean()
}

// everything is what Redis and Postgres hold, by key and table, once nothing is left to be done between them.
func (s *server) everything() map[string]string {
	s.t.Helper()
	s.Written()
	if err := s.Books.Sync(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	ctx, all := s.t.Context(), s.inRedis()
	conn, err := pgx.Connect(ctx, s.Stack.PostgresURL())
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close(context.Background()) //nolint:errcheck // nothing is pending
	for _, table := range []string{
		"events", "checkpoints", "users", "products", "orders", "order_items", "order_history", "carts", "cart_items", "balance_ledger", "stock_ledger",
	} {
		var rows string
		if err := conn.QueryRow(ctx, "SELECT coalesce(string_agg(t::text, ' ' ORDER BY t::text), '') FROM "+table+" t").Scan(&rows); err != nil {
			s.t.Fatal(err)
		}
		all[table] = rows
	}
	return all
}

// inRedis is what Redis holds, by key, once it has noted what is written.
func (s *server) inRedis() map[string]string {
	s.t.Helper()
	var mu sync.Mutex
	all := map[string]string{}
	err := s.EachRedis(s.t.Context(), func(ctx context.Context, c *redis.Client) error {
		keys := c.Scan(ctx, 0, "*", 1000).Iterator()
		for keys.Next(ctx) {
			value := c.Dump(ctx, keys.Val()).Val()
			mu.Lock()
			all[keys.Val()] = value
			mu.Unlock()
		}
		return keys.Err()
	})
	if err != nil {
		s.t.Fatal(err)
	}
	for p := range s.Engine.Keys().Partitions() {
		s.awaitNoted(p)
		meta := s.Redis.HGetAll(s.t.Context(), s.Engine.Keys().Meta(p)).Val()
		delete(meta, "minute") // these two go with the clock
		delete(meta, "rolled")
		delete(meta, "pulse") // and these with every beat
		delete(meta, "pulse_next")
		all[s.Engine.Keys().Meta(p)] = fmt.Sprint(meta)
	}
	return all
}

// awaitNoted waits until a partition notes that all is written: the writer does that a moment later.
func (s *server) awaitNoted(partition int) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		at, err := s.Engine.Look(s.t.Context(), partition)
		if err == nil && at.Done == at.Bytes {
			return
		} else if time.Now().After(deadline) {
			s.t.Fatalf("what is written is not noted: %+v, %v", at, err)
		}
	}
}

// wantUnchanged wants Redis and Postgres to hold what they held before.
func (s *server) wantUnchanged(before map[string]string) {
	s.t.Helper()
	after := s.everything()
	for what := range after {
		before[what] += "" // what was not there
	}
	for what, was := range before {
		if after[what] != was {
			s.t.Errorf("after refusals only %s is %.300q, it was %.300q", what, after[what], was)
		}
	}
}

// goroutines are the stacks of all that run, but for the workers that wait for a next connection for up to 20 s, and who sends them
// home: it starts with the server, sometimes after a test has counted.
func goroutines() (stacks []string) {
	all := make([]byte, 16<<20)
	for _, stack := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		waits := strings.Contains(stack, ".workerFunc(") && !strings.Contains(stack, ".serveConn(")
		if !waits && !strings.Contains(stack, "workerPool).Start.func") {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// backTo waits until no more goroutines run than did.
func (s *server) backTo(running int) {
	s.t.Helper()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		now := goroutines()
		if len(now) <= running {
			return
		} else if time.Now().After(deadline) {
			s.t.Fatalf("%d goroutines run, %d did before:\n%s", len(now), running, strings.Join(now, "\n\n"))
		}
	}
}

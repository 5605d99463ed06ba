package baseline

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"stampede/cmd/stack"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		// fasthttp's clock runs for ever, and the janitor of a server ends up to 10 s after it.
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

const (
	adminToken = "test-admin-token"
	startMax   = time.Minute
)

// client calls a server that runs until the test ends.
type client struct {
	t    *testing.T
	base string
	http *http.Client
	keys atomic.Int64
}

// run starts a server at a free address and waits until it is ready.
func run(t *testing.T, server func(ctx context.Context, addr string) error) *client {
	t.Helper()
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- server(ctx, addr) }()
	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with: %v", err)
		}
	})
	c := &client{t: t, base: "http://" + addr, http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	for give := time.Now().Add(startMax); ; time.Sleep(20 * time.Millisecond) {
		response, err := c.http.Get(c.base + "/readyz")
		if err == nil {
			_ = response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return c
			}
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended while it started: %v", err)
		default:
		}
		if time.Now().After(give) {
			t.Fatalf("not ready: %v", err)
		}
	}
}

type answer struct {
	status   int
	body     string
	replayed bool
}

func (a answer) field(t *testing.T, name string) string {
	t.Helper()
	var body map[string]any
	d := json.NewDecoder(bytes.NewReader([]byte(a.body)))
	d.UseNumber()
	if err := d.Decode(&body); err != nil || body[name] == nil {
		t.Fatalf("no field %s in %d %s (%v)", name, a.status, a.body, err)
	}
	return fmt.Sprint(body[name])
}

// post sends a body; an empty key is a fresh one.
func (c *client) post(path, key, body string) answer {
	c.t.Helper()
	if key == "" {
		key = fmt.Sprintf("fresh-%d", c.keys.Add(1))
	}
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.base+path, bytes.NewReader([]byte(body)))
	if err != nil {
		c.t.Error(err)
		return answer{}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Idempotency-Key", key)
	request.Header.Set("Authorization", "Bearer "+adminToken)
	response, err := c.http.Do(request)
	if err != nil {
		c.t.Error(err)
		return answer{}
	}
	defer response.Body.Close() //nolint:errcheck // it is read to its end
	text, err := io.ReadAll(response.Body)
	if err != nil {
		c.t.Error(err)
	}
	return answer{response.StatusCode, string(text), response.Header.Get("Idempotent-Replayed") == "true"}
}

// user creates a user with a balance.
func (c *client) user(balance int64) string {
	c.t.Helper()
	made := c.post("/users", "", fmt.Sprintf(`{"name": "Buyer", "email": "buyer%d@example.com"}`, c.keys.Add(1)))
	id := made.field(c.t, "id")
	charged := c.post("/balance/charge", "", fmt.Sprintf(`{"user_id": %s, "amount": %d}`, id, balance))
	if charged.status != http.StatusOK {
		c.t.Fatalf("charge: %+v", charged)
	}
	return id
}

func (c *client) product(price, stock int64) string {
	c.t.Helper()
	made := c.post("/products", "", fmt.Sprintf(`{"name": "Thing", "price": %d, "stock": %d}`, price, stock))
	return made.field(c.t, "id")
}

// buy orders units of one product.
func (c *client) buy(key, user, product string, quantity int) answer {
	c.t.Helper()
	return c.post("/order", key, fmt.Sprintf(`{"user_id": %s, "items": [{"product_id": %s, "quantity": %d}]}`, user, product, quantity))
}

func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// batches reads how many script calls placed how many orders.
func (c *client) batches() (calls, orders int) {
	c.t.Helper()
	response, err := c.http.Get(c.base + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer response.Body.Close() //nolint:errcheck // it is read to its end
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), `stampede_batch_operations_count{script="place"} %d`, &calls)
		_, _ = fmt.Sscanf(lines.Text(), `stampede_batch_operations_sum{script="place"} %d`, &orders)
	}
	return calls, orders
}

package baseline

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine/rest"
)

// postgresClient is a client of the baseline, with its tables.
type postgresClient struct {
	*client
	shop *postgresShop
}

func startPostgres(t *testing.T) *postgresClient {
	t.Helper()
	servers := stacktest.Start(t, stack.Options{NoRedis: true})
	shop, err := openPostgres(t.Context(), servers.PostgresURL(), 24)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(shop.pool.Close)
	return &postgresClient{shop: shop, client: run(t, func(ctx context.Context, addr string) error {
		return serve(ctx, addr, rest.Config{
			Sales: shop, Registry: shop, Health: shop, AdminToken: adminToken, Metrics: prometheus.NewRegistry(),
		})
	})}
}

func (c *postgresClient) number(sql string, args ...any) (n int64) {
	c.t.Helper()
	if err := c.shop.pool.QueryRow(c.t.Context(), sql, args...).Scan(&n); err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
	return n
}

// state is every row that an order could change, as one hash.
func (c *postgresClient) state() string {
	c.t.Helper()
	text := ""
	for _, table := range []string{
		"users", "products", "idempotency", "orders", "order_items", "order_history", "balance_ledger", "stock_ledger", "sales_minutes",
	} {
		text += fmt.Sprintf("%s %d\n", table, c.number(`SELECT coalesce(sum(hashtextextended(t::text, 0)), 0)::text::numeric % 9007199254740991 FROM `+table+` t`))
	}
	return text
}

// checkBooks proves that the tables say the same thing.
func (c *postgresClient) checkBooks() {
	c.t.Helper()
	for what, sql := range map[string]string{
		"balances that are not the sum of their postings": `SELECT count(*) FROM users u
			WHERE balance <> (SELECT coalesce(sum(amount), 0) FROM balance_ledger WHERE user_id = u.id)`,
		"stocks that are not the sum of their postings": `SELECT count(*) FROM products p
			WHERE stock <> (SELECT coalesce(sum(delta), 0) FROM stock_ledger WHERE product_id = p.id)`,
		"orders whose total is not that of their lines": `SELECT count(*) FROM orders o
			WHERE total_price <> (SELECT coalesce(sum(price * quantity), 0) FROM order_items WHERE order_id = o.id)`,
		"orders without their posting": `SELECT count(*) FROM orders o
			WHERE -total_price <> (SELECT coalesce(sum(amount), 0) FROM balance_ledger WHERE ref_id = o.id AND user_id = o.user_id)`,
		"orders without both steps": `SELECT count(*) FROM orders o WHERE 2 <> (SELECT count(*) FROM order_history WHERE order_id = o.id)`,
		"orders without a key":      `SELECT count(*) FROM orders o WHERE 1 <> (SELECT count(*) FROM idempotency WHERE ref_id = o.id)`,
		"products whose sales of the minutes are not those of their lines": `SELECT count(*) FROM products p
			WHERE (SELECT coalesce(sum(units), 0) FROM sales_minutes WHERE product_id = p.id)
				<> (SELECT coalesce(sum(quantity), 0) FROM order_items WHERE product_id = p.id)`,
	} {
		if n := c.number(sql); n != 0 {
			c.t.Errorf("%d %s", n, what)
		}
	}
}

func TestPostgres(t *testing.T) {
	c := startPostgres(t)
	for name, test := range map[string]func(*testing.T, *postgresClient){
		"an order of several lines": orderOfSeveralLines, "100 equal keys at once have one effect": equalKeys,
		"nothing is oversold": nothingOversold, "a refusal changes nothing": refusalsChangeNothing,
		"lines in any order do not lock in a circle": noCircle,
	} {
		t.Run(name, func(t *testing.T) {
			here := &postgresClient{shop: c.shop, client: &client{t: t, base: c.base, http: c.http}}
			here.keys.Store(c.keys.Add(1_000_000))
			test(t, here)
			here.checkBooks()
		})
	}
}

func orderOfSeveralLines(t *testing.T, c *postgresClient) {
	user, a, b := c.user(10_000), c.product(300, 10), c.product(50, 10)
	body := fmt.Sprintf(`{"user_id": %s, "items": [{"product_id": %s, "quantity": 2}, {"product_id": %s, "quantity": 1}, {"product_id": %[2]s, "quantity": 1}]}`,
		user, b, a)
	first := c.post("/order", "lines-"+user, body)
	if first.status != http.StatusCreated || first.replayed || first.field(t, "total_price") != "450" {
		t.Fatalf("answered %+v", first)
	}
	again := c.post("/order", "lines-"+user, body)
	if again.status != first.status || !again.replayed || again.body != first.body {
		t.Errorf("the same key is answered %+v, and was %+v", again, first)
	}
	if balance, stock := c.number(`SELECT balance FROM users WHERE id = $1::text::bigint`, user), c.number(`SELECT stock FROM products WHERE id = $1::text::bigint`, b); balance != 9_550 || stock != 7 {
		t.Errorf("a balance of %d and a stock of %d are left, want 9550 and 7", balance, stock)
	}
}

func equalKeys(t *testing.T, c *postgresClient) {
	user, product := c.user(1_000_000), c.product(100, 1_000)
	answers := make([]answer, 100)
	var buyers sync.WaitGroup
	for i := range answers {
		buyers.Go(func() { answers[i] = c.buy("equal-"+user, user, product, 3) })
	}
	buyers.Wait()
	fresh := 0
	for _, a := range answers {
		if a.status != http.StatusCreated || a.body != answers[0].body {
			t.Fatalf("one is answered %+v, another %+v", a, answers[0])
		}
		if !a.replayed {
			fresh++
		}
	}
	if fresh != 1 || c.number(`SELECT count(*) FROM orders WHERE user_id = $1::text::bigint`, user) != 1 {
		t.Errorf("%d of 100 equal requests were carried out", fresh)
	}
}

func nothingOversold(t *testing.T, c *postgresClient) {
	const stock, buyers = 25, 80
	product := c.product(100, stock)
	users := make([]string, 8)
	for i := range users {
		users[i] = c.user(500) // 40 orders could be paid
	}
	statuses := make([]int, buyers)
	var all sync.WaitGroup
	for i := range statuses {
		all.Go(func() { statuses[i] = c.buy("", users[i%len(users)], product, 1).status })
	}
	all.Wait()
	count := make(map[int]int)
	for _, status := range statuses {
		count[status]++
	}
	if count[http.StatusCreated] != stock || count[http.StatusCreated]+count[http.StatusConflict]+count[http.StatusPaymentRequired] != buyers {
		t.Errorf("of %d units were sold (by status): %v", stock, count)
	}
}

func refusalsChangeNothing(t *testing.T, c *postgresClient) {
	user, dear, rare := c.user(1_000), c.product(1_001, 5), c.product(1, 1)
	if a := c.buy("used-"+user, user, rare, 1); a.status != http.StatusCreated {
		t.Fatalf("answered %+v", a)
	}
	before := c.state()
	for name, r := range map[string]struct {
		answer answer
		status int
		code   string
	}{
		"sold out":    {c.buy("", user, rare, 1), http.StatusConflict, "out_of_stock"},
		"too dear":    {c.buy("", user, dear, 1), http.StatusPaymentRequired, "insufficient_balance"},
		"no product":  {c.buy("", user, "987654", 1), http.StatusNotFound, "product_not_found"},
		"no user":     {c.buy("", "987654", dear, 1), http.StatusNotFound, "user_not_found"},
		"another key": {c.buy("used-"+user, user, dear, 1), http.StatusUnprocessableEntity, "idempotency_key_reused"},
		"no units":    {c.buy("", user, dear, 0), http.StatusBadRequest, "validation_failed"},
		"a hold": {
			c.post("/order", "", fmt.Sprintf(`{"user_id": %s, "items": [{"product_id": %s, "quantity": 1}], "payment": "later"}`, user, dear)),
			http.StatusBadRequest, "validation_failed",
		},
	} {
		if r.answer.status != r.status || r.answer.field(t, "code") != r.code {
			t.Errorf("%s: answered %+v, want %d %s", name, r.answer, r.status, r.code)
		}
	}
	if after := c.state(); after != before {
		t.Errorf("refusals changed something:\n%s\nbefore:\n%s", after, before)
	}
}

func noCircle(t *testing.T, c *postgresClient) {
	a, b := c.product(1, 10_000), c.product(1, 10_000)
	users := []string{c.user(10_000), c.user(10_000)}
	var buyers sync.WaitGroup
	for i := range 60 {
		buyers.Go(func() {
			one, other := a, b
			if i%2 == 0 {
				one, other = b, a
			}
			body := fmt.Sprintf(`{"user_id": %s, "items": [{"product_id": %s, "quantity": 1}, {"product_id": %s, "quantity": 1}]}`,
				users[i/2%2], one, other)
			if got := c.post("/order", "", body); got.status != http.StatusCreated {
				t.Errorf("answered %+v", got)
			}
		})
	}
	buyers.Wait()
	if deadlocks := c.number(`SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()`); deadlocks != 0 {
		t.Errorf("%d deadlocks", deadlocks)
	}
}

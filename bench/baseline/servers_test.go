package baseline

import (
	"context"
	"net/http"
	"testing"

	"stampede/cmd/stack/stacktest"
)

func TestEmpty_AnswersAnyOrder(t *testing.T) {
	c := run(t, Empty)
	if got := c.buy("", "1", "1", 1); got.status != http.StatusCreated || got.field(t, "id") != "100000000000000000" {
		t.Errorf("answered %+v", got)
	}
	if got := c.post("/order", "", `{"user_id": 1}trailing`); got.status != http.StatusBadRequest {
		t.Errorf("what is no order is answered %+v", got)
	}
}

func TestPostgres_ServesUntilItIsStopped(t *testing.T) {
	dir := stacktest.Dir(t)
	c := run(t, func(ctx context.Context, addr string) error {
		return Postgres(ctx, Private{Addr: addr, DataDir: dir, AdminToken: adminToken, Log: testLog(t)}, 4)
	})
	if got := c.buy("", c.user(100), c.product(100, 1), 1); got.status != http.StatusCreated {
		t.Errorf("answered %+v", got)
	}
}

func TestEvalsha_SellsWithOneOrderACall(t *testing.T) {
	dir := stacktest.Dir(t)
	c := run(t, func(ctx context.Context, addr string) error {
		return Evalsha(ctx, Private{Addr: addr, DataDir: dir, AdminToken: adminToken, Log: testLog(t)}, 32)
	})
	user, product := c.user(10_000), c.product(100, 50)
	orders := make(chan int, 60)
	for range cap(orders) {
		go func() { orders <- c.buy("", user, product, 1).status }()
	}
	count := make(map[int]int)
	for range cap(orders) {
		count[<-orders]++
	}
	if count[http.StatusCreated] != 50 || count[http.StatusConflict] != 10 {
		t.Errorf("of 50 units were sold, by status: %v", count)
	}
	calls, operations := c.batches()
	if calls < 60 || calls != operations {
		t.Errorf("%d calls carried %d operations, want one each", calls, operations)
	}
}

package rest_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"stampede/engine"
	"stampede/engine/rest"
)

// refusing is a shop in which every change ends in the same error.
type refusing struct {
	rest.Sales
	rest.Registry
	err error
}

func (r *refusing) Check(context.Context) rest.Readiness { return rest.Readiness{} }

func (r *refusing) Pay(context.Context, engine.PayRequest) (engine.Order, bool, error) {
	return engine.Order{}, true, r.err
}

func (r *refusing) Cancel(context.Context, engine.CancelRequest) (engine.Order, bool, error) {
	return engine.Order{}, false, r.err
}

func (r *refusing) AddToCart(context.Context, engine.CartAddRequest) (engine.Cart, bool, error) {
	return engine.Cart{}, false, r.err
}

func (r *refusing) OrderCart(context.Context, engine.CartOrderRequest) (engine.Order, bool, error) {
	return engine.Order{}, false, r.err
}

func (r *refusing) UpdateProduct(context.Context, int64, *string, *int64) (engine.Product, error) {
	return engine.Product{}, r.err
}

func (r *refusing) Orders(context.Context, int64, int64, int) ([]engine.Order, bool, error) {
	return nil, false, r.err
}

func (r *refusing) Top(context.Context, int) (time.Time, []engine.Seller, error) {
	return time.Time{}, nil, r.err
}

// What tests with a real shop meet by luck only, or never: each error of the engine has its problem, and its figures.
func TestAPI_ProblemsOfTheEnginesErrors(t *testing.T) {
	var log bytes.Buffer
	shop := &refusing{}
	s := &server{t: t, addr: serve(t, rest.Config{
		Sales: shop, Registry: shop, Health: shop, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})}
	const pay, cancel, add, buy = "POST /order/7/payment", "POST /order/7/cancel", "POST /cart/add", "POST /cart/order"
	const patch, list, top = "PATCH /products/7", "GET /orders", "GET /products/top"
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failed := &engine.Order{
		ID: 7, UserID: 1, Status: engine.Failed, Total: 9, CreatedAt: at, ExpiresAt: at.Add(time.Minute),
		History: []engine.Step{{Status: engine.Pending, At: at}, {Status: engine.Failed, At: at, Reason: "insufficient_balance"}},
	}
	refusal := func(r engine.Refusal) error { return fmt.Errorf("wrapped: %w", &r) }
	for _, c := range []struct {
		err    error
		routes []string
		status int
		code   string
		detail string // a part of it
		fields []string
	}{
		{refusal(engine.Refusal{Reason: engine.ErrNotPayable, Status: engine.Pending}), []string{pay}, 409, "order_not_payable", "time to pay", with("order_status", "PENDING")},
		{refusal(engine.Refusal{Reason: engine.ErrNotPayable, Status: engine.Expired}), []string{pay}, 409, "order_not_payable", "EXPIRED", with("order_status", "EXPIRED")},
		{refusal(engine.Refusal{Reason: engine.ErrNotCancelable, Status: engine.Pending}), []string{cancel}, 409, "order_not_cancelable", "deadline", with("order_status", "PENDING")},
		{refusal(engine.Refusal{Reason: engine.ErrNotCancelable, Status: engine.Success}), []string{cancel}, 409, "order_not_cancelable", "an admin", with("order_status", "SUCCESS")},
		{refusal(engine.Refusal{Reason: engine.ErrNotCancelable, Status: engine.Failed}), []string{cancel}, 409, "order_not_cancelable", "FAILED", with("order_status", "FAILED")},
		{refusal(engine.Refusal{Reason: engine.ErrInsufficientBalance, Balance: 5, Order: failed}), []string{pay}, 402, "insufficient_balance", "FAILED", with("balance", "5")},
		{refusal(engine.Refusal{Reason: engine.ErrInsufficientBalance, Balance: 5}), []string{buy}, 402, "insufficient_balance", "5", with("balance", "5", "order", "")},
		{refusal(engine.Refusal{Reason: engine.ErrBalanceLimit, Balance: 5}), []string{cancel}, 409, "balance_limit", "100000000000000", with("balance", "5")},
		{refusal(engine.Refusal{Reason: engine.ErrCartFull, ProductID: 3, Left: 9_999}), []string{add}, 400, "validation_failed", "9999 units of product 3", with("product_id", "3", "in_cart", "9999")},
		{refusal(engine.Refusal{Reason: engine.ErrCartFull, ProductID: 3}), []string{add}, 400, "validation_failed", "100 different products", with("product_id", "3", "in_cart", "")},
		{refusal(engine.Refusal{Reason: engine.ErrElsewhere, ProductID: 3}), []string{buy}, 503, "overloaded", "product 3", with("product_id", "3")},
		{refusal(engine.Refusal{Reason: engine.ErrOutOfStock, ProductID: 3, Left: 2}), []string{buy}, 409, "out_of_stock", "2 units", with("product_id", "3", "left", "2")},
		{refusal(engine.Refusal{Reason: engine.ErrProductNotFound, ProductID: 3}), []string{buy, add, patch}, 404, "product_not_found", "3", with("product_id", "3")},
		{fmt.Errorf("%w: no such thing", engine.ErrInvalid), []string{pay, cancel, add, buy, patch, list, top}, 400, "validation_failed", "no such thing", nil},
		{engine.ErrCartEmpty, []string{buy}, 409, "cart_empty", "cart", nil},
		{engine.ErrOrderNotFound, []string{pay, cancel}, 404, "order_not_found", "order", nil},
		{engine.ErrUserNotFound, []string{pay, cancel, add, buy, list}, 404, "user_not_found", "user", nil},
		{engine.ErrKeyReused, []string{pay, cancel, add, buy}, 422, "idempotency_key_reused", "key", nil},
		{fmt.Errorf("%w: secret", engine.ErrOverloaded), []string{pay, cancel, add, buy}, 503, "overloaded", "again", nil},
		{fmt.Errorf("%w: secret", engine.ErrUnavailable), []string{pay, cancel, add, buy, patch, list, top}, 503, "overloaded", "again", nil},
		{fmt.Errorf("%w: secret", engine.ErrUnknown), []string{pay, cancel, add, buy}, 504, "timeout", "same Idempotency-Key", nil},
		{fmt.Errorf("%w: secret", engine.ErrCorrupt), []string{pay, cancel, add, buy, patch, list, top}, 500, "internal", "log", nil},
		{errors.New("secret"), []string{pay, list}, 500, "internal", "log", nil},
	} {
		shop.err = c.err
		for _, route := range c.routes {
			method, path, _ := strings.Cut(route, " ")
			body := map[string]string{add: `{"product_id":3,"quantity":1}`, patch: `{"price":1}`}[route]
			headers := []string{"X-User-Id", "1"}
			if route == patch {
				headers = asAdmin
			}
			a := s.want(c.status, append(with("code", c.code), c.fields...), method, path, body, headers...)
			if !strings.Contains(a.field("detail"), c.detail) || strings.Contains(string(a.body), "secret") {
				t.Errorf("%s after %v: %s", route, c.err, a.body)
			}
			if (a.Header.Get("Retry-After") != "") != (c.status == 503) {
				t.Errorf("%s after %v: Retry-After is %q", route, c.err, a.Header.Get("Retry-After"))
			}
			// Only what was stored can be a replay, though this shop says that everything was one.
			stored := c.status == 402 && route == pay
			if (a.Header.Get("Idempotent-Replayed") != "") != stored || strings.Contains(string(a.body), "expires_at") {
				t.Errorf("%s after %v: %v %s", route, c.err, a.Header, a.body)
			}
			if id := a.field("id"); c.status == 500 && (id == "" || !strings.Contains(log.String(), id)) {
				t.Errorf("%s: the id %q does not stand in the log", route, id)
			}
		}
	}
}

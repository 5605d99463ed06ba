package rest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"stampede/engine"
	"stampede/engine/rest"
)

// broken is a shop in which everything ends in the same error, and that knows of a problem of its own where that says
// so.
type broken struct{ err error }

func (b *broken) Check(context.Context) rest.Readiness {
	if errors.Is(b.err, engine.ErrUnavailable) {
		return rest.Readiness{NoOrders: true, LagEvents: rest.LagUnknown, LagSeconds: 12, Opening: []string{"wait"}, Postgres: []string{"it is away"}}
	}
	panic(b.err)
}

func (b *broken) Place(context.Context, engine.PlaceRequest) (engine.Order, bool, error) {
	return engine.Order{}, false, b.err
}

// PlaceEach panics of what nobody foresaw: an error is that of an order, and fails no request.
func (b *broken) PlaceEach(_ context.Context, requests []engine.PlaceRequest) []engine.Placed {
	if !errors.Is(b.err, engine.ErrUnavailable) && !errors.Is(b.err, engine.ErrUnknown) {
		panic(b.err)
	}
	return slices.Repeat([]engine.Placed{{Err: b.err}}, len(requests))
}

func (b *broken) Order(context.Context, int64, int64) (engine.Order, error) {
	return engine.Order{}, b.err
}

func (b *broken) Charge(context.Context, engine.ChargeRequest) (engine.Charged, bool, error) {
	return engine.Charged{}, false, b.err
}

func (b *broken) Balance(context.Context, int64) (int64, error) { return 0, b.err }

func (b *broken) Pay(context.Context, engine.PayRequest) (engine.Order, bool, error) {
	return engine.Order{}, false, b.err
}

func (b *broken) Cancel(context.Context, engine.CancelRequest) (engine.Order, bool, error) {
	return engine.Order{}, false, b.err
}

func (b *broken) AddToCart(context.Context, engine.CartAddRequest) (engine.Cart, bool, error) {
	return engine.Cart{}, false, b.err
}

func (b *broken) RemoveFromCart(context.Context, int64, int64) (engine.Cart, error) {
	return engine.Cart{}, b.err
}

func (b *broken) Cart(context.Context, int64) (engine.Cart, error) { return engine.Cart{}, b.err }

func (b *broken) OrderCart(context.Context, engine.CartOrderRequest) (engine.Order, bool, error) {
	return engine.Order{}, false, b.err
}

func (b *broken) Restock(context.Context, engine.RestockRequest) (int64, bool, error) {
	return 0, false, b.err
}

func (b *broken) Product(context.Context, int64) (engine.Product, error) {
	return engine.Product{}, b.err
}

func (b *broken) Products(context.Context, int64, int) ([]engine.Product, bool, error) {
	return nil, false, b.err
}

func (b *broken) Top(context.Context, int) (time.Time, []engine.Seller, error) {
	return time.Time{}, nil, b.err
}

func (b *broken) CreateUser(context.Context, string, string) (engine.User, error) {
	return engine.User{}, b.err
}

func (b *broken) User(context.Context, int64) (engine.User, error) { return engine.User{}, b.err }

func (b *broken) CreateProduct(context.Context, string, int64, int64) (engine.Product, error) {
	return engine.Product{}, b.err
}

func (b *broken) UpdateProduct(context.Context, int64, *string, *int64) (engine.Product, error) {
	return engine.Product{}, b.err
}

func (b *broken) Orders(context.Context, int64, int64, int) ([]engine.Order, bool, error) {
	return nil, false, b.err
}

func (b *broken) SalesReport(context.Context, engine.SalesQuery, func(engine.Sale) error) (bool, error) {
	return false, b.err
}

func (b *broken) Ledger(context.Context, int64, engine.Position, int) ([]engine.Posting, bool, error) {
	return nil, false, b.err
}

// serveBroken is a server in front of a broken shop.
func serveBroken(t *testing.T, err error, c rest.Config) *server {
	t.Helper()
	shop := &broken{err}
	c.Sales, c.Registry, c.Health, c.Log = shop, shop, shop, silent
	return &server{t: t, addr: serve(t, c)}
}

// faults makes the request of each operation while the shop is broken in each way.
func (d *document) faults(t *testing.T) {
	for _, fault := range []struct {
		status int
		code   string
		err    error
	}{
		{500, "internal", errors.New("something that nobody foresaw")},
		{503, "overloaded", engine.ErrUnavailable},
		{504, "timeout", engine.ErrUnknown},
	} {
		s := serveBroken(t, fault.err, rest.Config{})
		for _, id := range slices.Sorted(maps.Keys(d.operations)) {
			if response := d.operations[id].Responses.Status(fault.status); response != nil {
				code := fault.code
				if response.Value.Content["application/problem+json"] == nil {
					code = "" // readiness has its own form
				}
				d.want(s, fault.status, code, d.example(id))
			}
		}
	}
	s := serveBroken(t, fmt.Errorf("wrapped: %w", &engine.Refusal{Reason: engine.ErrElsewhere, ProductID: 3}), rest.Config{})
	d.want(s, 503, "overloaded", d.example("placeOrder"))
}

// limits makes requests until the limit is reached, of the address or of the buyer.
func (d *document) limits(t *testing.T) {
	addresses := serveBroken(t, engine.ErrUnavailable, rest.Config{Limits: rest.Limits{IPRate: 1}})
	buyers := serveBroken(t, engine.ErrUnavailable, rest.Config{Limits: rest.Limits{UserRate: 1}})
	reach := func(s *server, id string) {
		t.Helper()
		for deadline := time.Now().Add(patience); d.ask(s, d.example(id)).StatusCode != http.StatusTooManyRequests; {
			if time.Now().After(deadline) {
				t.Fatalf("%s is never limited", id)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.operations)) {
		switch op := d.operations[id]; {
		case op.Responses.Status(http.StatusTooManyRequests) == nil:
			d.ask(addresses, d.example(id))
		default:
			reach(addresses, id)
			if len(*op.Security) > 1 {
				reach(buyers, id)
			}
		}
	}
}

// unreadable sends what is no request for the server, to the path of each operation: malformed, too large, too slow.
func (d *document) unreadable(t *testing.T) {
	s, hasty := serveBroken(t, engine.ErrUnavailable, rest.Config{}), serveBroken(t, engine.ErrUnavailable, rest.Config{ReadTimeout: 100 * time.Millisecond})
	for _, id := range slices.Sorted(maps.Keys(d.operations)) {
		r := d.example(id)
		head := r.method + " " + r.path + " HTTP/1.1\r\nHost: " + s.addr + "\r\n"
		d.wantRaw(s, 400, "validation_failed", r, head+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
		d.wantRaw(s, 413, "payload_too_large", r, fmt.Sprintf("%sContent-Length: %d\r\n\r\n", head, rest.BodyMax+1))
		d.wantRaw(s, 431, "headers_too_large", r, head+strings.Repeat("X", rest.HeaderMax-len(head)))
		d.wantRaw(hasty, 408, "request_timeout", r, head)
	}
}

// wantRaw sends bytes and wants an answer to what would have been the request.
func (d *document) wantRaw(s *server, status int, code string, r request, bytes string) {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // the server has closed it
	if _, err := io.WriteString(conn, bytes); err != nil {
		s.t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	meant, err := http.NewRequestWithContext(s.t.Context(), r.method, "http://"+s.addr+r.path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), meant)
	if err != nil {
		s.t.Fatalf("%s %s: no answer with %d: %v", r.method, r.path, status, err)
	}
	defer response.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{response, body}
	d.check(s.t, "", a)
	if a.StatusCode != status || a.field("code") != code {
		s.t.Errorf("%s %s: %d %s, want %d %s", r.method, r.path, a.StatusCode, body, status, code)
	}
}

package baseline

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/engine"
	"stampede/engine/rest"
)

// price is that of the things of a load: figures as long as a shop's.
const price = 1999 // minor units

// emptyShop answers every order with the same one. The embedded interfaces are nil: no other route is ever asked.
type emptyShop struct {
	rest.Sales
	rest.Registry
	order engine.Order
}

// Place returns the fixed order.
func (s *emptyShop) Place(context.Context, engine.PlaceRequest) (engine.Order, bool, error) {
	return s.order, false, nil
}

// Check finds nothing wrong.
func (s *emptyShop) Check(context.Context) rest.Readiness { return rest.Readiness{} }

// fixedOrder is as long as a real one in its encoding: 18 digits of an id, two steps of history.
func fixedOrder() engine.Order {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC)
	return engine.Order{
		ID: 100_000_000_000_000_000, UserID: 500, Status: engine.Success, Total: price,
		Items:     []engine.Item{{ProductID: 5, Quantity: 1, Price: price}},
		CreatedAt: at,
		History:   []engine.Step{{Status: engine.Pending, At: at}, {Status: engine.Success, At: at}},
	}
}

// Empty serves the HTTP of engine/rest, with its routes, decoding and encoding, and no shop behind it, until ctx ends.
// What it does a second is the most that any shop behind this server could.
func Empty(ctx context.Context, addr string) error {
	shop := &emptyShop{order: fixedOrder()}
	return serve(ctx, addr, rest.Config{
		Sales: shop, Registry: shop, Health: shop, AdminToken: rand.Text(), Metrics: prometheus.NewRegistry(),
	})
}

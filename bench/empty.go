package main

import (
	"context"
	"crypto/rand"
	"net"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/engine"
	"stampede/engine/rest"
)

// emptyCmd serves the baseline: the server of engine/rest, with its routes, decoding and encoding, and no shop
// behind it. What it does a second is the most that any shop behind this server could.
type emptyCmd struct {
	Addr string `required:"" help:"Listen here."`
}

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
		ID: 100_000_000_000_000_000, UserID: 500, Status: engine.Success, Total: productPrice,
		Items:     []engine.Item{{ProductID: 5, Quantity: 1, Price: productPrice}},
		CreatedAt: at,
		History:   []engine.Step{{Status: engine.Pending, At: at}, {Status: engine.Success, At: at}},
	}
}

// Run serves until ctx ends.
func (c *emptyCmd) Run(ctx context.Context) error {
	shop := &emptyShop{order: fixedOrder()}
	server, err := rest.New(rest.Config{
		Sales: shop, Registry: shop, Health: shop,
		AdminToken: rand.Text(), Metrics: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopMax)
	defer cancel()
	return server.Shutdown(ctx)
}

// emptyServer is the baseline in a process of its own, as Stampede is.
type emptyServer struct {
	*program
	addr string
}

// startEmpty starts this very binary again.
func startEmpty(ctx context.Context, w workspace) (*emptyServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &emptyServer{addr: addr}
	s.program, err = launch("the empty handler", w.log("empty"), self, childEnv(), "empty-server", "--addr", addr)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, readyMax, newAPI(addr, "").ready); err != nil {
		_ = s.stop() // the first error says more
		return nil, err
	}
	return s, nil
}

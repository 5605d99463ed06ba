package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"stampede/bench/load"
)

const (
	fillConnections = 32
	userBalance     = 1_000_000_000_000 // minor units; nobody runs dry
	productPrice    = 1999
	productStock    = 1_000_000_000 // units; nothing sells out
)

// fill creates users who can pay and products that do not run out.
func (s *shop) fill(ctx context.Context, users, products int) (load.Goods, error) {
	g := load.Goods{Users: make([]string, users), Products: make([]string, products)}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillConnections)
	for i := range products {
		group.Go(func() (err error) {
			g.Products[i], err = s.api.createProduct(ctx, fmt.Sprintf("Thing %d", i+1), productPrice, productStock)
			return err
		})
	}
	for i := range users {
		group.Go(func() (err error) {
			g.Users[i], err = s.api.createUser(ctx, fmt.Sprintf("Buyer %d", i+1), fmt.Sprintf("buyer%d@example.com", i+1))
			if err != nil {
				return err
			}
			return s.api.charge(ctx, g.Users[i], userBalance)
		})
	}
	if err := group.Wait(); err != nil {
		return load.Goods{}, s.explain(fmt.Errorf("fill the shop: %w", err))
	}
	return g, nil
}

// sold is how many units have left the products.
func (s *shop) sold(ctx context.Context, g load.Goods) (int64, error) {
	sum := int64(0)
	for _, product := range g.Products {
		stock, err := s.api.stock(ctx, product)
		if err != nil {
			return 0, err
		}
		sum += productStock - stock
	}
	return sum, nil
}

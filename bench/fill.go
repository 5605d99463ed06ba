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
	err := s.api.fillProducts(ctx, g.Products)
	if err == nil {
		err = s.api.fillUsers(ctx, g.Users, "example.com")
	}
	if err != nil {
		return load.Goods{}, s.explain(fmt.Errorf("fill the shop: %w", err))
	}
	return g, nil
}

// fillProducts creates a product for each of some ids, which it fills in.
func (a *api) fillProducts(ctx context.Context, ids []string) error {
	return fillEach(ctx, len(ids), func(ctx context.Context, i int) (err error) {
		ids[i], err = a.createProduct(ctx, fmt.Sprintf("Thing %d", i+1), productPrice, productStock)
		return err
	})
}

// fillUsers creates a user who can pay for each of some ids, which it fills in. Their addresses are of a domain that no
// other users of the shop have.
func (a *api) fillUsers(ctx context.Context, ids []string, domain string) error {
	return fillEach(ctx, len(ids), func(ctx context.Context, i int) (err error) {
		ids[i], err = a.createUser(ctx, fmt.Sprintf("Buyer %d", i+1), fmt.Sprintf("buyer%d@%s", i+1, domain))
		if err != nil {
			return err
		}
		return a.charge(ctx, ids[i], userBalance)
	})
}

// fillEach does something for each number below count, some at a time.
func fillEach(ctx context.Context, count int, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fillConnections)
	for i := range count {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
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

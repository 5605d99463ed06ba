package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"stampede/cmd/shop"
	"stampede/engine"
)

const (
	demoHands = 32     // users at a time
	demoKey   = "demo" // of each demo user's one charge
	demoPage  = 200    // products a look
)

// demo fills a shop with something to buy and people to buy it, by the same calls that the API makes.
type demo struct {
	shop *shop.Shop
	log  *slog.Logger
}

// fillDemo fills in the demo catalogue, once. What an interrupted call left out is added by the next; the last user
// is made after everything else and says that nothing is missing, so that a product renamed since does not come back.
func fillDemo(ctx context.Context, s *shop.Shop, log *slog.Logger) error {
	d := demo{shop: s, log: log}
	start, users := time.Now(), demoUsers()
	last := users[len(users)-1]
	id, err := d.find(ctx, last.email)
	if err != nil {
		return err
	}
	if id != 0 {
		return d.fund(ctx, id, last)
	}
	there, err := d.names(ctx)
	if err != nil {
		return err
	}
	products := demoProducts()
	if foreign(there, products) {
		log.Info("the shop has products of its own, the demo catalogue stays out")
		return nil
	}
	group, all := errgroup.WithContext(ctx)
	group.SetLimit(demoHands + 1)
	group.Go(func() error { return d.list(all, products, there) })
	for _, u := range users[:len(users)-1] {
		group.Go(func() error { return d.enroll(all, u) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := d.enroll(ctx, last); err != nil {
		return err
	}
	log.Info("demo catalogue filled in", "products", len(products), "users", len(users),
		"took", time.Since(start).Round(time.Millisecond))
	return nil
}

// foreign tells whether a shop has products, and none of the demo's: it belongs to somebody.
func foreign(there map[string]bool, products []engine.Product) bool {
	for _, p := range products {
		if there[p.Name] {
			return false
		}
	}
	return len(there) > 0
}

// names are those of all products.
func (d *demo) names(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{}
	for after := int64(0); ; {
		page, more, err := d.shop.Engine.Products(ctx, after, demoPage)
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			names[p.Name], after = true, p.ID
		}
		if !more {
			return names, nil
		}
	}
}

// list makes the products that are missing, one after another: their ids are then in the order of the catalogue.
func (d *demo) list(ctx context.Context, products []engine.Product, there map[string]bool) error {
	for _, p := range products {
		if there[p.Name] {
			continue
		}
		if _, err := d.shop.Books.CreateProduct(ctx, p.Name, p.Price, p.Stock); err != nil {
			return err
		}
	}
	return nil
}

// enroll makes a user with a balance.
func (d *demo) enroll(ctx context.Context, u demoUser) error {
	made, err := d.shop.Books.CreateUser(ctx, u.name, u.email)
	switch {
	case err == nil:
		return d.charge(ctx, made.ID, u)
	case !errors.Is(err, engine.ErrEmailTaken):
		return err
	}
	id, err := d.find(ctx, u.email)
	if err != nil {
		return err
	}
	return d.fund(ctx, id, u)
}

// find returns a user's id, 0 where there is none.
func (d *demo) find(ctx context.Context, email string) (int64, error) {
	found, err := d.shop.Books.UserByEmail(ctx, email)
	if errors.Is(err, engine.ErrUserNotFound) {
		return 0, nil
	}
	return found.ID, err
}

// fund charges a user that an earlier call made and did not come to charge. The key alone would not do: it is
// forgotten after a day.
func (d *demo) fund(ctx context.Context, id int64, u demoUser) error {
	balance, err := d.shop.Engine.Balance(ctx, id)
	if err != nil || balance > 0 {
		return err
	}
	return d.charge(ctx, id, u)
}

func (d *demo) charge(ctx context.Context, id int64, u demoUser) error {
	_, _, err := d.shop.Engine.Charge(ctx, engine.ChargeRequest{UserID: id, Amount: u.balance, Key: demoKey})
	return err
}

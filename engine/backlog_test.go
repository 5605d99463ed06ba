package engine_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

func TestBacklog_AtItsCapRefusesWhatIsNewUntilAWriterComes(t *testing.T) {
	const backlogCap = 20_000
	// The cap is a partition's own, and without a writer nothing could be lent.
	s := shoptest.Start(t, stack.Options{}, shop.Config{NoWriter: true, BacklogCap: backlogCap, Partitions: 1})
	e, ctx := s.Engine, context.Background()
	user, product := s.User(100_000), s.Product(1, 100_000)

	var orders []engine.Order
	var full error
	for i := 0; full == nil; i++ {
		if i > backlogCap/100 {
			t.Fatalf("%d orders, and the backlog is not full", i)
		}
		var order engine.Order
		order, _, full = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: fmt.Sprint(i), Lines: lines(product, 1)})
		if full == nil {
			orders = append(orders, order)
		}
	}
	wantErr(t, "order over the cap", full, engine.ErrOverloaded)
	v, err := e.Look(ctx, 0)
	if err != nil || v.Bytes-v.Done <= backlogCap || v.Bytes-v.Done > backlogCap+1000 {
		t.Errorf("a backlog of %d bytes (%v), the cap is %d", v.Bytes-v.Done, err, backlogCap)
	}
	late := engine.PlaceRequest{UserID: user, Key: "late", Lines: lines(product, 1)}
	restock := engine.RestockRequest{ProductID: product, Delta: 1, Key: "late"}
	charge := engine.ChargeRequest{UserID: user, Amount: 1, Key: "late too"}
	for range 3 {
		_, _, err = e.Place(ctx, late)
		wantErr(t, "order over the cap", err, engine.ErrOverloaded)
		_, _, err = e.Charge(ctx, charge)
		wantErr(t, "charge over the cap", err, engine.ErrOverloaded)
		_, _, err = e.Restock(ctx, restock)
		wantErr(t, "restock over the cap", err, engine.ErrOverloaded)
	}
	for i, order := range orders {
		again, replayed, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: fmt.Sprint(i), Lines: lines(product, 1)})
		if err != nil || !replayed || describe(again) != describe(order) {
			t.Fatalf("replay over the cap: %s, %t, %v", describe(again), replayed, err)
		}
	}
	_, _, err = e.Place(ctx, engine.PlaceRequest{UserID: user, Key: "0", Lines: lines(product, 2)})
	wantErr(t, "a used key over the cap", err, engine.ErrKeyReused)
	_, _, err = e.Charge(ctx, engine.ChargeRequest{UserID: user, Amount: 100_000, Key: "first"})
	if err != nil {
		t.Errorf("replay of a charge over the cap: %v", err)
	}
	wantStock(t, e, product, 100_000-int64(len(orders)))
	wantBalance(t, e, user, 100_000-int64(len(orders)))

	writing, err := shop.Open(within(t, patience), shop.Config{Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), BacklogCap: backlogCap})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "room for an order", func() bool {
		_, replayed, err := e.Place(ctx, late)
		if err != nil && !errors.Is(err, engine.ErrOverloaded) || replayed {
			t.Fatalf("once a writer works: replay %t, %v", replayed, err)
		}
		return err == nil
	})
	// With a writer the shop goes on for far longer than the cap is wide.
	for i := range 3 * len(orders) {
		key := fmt.Sprint("after ", i)
		await(t, "room for an order", func() bool {
			_, _, err := e.Place(ctx, engine.PlaceRequest{UserID: user, Key: key, Lines: lines(product, 1)})
			if err != nil && !errors.Is(err, engine.ErrOverloaded) {
				t.Fatal(err)
			}
			return err == nil
		})
	}
	wantStock(t, e, product, 100_000-int64(4*len(orders)+1))
	if err := writing.AwaitWritten(within(t, patience)); err != nil {
		t.Error(err)
	}
	if err := writing.Close(within(t, patience)); err != nil {
		t.Error(err)
	}
}

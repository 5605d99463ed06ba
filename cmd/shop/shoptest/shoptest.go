// Package shoptest gives a test a shop of its own on a real Redis and a real PostgreSQL.
package shoptest

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"stampede/cmd/shop"
	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
	"stampede/persist"
)

const (
	wait        = 30 * time.Second
	usersAtOnce = 16
)

// Shop is a running shop with the servers behind it.
type Shop struct {
	*shop.Shop
	Stack *stack.Stack
	Redis redis.UniversalClient // for looking and tampering

	t      testing.TB
	config shop.Config
	users  int
}

// books is a Postgres in which persist has made its tables.
var books = stacktest.Template{Fill: func(ctx context.Context, url string) error {
	made, err := persist.Open(ctx, url, 1, slog.New(slog.DiscardHandler))
	if err == nil {
		made.Close()
	}
	return err
}}

// Start runs a shop until the test ends, on the layout of the environment where neither o nor c names one: see layout.go.
func Start(t testing.TB, o stack.Options, c shop.Config) *Shop {
	t.Helper()
	o, c, err := lay(o, c)
	if err != nil {
		t.Fatal(err)
	}
	if o.DataDir == "" && !o.NoPostgres {
		o.DataDir = books.Dir(t)
	}
	s := &Shop{t: t, Stack: stacktest.Start(t, o), config: c}
	s.config.Redis, s.config.PostgresURL = engine.Redis{URL: s.Stack.RedisURL()}, s.Stack.PostgresURL()
	if s.config.Log == nil {
		s.config.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	client, err := engine.Connect(s.config.Redis, 4, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	s.Redis = client
	t.Cleanup(func() { _ = client.Close() })
	s.Shop = s.Open()
	t.Cleanup(func() { s.Stop() })
	return s
}

// Open opens a further shop on the same servers; the caller closes it.
func (s *Shop) Open() *shop.Shop {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	opened, err := shop.Open(ctx, s.config)
	if err != nil {
		s.t.Fatalf("open the shop: %v", err)
	}
	if err := opened.Engine.AwaitReady(ctx); err != nil {
		s.t.Fatalf("wait for the doors: %v", err)
	}
	return opened
}

// Stop closes the shop; Reopen starts it again.
func (s *Shop) Stop() {
	s.t.Helper()
	if s.Shop == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		s.t.Errorf("close the shop: %v", err)
	}
	s.Shop = nil
}

// SetPartitions has the shop opened with another number of partitions from now on.
func (s *Shop) SetPartitions(n int) { s.config.Partitions = n }

// Reopen starts the shop again after Stop.
func (s *Shop) Reopen() {
	s.t.Helper()
	s.Shop = s.Open()
}

// User creates a user with a balance in minor units.
func (s *Shop) User(balance int64) int64 {
	s.t.Helper()
	s.users++
	user, err := s.Books.CreateUser(s.t.Context(), "Buyer", fmt.Sprintf("buyer%d@example.com", s.users))
	if err != nil {
		s.t.Fatalf("create a user: %v", err)
	}
	if balance > 0 {
		_, _, err = s.Engine.Charge(s.t.Context(), engine.ChargeRequest{UserID: user.ID, Amount: balance, Key: "first"})
		if err != nil {
			s.t.Fatalf("charge: %v", err)
		}
	}
	return user.ID
}

// Users creates users with the same balance, several at a time.
func (s *Shop) Users(n int, balance int64) []int64 {
	s.t.Helper()
	users := make([]int64, n)
	group := new(errgroup.Group)
	group.SetLimit(usersAtOnce)
	for i := range users {
		email := fmt.Sprintf("buyer%d@example.com", s.users+i+1)
		group.Go(func() (err error) {
			users[i], err = s.user(email, balance)
			return err
		})
	}
	s.users += n
	if err := group.Wait(); err != nil {
		s.t.Fatalf("create %d users: %v", n, err)
	}
	return users
}

func (s *Shop) user(email string, balance int64) (int64, error) {
	user, err := s.Books.CreateUser(s.t.Context(), "Buyer", email)
	if err != nil || balance == 0 {
		return user.ID, err
	}
	_, _, err = s.Engine.Charge(s.t.Context(), engine.ChargeRequest{UserID: user.ID, Amount: balance, Key: "first"})
	return user.ID, err
}

// Product creates a product.
func (s *Shop) Product(price, stock int64) int64 {
	s.t.Helper()
	p, err := s.Books.CreateProduct(s.t.Context(), "Thing", price, stock)
	if err != nil {
		s.t.Fatalf("create a product: %v", err)
	}
	return p.ID
}

// Written waits until Postgres holds everything.
func (s *Shop) Written() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := s.AwaitWritten(ctx); err != nil {
		s.t.Fatalf("wait for the writer: %v", err)
	}
}

// Settle waits until something holds that units under way between partitions may keep from it: figures of stock do not
// count them. It does not say whether it came to hold.
func (s *Shop) Settle(holds func() bool) {
	s.t.Helper()
	if s.Engine.Keys().Partitions() == 1 {
		return
	}
	for end := time.Now().Add(wait); !holds() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
}

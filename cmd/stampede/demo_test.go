package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

func quietLog() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestDemo_CatalogueIsWhole(t *testing.T) {
	t.Parallel()
	products := demoProducts()
	names := map[string]bool{}
	for _, p := range products {
		if names[p.Name] || p.Name == "" || p.Price < 1_00 || p.Price > 2_000_00 || p.Stock < 1 {
			t.Errorf("product %+v", p)
		}
		names[p.Name] = true
	}
	users, emails := demoUsers(), map[string]bool{}
	for _, u := range users {
		email := strings.ToLower(u.email)
		if emails[email] || u.balance < demoBalanceMin || u.balance > demoBalanceMax {
			t.Errorf("user %+v", u)
		}
		emails[email] = true
	}
	if len(products) != 100 || len(users) != 1000 {
		t.Errorf("%d products and %d users", len(products), len(users))
	}
	for i, u := range demoUsers() {
		if u != users[i] {
			t.Fatalf("user %d is %+v, was %+v", i, u, users[i])
		}
	}
}

func TestDemo_CompletesWhatWasInterruptedAndDoublesNothing(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog()})
	d := demo{shop: s.Shop, log: quietLog()}
	products, users := demoProducts(), demoUsers()
	for _, p := range products[:30] {
		if _, err := s.Books.CreateProduct(t.Context(), p.Name, p.Price, p.Stock); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.enroll(t.Context(), users[3]); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Books.CreateUser(t.Context(), users[4].name, users[4].email); err != nil { // and no charge
		t.Fatal(err)
	}
	for range 2 { // the second call changes nothing
		if err := fillDemo(t.Context(), s.Shop, quietLog()); err != nil {
			t.Fatal(err)
		}
		s.Written()
		wantDemo(t, s, products, users)
	}
}

// wantDemo compares the books with the catalogue.
func wantDemo(t *testing.T, s *shoptest.Shop, products []engine.Product, users []demoUser) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.Stack.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	stocks := column(t, conn, "SELECT name, stock FROM products")
	for _, p := range products {
		if stocks[p.Name] != p.Stock {
			t.Errorf("%s: stock %d, want %d", p.Name, stocks[p.Name], p.Stock)
		}
	}
	balances := column(t, conn, "SELECT email, balance FROM users")
	for _, u := range users {
		if balances[u.email] != u.balance {
			t.Errorf("%s: balance %d, want %d", u.email, balances[u.email], u.balance)
		}
	}
	if len(stocks) != len(products) || len(balances) != len(users) {
		t.Errorf("%d products and %d users", len(stocks), len(balances))
	}
}

// column reads names with a number each; a name that is there twice fails.
func column(t *testing.T, conn *pgx.Conn, sql string) map[string]int64 {
	t.Helper()
	rows, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]int64{}
	var name string
	var value int64
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		if _, twice := values[name]; twice {
			t.Errorf("twice: %s", name)
		}
		values[name] = value
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func TestDemo_StaysOutOfAShopWithProducts(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog()})
	s.Product(100, 1)
	if err := fillDemo(t.Context(), s.Shop, quietLog()); err != nil {
		t.Fatal(err)
	}
	products, _, err := s.Engine.Products(t.Context(), 0, 200)
	if err != nil || len(products) != 1 {
		t.Errorf("%d products, %v", len(products), err)
	}
}

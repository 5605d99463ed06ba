package persist_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// benchOrders is how many orders a test or a benchmark of the books works on that can work on any number.
func benchOrders(tb testing.TB, usual int) int {
	tb.Helper()
	text := os.Getenv("STAMPEDE_BENCH_ORDERS")
	if text == "" {
		return usual
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		tb.Fatalf("STAMPEDE_BENCH_ORDERS=%q is no number of orders", text)
	}
	return n
}

const generateCallers = 512

// generate fills a shop: so many users with money, products, and orders of one line that are paid at once.
func generate(tb testing.TB, s *shoptest.Shop, orders, users, products int) {
	tb.Helper()
	buyers := generateUsers(tb, s, users)
	catalogue := make([]int64, products)
	for i := range catalogue {
		catalogue[i] = s.Product(int64(i%100), 1_000_000_000)
	}
	generateOrders(tb, s, "order", orders, buyers, catalogue)
}

// generateUsers opens accounts by the thousand, and charges each.
func generateUsers(tb testing.TB, s *shoptest.Shop, n int) []int64 {
	tb.Helper()
	conn, err := pgx.Connect(tb.Context(), s.Stack.PostgresURL())
	if err != nil {
		tb.Fatal(err)
	}
	defer conn.Close(tb.Context()) //nolint:errcheck // the test has what it asked for
	found, _ := conn.Query(tb.Context(), `INSERT INTO users (name, email, in_redis)
		SELECT 'Buyer', 'generated' || n || '@example.com', true FROM generate_series(1, $1) AS n RETURNING id`, n)
	users, err := pgx.CollectRows(found, pgx.RowTo[int64])
	if err != nil {
		tb.Fatal(err)
	}
	byPartition := make([][]int64, s.Engine.Keys().Partitions())
	for _, user := range users {
		p := s.Engine.Keys().OfUser(user)
		byPartition[p] = append(byPartition[p], user)
	}
	for p, part := range byPartition {
		door, err := s.Engine.Look(tb.Context(), p)
		if err == nil {
			err = s.Engine.EnrollBehind(p, door.Epoch, part)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	sideBySide(tb, n, func(i int, _ *rand.Rand) error {
		_, _, err := s.Engine.Charge(tb.Context(), engine.ChargeRequest{UserID: users[i], Amount: 1_000_000_000, Key: "generated"})
		return err
	})
	return users
}

// generateOrders places orders by random users on random products, under keys that begin with a word.
func generateOrders(tb testing.TB, s *shoptest.Shop, word string, n int, users, products []int64) {
	tb.Helper()
	sideBySide(tb, n, func(i int, random *rand.Rand) error {
		_, _, err := s.Engine.Place(tb.Context(), engine.PlaceRequest{
			UserID: users[random.IntN(len(users))], Key: word + " " + strconv.Itoa(i),
			Lines: []engine.Line{line(products[random.IntN(len(products))], 1+random.Int64N(3))},
		})
		return err
	})
}

// sideBySide does something n times, by as many callers as a busy shop has.
func sideBySide(tb testing.TB, n int, do func(i int, random *rand.Rand) error) {
	tb.Helper()
	var all sync.WaitGroup
	failed := make(chan error, generateCallers)
	for caller := range generateCallers {
		all.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(caller)))
			for i := caller; i < n; i += generateCallers {
				if err := do(i, random); err != nil {
					failed <- fmt.Errorf("number %d: %w", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	select {
	case err := <-failed:
		tb.Fatal(err)
	default:
	}
}

package persist_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// An audit of four times the orders takes the same memory. The users and products are the same, and as many orders stand
// in Redis as it keeps.
func TestAudit_MemoryDoesNotGrowWithTheNumberOfOrders(t *testing.T) {
	orders, times := 8_000, 2
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		orders, times = 2_500_000, 4
	}
	s, _ := start(t, shop.Config{})
	users := generateUsers(t, s, 1000)
	products := make([]int64, 50)
	for i := range products {
		products[i] = s.Product(int64(i), 1_000_000_000)
	}
	placeMany(t, s, "first", orders, users, products)
	few := auditPeak(t, s, int64(orders))
	placeMany(t, s, "then", times*orders-orders, users, products)
	many := auditPeak(t, s, int64(times*orders))
	const noise = 4 << 20 // bytes
	if many > few+few/4+noise {
		t.Errorf("an audit of %d orders takes %d KiB at most, of %d times as many %d KiB", orders, few>>10, times, many>>10)
	}
	t.Logf("%d KiB for %d orders, %d KiB for %d times as many", few>>10, orders, many>>10, times)
}

// placeMany places orders like generateOrders, and asks again where Redis lets it wait: for ten million orders it may.
func placeMany(t *testing.T, s *shoptest.Shop, word string, n int, users, products []int64) {
	t.Helper()
	sideBySide(t, n, func(i int, random *rand.Rand) error {
		request := engine.PlaceRequest{
			UserID: users[random.IntN(len(users))], Key: word + " " + strconv.Itoa(i),
			Lines: []engine.Line{line(products[random.IntN(len(products))], 1+random.Int64N(3))},
		}
		for {
			_, _, err := s.Engine.Place(t.Context(), request)
			if !errors.Is(err, engine.ErrUnknown) && !errors.Is(err, engine.ErrOverloaded) && !errors.Is(err, engine.ErrUnavailable) {
				return err
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// auditPeak audits a shop of so many orders, and returns how many bytes the heap grew at most.
func auditPeak(t *testing.T, s *shoptest.Shop, orders int64) uint64 {
	t.Helper()
	for err := s.AwaitWritten(t.Context()); err != nil; err = s.AwaitWritten(t.Context()) {
		t.Logf("waiting for the writer: %v", err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(10)) // garbage is no memory that it needs
	runtime.GC()
	before, peak := heap(), uint64(0)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
				peak = max(peak, heap())
			}
		}
	}()
	begun := time.Now()
	sum, err := s.Books.Audit(t.Context(), s.Redis, func(v persist.Violation) { t.Errorf("%+v", v) })
	took := time.Since(begun)
	close(quit)
	<-done
	if err != nil || sum.Orders != orders {
		t.Fatalf("audited %d orders of %d: %v", sum.Orders, orders, err)
	}
	t.Logf("%d orders in %v: %.1f us an order", orders, took.Round(time.Millisecond), float64(took.Microseconds())/float64(orders))
	return peak - min(peak, before)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

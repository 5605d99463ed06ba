package persist_test

import (
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/persist"
)

// Each of several processes writes its share of the partitions; when one ends the others take its part.
func TestWriter_SpreadsOverProcesses(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Partitions: 5})
	wantLeads(t, s.Shop, 5)
	second := s.Open()
	wantLeads(t, s.Shop, 2, 3)
	wantLeads(t, second, 2, 3)
	third := s.Open()
	for _, one := range []*shop.Shop{third, s.Shop, second} {
		wantLeads(t, one, 1, 2)
	}
	for _, one := range []*shop.Shop{second, third} {
		if err := one.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	wantLeads(t, s.Shop, 5)
	t.Logf("all taken over after %v", time.Since(start))
	s.User(100)
	s.Written()
}

// wantLeads waits until a process writes one of the numbers of partitions.
func wantLeads(t *testing.T, s *shop.Shop, numbers ...int64) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		leads := persist.Leads(s.Writer)
		for _, n := range numbers {
			if leads == n {
				return
			}
		}
		if time.Now().After(end) {
			t.Fatalf("it writes %d partitions, want one of %v", leads, numbers)
		}
	}
}

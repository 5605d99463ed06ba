package engine

import (
	"strconv"
	"testing"
)

// Who has waited in vain is no later for it when he asks again, and nobody else is earlier by it.
func TestSupplies_WhoAsksAgainIsAsEarlyAsBefore(t *testing.T) {
	t.Parallel()
	var s supplies
	one := []Line{{ProductID: 1, Quantity: 1}}
	ask := func(key string) *waiter { return s.wait(0, asker{key: key}, one) }
	first := ask("first")
	s.keep(first, asker{key: "first"})
	between := ask("between")
	if between.ticket <= first.ticket {
		t.Fatalf("tickets %d, then %d", first.ticket, between.ticket)
	}
	if again := ask("first"); again.ticket != first.ticket {
		t.Errorf("who asks again has ticket %d, had %d", again.ticket, first.ticket)
	}
	if twice := ask("first"); twice.ticket <= between.ticket {
		t.Errorf("another beside him has ticket %d as well, who came between has %d", twice.ticket, between.ticket)
	}
	for i := range 2 * lateMax {
		s.keep(first, asker{key: strconv.Itoa(i)})
	}
	if n := len(s.late); n != lateMax {
		t.Errorf("%d are kept, at most %d", n, lateMax)
	}
}

package persist_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// sellAt places orders, and gives one of them back, while the clock stands off.
func sellAt(t *testing.T, s *shoptest.Shop, user, product int64, offset time.Duration) {
	t.Helper()
	s.Engine.SetClockOffset(offset)
	defer s.Engine.SetClockOffset(0)
	for n := range 5 {
		place(t, s, user, fmt.Sprint("at ", offset, " ", n), line(product, 1))
	}
	cancel(t, s, place(t, s, user, fmt.Sprint("back ", offset), line(product, 2)), "")
	pay(t, s, reserve(t, s, user, fmt.Sprint("later ", offset), line(product, 3)))
}

// began lets the running totals begin as long ago as the clock is to be turned.
func began(t *testing.T, s *shoptest.Shop, offset time.Duration) {
	t.Helper()
	first := time.Now().Add(offset-engine.Window-time.Hour).Unix() / 60
	if err := s.Redis.HSet(t.Context(), s.Engine.Keys().Meta(0), "rolled", first).Err(); err != nil {
		t.Fatal(err)
	}
}

// Of a journal of many epochs only the end is read: what still lives.
func TestRestore_ReadsTheEndOfALongJournal(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Hold: time.Hour})
	began(t, s, -100*time.Hour)
	s.Engine.SetClockOffset(-100 * time.Hour)
	user, product := s.User(1_000_000), s.Product(3, 10_000)
	s.Engine.SetClockOffset(0)
	nothing := func() {}
	for i, offset := range []time.Duration{-100 * time.Hour, -80 * time.Hour, -71 * time.Hour, -27 * time.Hour} {
		sellAt(t, s, user, product, offset)
		if i%2 == 0 {
			restart(t, s, nothing)
		}
	}
	s.Written()
	old := number(t, conn, "SELECT events FROM checkpoints")
	// Their records would have left by now, had the writer looked for them.
	for name := range dump(t, s) {
		if strings.Contains(name, "}i:") {
			s.Redis.Del(t.Context(), name)
		}
	}
	const young = -10 * time.Hour
	sellAt(t, s, user, product, young)
	restart(t, s, nothing)
	sellAt(t, s, user, product, 0)
	reserve(t, s, user, "held", line(product, 1))
	s.Written()
	auditClean(t, s)
	all := number(t, conn, "SELECT events FROM checkpoints")
	_, top, err := s.Engine.Top(t.Context(), 5) // rolls what is due
	if err != nil {
		t.Fatal(err)
	}
	before := holdings(t, s)

	flush(t, s)
	watch := restore(t, s)
	wantSame(t, before, holdings(t, s))
	if events, expected := watch.Phase(persist.RestoredEvents); events != all-old || expected != events {
		t.Errorf("%d of %d events read, %d are young", events, expected, all-old)
	}
	s.Reopen()
	auditClean(t, s)
	_, again, err := s.Engine.Top(t.Context(), 5)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(top) || len(top) != 1 || top[0].Sold != 4*8 {
		t.Errorf("the top five are %v (%v), they were %v", again, err, top)
	}
}

func TestRestore_OfBooksThatAreOlderThanTheWindow(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{Hold: time.Hour})
	began(t, s, -100*time.Hour)
	s.Engine.SetClockOffset(-100 * time.Hour)
	user, product := s.User(1_000_000), s.Product(3, 10_000)
	sellAt(t, s, user, product, -100*time.Hour)
	sellAt(t, s, user, product, -75*time.Hour)
	s.Written()
	flush(t, s)
	watch := restore(t, s)
	if events, _ := watch.Phase(persist.RestoredEvents); events != 0 {
		t.Errorf("%d events read", events)
	}
	for name := range dump(t, s) {
		if strings.Contains(name, "}i:") || strings.Contains(name, "}m:") || strings.Contains(name, "}top") {
			t.Errorf("%s was restored", name)
		}
	}
	s.Reopen()
	auditClean(t, s)
	place(t, s, user, "again", line(product, 1))
	s.Written()
	auditClean(t, s)
}

package persist_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

// wantStepsForward wants no order of the books to have a step before the one that it follows.
func wantStepsForward(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	back := number(t, conn, `SELECT count(*) FROM (SELECT at, lag(at) OVER (PARTITION BY order_id ORDER BY step) AS before FROM order_history) h WHERE at < before`)
	if back > 0 {
		t.Errorf("%d steps run back", back)
	}
}

// forgetClock leaves what the release before would have left: its last minute, and no clock.
func forgetClock(t *testing.T, s *shoptest.Shop, minute int64) {
	t.Helper()
	for p := range s.Engine.Keys().Partitions() {
		meta := s.Engine.Keys().Meta(p)
		if err := s.Redis.HDel(t.Context(), meta, "clock", "clock_at").Err(); err != nil {
			t.Fatal(err)
		}
		if err := s.Redis.HSet(t.Context(), meta, "minute", minute).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// NTP sets TIME back by 5 s between the steps of orders.
func TestClock_SetBackTheBooksStayRight(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(1, 1000)
	var paid, held []engine.Order
	for n := range 20 {
		paid = append(paid, place(t, s, user, fmt.Sprint("paid ", n), line(product, 1)))
		held = append(held, reserve(t, s, user, fmt.Sprint("held ", n), line(product, 1)))
	}
	s.Engine.SetClockOffset(-5 * time.Second)
	for n := range held {
		if n%2 == 0 {
			pay(t, s, held[n])
		} else {
			cancel(t, s, held[n], "")
		}
		cancel(t, s, paid[n], "")
	}
	s.Written()
	wantStepsForward(t, conn)
	auditClean(t, s)
}

// aheadAndBack sells with a clock that is an hour ahead, which is then set back, and returns held orders with the time of the
// latest of them.
func aheadAndBack(t *testing.T, s *shoptest.Shop) (held []engine.Order, latest time.Time) {
	t.Helper()
	users, product := s.Users(20, 1000), s.Product(1, 1000)
	s.Engine.SetClockOffset(time.Hour)
	for n, user := range users {
		held = append(held, reserve(t, s, user, "held", line(product, 1)))
		place(t, s, user, "paid", line(product, 1))
		latest = held[n].CreatedAt
	}
	s.Written()
	s.Engine.SetClockOffset(0)
	return held, latest
}

// wantContinued wants the clocks to have gone on from a time, and the steps of held orders too.
func wantContinued(t *testing.T, s *shoptest.Shop, conn *pgx.Conn, held []engine.Order, latest time.Time) {
	t.Helper()
	for p := range s.Engine.Keys().Partitions() {
		if v, err := s.Engine.Look(t.Context(), p); err != nil || v.Now.Before(latest) {
			t.Errorf("partition %d: it is %v, and %v has been seen: %v", p, v.Now, latest, err)
		}
	}
	for n := range held {
		if n%2 == 0 {
			pay(t, s, held[n])
		} else {
			cancel(t, s, held[n], "")
		}
	}
	write(t, s)
	wantStepsForward(t, conn)
	auditClean(t, s)
}

// Redis is lost: what fills the next one came from a clock that was an hour ahead.
func TestClock_GoesOnWhereTheJournalEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		partitions int
		change     func(t *testing.T, s *shoptest.Shop)
	}{
		"a restore":                    {1, func(t *testing.T, s *shoptest.Shop) { flush(t, s); restore(t, s); s.Reopen() }},
		"another number of partitions": {2, func(t *testing.T, s *shoptest.Shop) { relaid(t, s, 3) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := shoptest.Start(t, stack.Options{}, shop.Config{Partitions: c.partitions, Hold: 6 * time.Hour})
			conn := connect(t, s)
			held, latest := aheadAndBack(t, s)
			// The last event is not the latest if the release before wrote after TIME was set back.
			forgetClock(t, s, 0)
			place(t, s, held[0].UserID, "the last one", line(held[0].Items[0].ProductID, 1))
			s.Written()
			c.change(t, s)
			if n := number(t, conn, "SELECT count(*) FROM layouts WHERE epoch > 0 AND begun_at < (SELECT max(created_at) FROM orders)"); n > 0 {
				t.Error("orders of an earlier layout are later than this one: audit and restore would not look for them there")
			}
			wantContinued(t, s, conn, held, latest)
		})
	}
}

// A Redis that lags takes over, and is brought forward along the journal.
func TestClock_GoesOnWhereAReplayEnds(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Hold: 6 * time.Hour})
	aof, old := filepath.Join(s.Stack.RedisDir(), "appendonlydir"), filepath.Join(t.TempDir(), "old")
	place(t, s, s.User(1000), "in the old AOF", line(s.Product(1, 10), 1))
	restart(t, s, func() {
		if err := os.CopyFS(old, os.DirFS(aof)); err != nil {
			t.Fatal(err)
		}
	})
	held, latest := aheadAndBack(t, s)
	restart(t, s, func() {
		if err := errors.Join(os.RemoveAll(aof), os.CopyFS(aof, os.DirFS(old))); err != nil {
			t.Fatal(err)
		}
	})
	wantContinued(t, s, conn, held, latest)
}

// Histories that the release before wrote while TIME was set back are right, and stay as they are.
func TestAudit_TakesStepsByTheirNumber(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(1, 1000)
	order := pay(t, s, reserve(t, s, user, "an order", line(product, 1)))
	s.Written()
	auditClean(t, s)
	exec(t, conn, "UPDATE order_history SET at = at - interval '5 s' WHERE order_id = $1 AND step = 2", order.ID)
	exec(t, conn, "UPDATE orders SET updated_at = updated_at - interval '5 s' WHERE id = $1", order.ID)
	journal := false
	for _, v := range audit(t, s) {
		if v.Check == "order states" {
			t.Errorf("%s: %s: %s", v.Check, v.Subject, v.Detail)
		}
		journal = journal || v.Check == "tables follow the journal"
	}
	if !journal {
		t.Error("a step at another time than the journal has is not found")
	}
}

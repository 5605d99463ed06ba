package persist_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// startWriter runs a writer of its own until the test ends.
func startWriter(t *testing.T, s *shoptest.Shop) *persist.Writer {
	t.Helper()
	stream, err := engine.Connect(engine.Redis{URL: s.Stack.RedisURL()}, 2, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	w := persist.NewWriter(s.Books, stream)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
	})
	return w
}

// quarantined are the events in quarantine, as epoch-seq.
func quarantined(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	found, _ := conn.Query(t.Context(), "SELECT epoch || '-' || seq FROM quarantine ORDER BY partition, epoch, seq")
	all, err := pgx.CollectRows(found, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// rewrite puts other payloads and versions into the stream, at the same ids.
func rewrite(t *testing.T, s *shoptest.Shop, change func(e *engine.Entry)) {
	t.Helper()
	key := s.Engine.Keys().Events(0)
	messages := s.Redis.XRange(t.Context(), key, "-", "+").Val()
	s.Redis.Del(t.Context(), key)
	for _, m := range messages {
		e, err := engine.ParseEntry(m.ID, m.Values)
		if err != nil {
			t.Fatal(err)
		}
		before := len(e.Payload)
		change(&e)
		if len(e.Payload) != before {
			t.Fatal("the backlog is counted by the length of payloads")
		}
		err = s.Redis.Do(t.Context(), "XADD", key, m.ID, "v", e.Version, "f", e.First, "d", e.Payload).Err()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever the tables refuse is found among all the others, which go on; so do the steps of an order that is refused, into
// quarantine.
func TestQuarantine_TakesWhatTheTablesRefuseAndTheRestFlows(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	users, product := s.Users(20, 1_000_000), s.Product(1, 1_000_000)
	exec(t, conn, "ALTER TABLE order_items ADD CONSTRAINT seven CHECK (quantity <> 7)")
	sideBySide(t, 600, func(i int, _ *rand.Rand) error {
		quantity := int64(1)
		if i%150 == 75 {
			quantity = 7
		}
		_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{
			UserID: users[i%len(users)], Key: fmt.Sprint(i), Lines: []engine.Line{line(product, quantity)},
		})
		return err
	})
	paid := pay(t, s, reserve(t, s, users[0], "later", line(product, 7)))
	kept := pay(t, s, reserve(t, s, users[0], "kept", line(product, 8)))
	w := startWriter(t, s)
	s.Written()
	// Four orders, and both steps of the one that was paid later.
	if all := quarantined(t, conn); len(all) != 4+2 {
		t.Errorf("in quarantine: %v", all)
	}
	if err := w.Alarm(); err != nil {
		t.Error(err)
	}
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != 596+1 {
		t.Errorf("%d orders in the tables", n)
	}
	if n := number(t, conn, "SELECT count(*) FROM orders WHERE id = $1", paid.ID); n != 0 {
		t.Error("an order that was refused stands in the table")
	}
	if n := number(t, conn, "SELECT count(*) FROM orders WHERE id = $1 AND status = 'SUCCESS'", kept.ID); n != 1 {
		t.Error("an order beside it does not")
	}
	lag, err := s.Books.Lag(t.Context())
	if err != nil || lag.Quarantined != 6 || lag.Events != 0 {
		t.Errorf("lag %+v, %v", lag, err)
	}
	// What Redis holds is the truth: it replays, and the order that no table has can still be given back.
	again, replayed, err := s.Engine.Pay(t.Context(), engine.PayRequest{UserID: users[0], OrderID: paid.ID, Key: fmt.Sprintf("pay %d", paid.ID)})
	if err != nil || !replayed || again.Status != engine.Success {
		t.Errorf("its payment under the same key: %+v, replayed %v, %v", again, replayed, err)
	}
	cancel(t, s, paid, "")
	s.Written()
	if all := quarantined(t, conn); len(all) != 7 {
		t.Errorf("in quarantine after a further step: %v", all)
	}
	found := audit(t, s)
	for _, event := range quarantined(t, conn) {
		_, seq, _ := strings.Cut(event, "-")
		if !strings.Contains(fmt.Sprint(found), "seq="+seq) {
			t.Errorf("the audit does not name event %s: %v", event, found)
		}
	}
}

// An event that cannot be read takes those behind it in its entry along, and no other.
func TestQuarantine_TakesWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	users, product := s.Users(8, 1_000_000), s.Product(1, 1_000_000)
	sideBySide(t, 200, func(i int, _ *rand.Rand) error {
		_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: users[i%len(users)], Key: fmt.Sprint(i), Lines: []engine.Line{line(product, 1)}})
		return err
	})
	var want []string
	rewrite(t, s, func(e *engine.Entry) {
		last := bytes.LastIndex(e.Payload, []byte("\x9b\x01")) // the head of an order's event
		if len(want) == 0 && e.Last.Seq >= e.First+2 && last > 0 {
			e.Payload[last] = 0xc1 // msgpack never uses it
			want = append(want, e.Last.String())
		}
	})
	if len(want) == 0 {
		t.Fatal("no call took three orders")
	}
	w := startWriter(t, s)
	s.Written()
	if all := quarantined(t, conn); fmt.Sprint(all) != fmt.Sprint(want) {
		t.Errorf("in quarantine: %v, want %v", all, want)
	}
	if err := w.Alarm(); err != nil {
		t.Error(err)
	}
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != 199 {
		t.Errorf("%d orders in the tables", n)
	}
}

// More than some bad events are no bad events: somebody has been at the schema.
func TestQuarantine_OfHundredsIsAnAlarmInstead(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	users, product := s.Users(8, 1_000_000), s.Product(1, 1_000_000)
	exec(t, conn, "ALTER TABLE order_items ADD CONSTRAINT seven CHECK (quantity <> 7)")
	sideBySide(t, 200, func(i int, _ *rand.Rand) error {
		_, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: users[i%len(users)], Key: fmt.Sprint(i), Lines: []engine.Line{line(product, 7)}})
		return err
	})
	w := startWriter(t, s)
	alarm := awaitAlarm(t, w)
	if !strings.Contains(alarm, "cannot be derived") || !strings.Contains(alarm, "seven") {
		t.Errorf("the alarm says %s", alarm)
	}
	if all := quarantined(t, conn); len(all) != 0 {
		t.Errorf("in quarantine: %v", all)
	}
	exec(t, conn, "ALTER TABLE order_items DROP CONSTRAINT seven")
	s.Written()
	auditClean(t, s)
}

// Events of a newer program are left to a newer program.
func TestQuarantine_IsNotForEventsOfANewerProgram(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	place(t, s, s.User(100), "k", line(s.Product(1, 10), 1))
	rewrite(t, s, func(e *engine.Entry) { e.Version += 100 })
	w := startWriter(t, s)
	if alarm := awaitAlarm(t, w); !strings.Contains(alarm, "newer version of Stampede") {
		t.Errorf("the alarm says %s", alarm)
	}
	if all := quarantined(t, conn); len(all) != 0 {
		t.Errorf("in quarantine: %v", all)
	}
	rewrite(t, s, func(e *engine.Entry) { e.Version -= 100 })
	s.Written()
	auditClean(t, s)
}

// The journal says that an order took a step, the table has it otherwise: somebody has been at the tables. The others go on.
func TestQuarantine_TakesAStepOfAnOrderThatIsNotAsItWas(t *testing.T) {
	t.Parallel()
	for _, tampering := range []string{"DELETE FROM orders", "UPDATE orders SET status = 'CANCELED'"} {
		s, conn := start(t, shop.Config{})
		user, product := s.User(1000), s.Product(100, 10)
		order := reserve(t, s, user, "k", line(product, 1))
		s.Written()
		exec(t, conn, tampering)
		pay(t, s, order)
		other := place(t, s, user, "other", line(product, 2))
		s.Written()
		if all := quarantined(t, conn); len(all) != 1 {
			t.Errorf("after %s, in quarantine: %v", tampering, all)
		}
		var reason string
		if err := conn.QueryRow(t.Context(), "SELECT reason FROM quarantine").Scan(&reason); err != nil || !strings.Contains(reason, "of 1 orders that take a step, 0 stand in the table") {
			t.Errorf("the reason is %q, %v", reason, err)
		}
		if n := number(t, conn, "SELECT count(*) FROM orders WHERE id = $1 AND status = 'SUCCESS'", other.ID); n != 1 {
			t.Error("the next order is not in the table")
		}
	}
}

func awaitAlarm(t *testing.T, w *persist.Writer) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); w.Alarm() == nil; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no alarm")
		}
	}
	return w.Alarm().Error()
}

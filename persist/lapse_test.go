package persist_test

import (
	"fmt"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// remembers reports whether Redis holds the record of a user's key.
func remembers(t *testing.T, s *shoptest.Shop, user int64, key string) bool {
	t.Helper()
	keys := s.Engine.Keys()
	n, err := s.Redis.Exists(t.Context(), keys.Idempotency(keys.OfUser(user), user, key)).Result()
	if err != nil {
		t.Fatal(err)
	}
	return n == 1
}

// awaitForgotten waits until Redis has dropped the records of some keys.
func awaitForgotten(t *testing.T, s *shoptest.Shop, user int64, keys ...string) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for _, key := range keys {
		for remembers(t, s, user, key) {
			if time.Now().After(deadline) {
				t.Fatalf("the record of %q stays in Redis", key)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func TestLapse_RecordsLeaveAfter25HoursAndNoneBefore(t *testing.T) {
	persist.LapseEvery(t, 0)
	s, _ := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(3, 1000)
	var old []string
	for n := range 100 {
		old = append(old, fmt.Sprint("old ", n))
		charge(t, s, user, old[n])
	}
	place(t, s, user, "old order", line(product, 1))
	restart(t, s, func() {}) // its journal goes on in another epoch
	s.Engine.SetClockOffset(2 * time.Hour)
	charge(t, s, user, "young")
	charge(t, s, user, "young too")
	s.Written()
	s.Engine.SetClockOffset(24*time.Hour + 50*time.Minute)
	charge(t, s, user, "today")
	s.Written()
	auditClean(t, s)
	if !charge(t, s, user, old[0]) {
		t.Error("a key was forgotten within 25 hours")
	}

	s.Engine.SetClockOffset(25*time.Hour + time.Minute)
	awaitForgotten(t, s, user, append(old, "old order")...)
	for _, key := range []string{"young", "young too", "today"} {
		if !remembers(t, s, user, key) {
			t.Errorf("the record of %q is gone", key)
		}
	}
	if charge(t, s, user, old[0]) {
		t.Error("a key whose time has passed gets a replay")
	}
	s.Written()
	auditClean(t, s)

	// The writer that takes over goes on from the mark; one without a mark finds where to begin.
	s.Stop()
	s.Reopen()
	s.Engine.SetClockOffset(27*time.Hour + time.Minute)
	awaitForgotten(t, s, user, "young", "young too")
	meta := s.Engine.Keys().Meta(0)
	s.Stop()
	if n, err := s.Redis.HDel(t.Context(), meta, "lapsed_epoch", "lapsed_seq").Result(); err != nil || n != 2 {
		t.Fatalf("the mark has %d fields, %v", n, err)
	}
	s.Reopen()
	s.Engine.SetClockOffset(49*time.Hour + 55*time.Minute)
	awaitForgotten(t, s, user, "today")
	if !remembers(t, s, user, old[0]) {
		t.Error("a key that was used again has lost its record within 25 hours")
	}
	s.Engine.SetClockOffset(51 * time.Hour)
	awaitForgotten(t, s, user, old[0])
	auditClean(t, s)
}

// Whoever comes late, with events that others have seen to, must not drop what was used again since.
func TestLapse_SparesAKeyThatWasUsedAgain(t *testing.T) {
	s, conn := start(t, shop.Config{})
	user := s.User(1_000_000)
	charge(t, s, user, "key")
	s.Written()
	at := engine.Position{}
	if err := conn.QueryRow(t.Context(), "SELECT epoch, seq FROM checkpoints").Scan(&at.Epoch, &at.Seq); err != nil {
		t.Fatal(err)
	}
	var e engine.Entry
	if err := conn.QueryRow(t.Context(), "SELECT epoch, first_seq, last_seq, version, payload FROM events ORDER BY epoch DESC, last_seq DESC LIMIT 1").
		Scan(&e.Last.Epoch, &e.First, &e.Last.Seq, &e.Version, &e.Payload); err != nil {
		t.Fatal(err)
	}
	was, err := e.Events()
	if err != nil || len(was) != 1 || was[0].Key != "key" {
		t.Fatalf("the last entry of the journal has %+v, %v", was, err)
	}
	lapse := func(from, to engine.Position) bool {
		done, err := s.Engine.Lapse(t.Context(), 0, at.Epoch, from, to, was)
		if err != nil {
			t.Fatal(err)
		}
		return done
	}
	if lapse(at, at) || !remembers(t, s, user, "key") {
		t.Error("dropped from another mark than the one that is noted")
	}
	if !lapse(engine.Position{}, at) || remembers(t, s, user, "key") {
		t.Error("not dropped")
	}
	if charge(t, s, user, "key") {
		t.Error("a key without a record gets a replay")
	}
	if !lapse(at, at) || !remembers(t, s, user, "key") {
		t.Error("the record of a later use was dropped")
	}
}

package persist_test

import (
	"sync"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

func lagOf(t *testing.T, s *shoptest.Shop) persist.Lag {
	t.Helper()
	lag, err := s.Books.Lag(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return lag
}

// charge writes one event.
func charge(t *testing.T, s *shoptest.Shop, user int64, key string) (replayed bool) {
	t.Helper()
	_, replayed, err := s.Engine.Charge(t.Context(), engine.ChargeRequest{UserID: user, Amount: 1, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	return replayed
}

func TestLag_CountsEventsAndTellsTheAgeOfTheOldest(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true, Partitions: 3, BacklogCap: 10_000})
	if lag := lagOf(t, s); lag != (persist.Lag{}) {
		t.Errorf("lag of a shop without an event: %+v", lag)
	}
	// Users of all partitions, and the oldest event in one of them.
	users := []int64{s.User(0)}
	charge(t, s, users[0], "oldest")
	oldest := time.Now()
	first := lagOf(t, s)
	if first.Events != 1 || first.Age < 0 || first.Age > time.Since(oldest)+time.Minute || first.Backlog <= 0 || first.Backlog >= 1 {
		t.Errorf("lag after one event: %+v", first)
	}
	s.Engine.SetClockOffset(time.Hour)
	for range 12 {
		users = append(users, s.User(1))
	}
	s.Engine.SetClockOffset(2 * time.Hour)
	second := lagOf(t, s)
	if second.Events != 13 || second.Backlog <= first.Backlog {
		t.Errorf("lag after 13 events: %+v, after one %+v", second, first)
	}
	// This process has seen it come. One that starts later goes by the clock, which may have been set.
	if second.Age > time.Since(oldest)+time.Minute {
		t.Errorf("the oldest event is %v old for a process that saw it come", second.Age)
	}
	later, err := shop.Open(t.Context(), shop.Config{
		Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(), NoWriter: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	later.Engine.SetClockOffset(2 * time.Hour)
	if lag, err := later.Books.Lag(t.Context()); err != nil || lag.Age < 2*time.Hour || lag.Age > 2*time.Hour+time.Since(oldest)+time.Minute {
		t.Errorf("the oldest event is %v old (%v), want two hours and little", lag.Age, err)
	}
	if err := later.Close(t.Context()); err != nil {
		t.Error(err)
	}

	// A writer brings all of it into Postgres.
	writing, err := shop.Open(t.Context(), shop.Config{
		Redis: engine.Redis{URL: s.Stack.RedisURL()}, PostgresURL: s.Stack.PostgresURL(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Written()
	if lag := lagOf(t, s); lag.Events != 0 || lag.Age != 0 {
		t.Errorf("lag once everything is written: %+v", lag)
	}
	if err := writing.Close(t.Context()); err != nil {
		t.Error(err)
	}
	// What comes then is young, though the checkpoint is not at the beginning any more.
	charge(t, s, users[0], "young")
	if lag := lagOf(t, s); lag.Events != 1 || lag.Age > time.Since(oldest)+time.Minute {
		t.Errorf("lag after one more event: %+v", lag)
	}
}

// An event that cannot be read counts all the same, and has the age at which it was first seen.
func TestLag_OfAnUnreadableEventIsItsTimeInSight(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	user := s.User(1)
	key := s.Engine.Keys().Events(0)
	entries := s.Redis.XRange(t.Context(), key, "-", "+").Val()
	s.Redis.Del(t.Context(), key)
	if err := s.Redis.Do(t.Context(), "XADD", key, entries[0].ID, "v", "99", "f", entries[0].Values["f"], "d", entries[0].Values["d"]).Err(); err != nil {
		t.Fatal(err)
	}
	charge(t, s, user, "readable")
	lagOf(t, s)
	time.Sleep(100 * time.Millisecond)
	if lag := lagOf(t, s); lag.Events != 2 || lag.Age < 100*time.Millisecond {
		t.Errorf("lag %+v, want 2 events that have waited for a while", lag)
	}
}

// Whoever asks sees what was answered before, however many ask at once.
func TestLag_SharedMeasurementBeganAfterEachCallerCame(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	var all sync.WaitGroup
	for range 8 {
		user := s.User(0)
		all.Go(func() {
			for n := range 25 {
				before, err := s.Books.Lag(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, _, err = s.Engine.Charge(t.Context(), engine.ChargeRequest{UserID: user, Amount: 1, Key: string(rune('a' + n))})
				if err != nil {
					t.Error(err)
					return
				}
				after, err := s.Books.Lag(t.Context())
				if err != nil || after.Events <= before.Events {
					t.Errorf("%d events before a charge, %d after it (%v)", before.Events, after.Events, err)
				}
			}
		})
	}
	all.Wait()
	if lag := lagOf(t, s); lag.Events != 8*25 {
		t.Errorf("%d events, want %d", lag.Events, 8*25)
	}
}

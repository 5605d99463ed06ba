package engine_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/shop/shoptest"
	"stampede/engine"
)

// soldByMinute is in which minutes units of a product were sold.
func soldByMinute(t *testing.T, s *shoptest.Shop, product int64) map[int64]int64 {
	t.Helper()
	ctx := context.Background()
	sold := map[int64]int64{}
	prefix := s.Engine.Keys().Sold(0, 0)
	prefix = prefix[:len(prefix)-1]
	keys, err := s.Redis.Keys(ctx, prefix+"*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		units, err := s.Redis.HGet(ctx, key, strconv.FormatInt(product, 10)).Int64()
		if errors.Is(err, redis.Nil) {
			continue
		}
		minute, parseErr := strconv.ParseInt(key[len(prefix):], 10, 64)
		if err != nil || parseErr != nil {
			t.Fatal(key, err, parseErr)
		}
		sold[minute] = units
	}
	return sold
}

func TestClock_MinuteFollowsItForwardAndNeverBack(t *testing.T) {
	s := clocked.open(t)
	e := s.Engine
	user, product := s.User(1000), s.Product(1, 1000)
	order := func(name string) int64 {
		t.Helper()
		before := soldByMinute(t, s, product)
		mustPlace(t, e, user, name, lines(product, 1))
		for minute, units := range soldByMinute(t, s, product) {
			if units == before[minute]+1 {
				return minute
			}
		}
		t.Fatalf("%s: no minute counts it", name)
		return 0
	}
	last, lastID := seenMinute(t, s), int64(0)
	for i, offset := range []time.Duration{0, 5 * time.Minute, 5 * time.Minute, 0, -10 * time.Minute, 6 * time.Minute, time.Hour, -24 * time.Hour, 59 * time.Minute, 2 * time.Hour} {
		name := fmt.Sprintf("%d: clock turned by %v", i, offset)
		e.SetClockOffset(offset)
		early := time.Now().Add(offset).Unix() / 60
		got := order(name)
		late := time.Now().Add(offset).Unix() / 60
		// A clock that leads moves on by some seconds, whatever the step.
		if got < max(early, last) || got > max(late, last+1) {
			t.Errorf("%s: counted in minute %d, it was minute %d, and %d had been seen", name, got, late, last)
		}
		last = got
		if known := e.KnownMinute(0); known != last && known != last+1 {
			t.Errorf("%s: the next call expects minute %d after %d", name, known, last)
		}
		// Ids grow whatever the clock does.
		stored := mustPlace(t, e, user, name, lines(product, 1))
		if stored.ID <= lastID {
			t.Errorf("%s: order %d after %d", name, stored.ID, lastID)
		}
		lastID = stored.ID
	}
	s.Written()
}

func TestClock_TurnedUnderLoadCostsNoError(t *testing.T) {
	s := clocked.open(t)
	e := s.Engine
	user, product := s.User(1_000_000), s.Product(1, 1_000_000)
	stop := make(chan struct{})
	var turner, buyers sync.WaitGroup
	turner.Go(func() {
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			select {
			case <-stop:
				tick.Stop()
				return
			case <-tick.C:
				e.SetClockOffset(time.Duration(rand.IntN(3600)-1800) * time.Second)
			}
		}
	})
	const each = 150
	for b := range 8 {
		buyers.Go(func() {
			for i := range each {
				_, _, err := e.Place(context.Background(), engine.PlaceRequest{
					UserID: user, Key: fmt.Sprintf("%d of %d", i, b), Lines: lines(product, 1),
				})
				if err != nil {
					t.Errorf("order while the clock turns: %v", err)
					return
				}
			}
		})
	}
	buyers.Wait()
	close(stop)
	turner.Wait()
	total := int64(0)
	for _, units := range soldByMinute(t, s, product) {
		total += units
	}
	if total != 8*each {
		t.Errorf("the minutes count %d units, %d were sold", total, 8*each)
	}
	wantStock(t, e, product, 1_000_000-8*each)
}

// What a repair counts into minutes must be what the scripts counted, also for sales made while the clock stood
// behind a minute that had been seen: there the script counts into the minute seen.
func TestClock_SalesBehindASeenMinuteAreFoldedIntoTheirMinute(t *testing.T) {
	s := clocked.open(t)
	e, from := s.Engine, positions(t, s.Engine)
	user, product := s.User(1000), s.Product(1, 1000)
	for i, offset := range []time.Duration{0, 5 * time.Minute, 0, 2 * time.Minute} {
		e.SetClockOffset(offset)
		mustPlace(t, e, user, fmt.Sprint("order ", i), lines(product, 1))
	}
	wantFold(t, s, from)
}

// seenMinute is the last minute in which anything was sold; 0 before the first sale.
func seenMinute(t *testing.T, s *shoptest.Shop) int64 {
	t.Helper()
	minute, err := s.Redis.HGet(context.Background(), s.Engine.Keys().Meta(0), "minute").Int64()
	if err != nil {
		t.Fatal(err)
	}
	return minute
}

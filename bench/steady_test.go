package main

import (
	"errors"
	"math"
	"testing"
	"time"
)

// writer is a fake one: it writes so many events a second, in transactions of so many, while orders come in at a rate.
type writer struct{ perSecond, transaction float64 }

// under is a round of a rate, as it would be measured.
func (w writer) under(rate float64, d time.Duration) round {
	var looks []look
	for at := d/2 + lagEvery; at <= d; at += lagEvery {
		come := rate * at.Seconds()
		written := math.Min(w.perSecond*at.Seconds(), come)
		looks = append(looks, look{at, int64(come - math.Floor(written/w.transaction)*w.transaction)})
	}
	return round{Due: rate, PerSecond: rate, LagGrowth: slope(looks)}
}

func TestSearchSteady_FindsWhatAWriterKeepsUpWith(t *testing.T) {
	for name, w := range map[string]writer{
		"single events":      {perSecond: 4000, transaction: 1},
		"whole transactions": {perSecond: 4000, transaction: 1024},
		"a slow one":         {perSecond: 300, transaction: 100},
		"a fast one":         {perSecond: 90_000, transaction: 1024},
	} {
		tried := 0
		best, err := searchSteady(5000, func(i int, rate float64) (round, error) {
			if tried++; i != tried {
				t.Errorf("%s: round %d is called %d", name, tried, i)
			}
			return w.under(rate, 10*time.Second), nil
		})
		if err != nil || best == nil || math.Abs(best.Due/w.perSecond-1) > 0.15 {
			t.Errorf("%s: found %+v (%v) after %d rounds", name, best, err, tried)
		}
	}
}

func TestSearchSteady_TellsThatThereIsNoSuchRate(t *testing.T) {
	if best, err := searchSteady(5000, func(_ int, rate float64) (round, error) {
		return round{Due: rate, PerSecond: rate, LagGrowth: rate}, nil
	}); best != nil || err != nil {
		t.Errorf("nothing is ever written: %+v (%v)", best, err)
	}
	gone := errors.New("gone")
	if _, err := searchSteady(5000, func(int, float64) (round, error) { return round{}, gone }); !errors.Is(err, gone) {
		t.Errorf("a server that is gone: %v", err)
	}
}

func TestRound_IsSteady(t *testing.T) {
	for name, c := range map[string]struct {
		round round
		want  bool
	}{
		"no lag":          {round{Due: 1000, PerSecond: 1000}, true},
		"level":           {round{Due: 1000, PerSecond: 990, LagGrowth: 40}, true},
		"shrinking":       {round{Due: 1000, PerSecond: 990, LagGrowth: -200}, true},
		"growing":         {round{Due: 1000, PerSecond: 1000, LagGrowth: 60}, false},
		"answers lagging": {round{Due: 1000, PerSecond: 900}, false},
	} {
		if got := c.round.steady(); got != c.want {
			t.Errorf("%s: steady is %v", name, got)
		}
	}
}

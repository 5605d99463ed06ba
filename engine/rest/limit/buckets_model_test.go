package limit_test

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"stampede/engine/rest/limit"
)

// model is a token bucket in fractions, as textbooks draw it.
type model struct {
	perSecond, burst int64
	tokens           *big.Rat
	at               time.Time
}

func newModel(perSecond, burst int, at time.Time) *model {
	return &model{perSecond: int64(perSecond), burst: int64(burst), tokens: big.NewRat(int64(burst), 1), at: at}
}

func (m *model) take(now time.Time) limit.Decision {
	full := big.NewRat(m.burst, 1)
	flowed := new(big.Rat).Mul(big.NewRat(int64(now.Sub(m.at)), int64(time.Second)), big.NewRat(m.perSecond, 1))
	if m.tokens.Add(m.tokens, flowed).Cmp(full) > 0 {
		m.tokens.Set(full)
	}
	m.at = now
	one := big.NewRat(1, 1)
	d := limit.Decision{Limit: int(m.burst), Window: m.until(full)}
	if d.OK = m.tokens.Cmp(one) >= 0; d.OK {
		m.tokens.Sub(m.tokens, one)
	}
	whole := new(big.Int).Quo(m.tokens.Num(), m.tokens.Denom())
	d.Remaining = int(whole.Int64())
	d.Next = m.until(new(big.Rat).Sub(big.NewRat(int64(d.Remaining)+1, 1), m.tokens))
	d.Reset = m.until(new(big.Rat).Sub(full, m.tokens))
	if !d.OK {
		d.RetryAfter = d.Next
	}
	return d
}

// until returns how long tokens take to flow, rounded up to a nanosecond.
func (m *model) until(tokens *big.Rat) time.Duration {
	ns := new(big.Rat).Mul(tokens, big.NewRat(int64(time.Second), m.perSecond))
	up := new(big.Int).Add(ns.Num(), ns.Denom())
	up.Sub(up, big.NewInt(1)).Quo(up, ns.Denom())
	return time.Duration(up.Int64())
}

var (
	rates  = rapid.OneOf(rapid.IntRange(1, 20), rapid.SampledFrom([]int{97, 300, 999, 1000, 12_345, 1_000_000, limit.RateMax}))
	bursts = rapid.OneOf(rapid.IntRange(0, 12), rapid.SampledFrom([]int{100, 4096, limit.RateMax}))
	// pauses are as long as it takes to notice anything: nothing, around a token, around a full bucket, and between.
	pauses = func(perSecond, burst int) *rapid.Generator[time.Duration] {
		token, window := time.Second/time.Duration(perSecond), time.Duration(burst)*time.Second/time.Duration(perSecond)
		return rapid.Custom(func(t *rapid.T) time.Duration {
			if rapid.IntRange(0, 3).Draw(t, "between") == 0 {
				return time.Duration(rapid.Int64Range(0, int64(window)).Draw(t, "pause"))
			}
			around := rapid.SampledFrom([]time.Duration{0, 0, token, token / 2, 3 * token, window, time.Hour}).Draw(t, "around")
			return max(0, around+time.Duration(rapid.IntRange(-2, 2).Draw(t, "off")))
		})
	}
)

// Every figure of every decision is that of the textbook, for several keys whose calls mix.
func TestBuckets_EqualTheTextbook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond, burst := rates.Draw(t, "per second"), bursts.Draw(t, "burst")
		b := limit.NewBuckets[int](perSecond, burst, plenty)
		if burst == 0 {
			burst = perSecond
		}
		models := map[int]*model{}
		at, pause := start, pauses(perSecond, burst)
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			at = at.Add(pause.Draw(t, "pause"))
			key := rapid.IntRange(1, 3).Draw(t, "key")
			if models[key] == nil {
				models[key] = newModel(perSecond, burst, at)
			}
			if got, want := b.Take(key, at), models[key].take(at); got != want {
				t.Fatalf("key %d at %v:\n got %+v\nwant %+v", key, at.Sub(start), got, want)
			}
		}
	})
}

// However the clock went before, RetryAfter is true to the nanosecond, and no longer than a token and the skew.
func TestBuckets_RetryAfterIsTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond, burst := rates.Draw(t, "per second"), rapid.IntRange(1, 12).Draw(t, "burst")
		b := limit.NewBuckets[int](perSecond, burst, plenty)
		at, pause := start, pauses(perSecond, burst)
		longest := limit.SkewMax + time.Second/time.Duration(perSecond) + 1
		for range rapid.IntRange(1, 60).Draw(t, "requests") {
			step := pause.Draw(t, "pause")
			if rapid.IntRange(0, 3).Draw(t, "back") == 0 {
				step = -step
			}
			at = at.Add(step)
			d := b.Take(1, at)
			if d.OK {
				continue
			}
			if d.RetryAfter <= 0 || d.RetryAfter > longest {
				t.Fatalf("%+v", d)
			}
			if early := b.Take(1, at.Add(d.RetryAfter-1)); early.OK {
				t.Fatalf("%+v, and a nanosecond earlier there is one", d)
			}
			at = at.Add(d.RetryAfter)
			if late := b.Take(1, at); !late.OK {
				t.Fatalf("%+v, and then %+v", d, late)
			}
		}
	})
}

// What RateLimit-Policy says is enough: whoever keeps to q requests in any w seconds is never refused.
func TestBuckets_WhoKeepsToTheWindowIsNeverRefused(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond, burst := rapid.IntRange(1, 30).Draw(t, "per second"), rapid.IntRange(1, 40).Draw(t, "burst")
		b := limit.NewBuckets[int](perSecond, burst, plenty)
		window := time.Duration((burst+perSecond-1)/perSecond) * time.Second
		at := start
		var made []time.Time
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			if rapid.IntRange(0, 5).Draw(t, "pauses") == 0 {
				at = at.Add(time.Duration(rapid.Int64Range(0, int64(window)).Draw(t, "pause")))
			}
			if n := len(made); n >= burst && at.Sub(made[n-burst]) < window {
				at = made[n-burst].Add(window)
			}
			made = append(made, at)
			if d := b.Take(1, at); !d.OK {
				t.Fatalf("request %d at %v: %+v", len(made), at.Sub(start), d)
			}
		}
	})
}

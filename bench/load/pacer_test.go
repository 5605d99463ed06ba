package load

import (
	"math"
	"testing"
	"time"
)

// plan is when the hits of a time are due.
func plan(p Pacer, d time.Duration) (due []time.Duration) {
	for n := int64(0); ; n++ {
		at := p.Due(n)
		if at >= d {
			return due
		}
		due = append(due, at)
	}
}

func TestConstant_IsExactHoweverLong(t *testing.T) {
	p := Constant(3)
	for n, want := range map[int64]time.Duration{
		0: 0, 1: time.Second / 3, 3: time.Second, 3 * 3600 * 24 * 365: 365 * 24 * time.Hour,
	} {
		if got := p.Due(n); got != want {
			t.Errorf("hit %d is due at %v, want %v", n, got, want)
		}
	}
	if got := len(plan(Constant(1000), 5*time.Second)); got != 5000 || p.Rate(time.Hour) != 3 {
		t.Errorf("%d hits in 5 s at 1000 a second", got)
	}
}

func TestPoisson_GapsAreExponential(t *testing.T) {
	const rate, d = 1000.0, 100 * time.Second
	due := plan(NewPoisson(rate, 7), d)
	// 100,000 expected: 5 standard deviations either way.
	if n := float64(len(due)); math.Abs(n-rate*d.Seconds()) > 5*math.Sqrt(rate*d.Seconds()) {
		t.Fatalf("%v hits, want about %v", n, rate*d.Seconds())
	}
	// Of gaps with a mean of 1 ms, e^-x are longer than x ms; the deviation is that of the mean.
	var squares float64
	longer := map[float64]float64{0.1: 0, 1: 0, 3: 0}
	for n := 1; n < len(due); n++ {
		gap := (due[n] - due[n-1]).Seconds() * rate
		squares += (gap - 1) * (gap - 1)
		for x := range longer {
			if gap > x {
				longer[x]++
			}
		}
	}
	gaps := float64(len(due) - 1)
	for x, count := range longer {
		if got, want := count/gaps, math.Exp(-x); math.Abs(got-want) > 5*math.Sqrt(want*(1-want)/gaps) {
			t.Errorf("%.4f of the gaps are longer than %v ms, want %.4f", got, x, want)
		}
	}
	if deviation := math.Sqrt(squares / gaps); math.Abs(deviation-1) > 0.02 {
		t.Errorf("the standard deviation is %.3f of the mean, want 1", deviation)
	}
}

func TestPoisson_IsAFunctionOfSeedAndHit(t *testing.T) {
	p, again, other := NewPoisson(50, 1), NewPoisson(50, 1), NewPoisson(50, 2)
	far := p.Due(99)
	if p.Due(3) != again.Due(3) || again.Due(99) != far || p.Due(99) != far {
		t.Error("the same seed gave another plan")
	}
	if other.Due(99) == far {
		t.Error("another seed gave the same plan")
	}
}

func TestSpike_IsAllWithinASecond(t *testing.T) {
	const rate, d = 200, 10 * time.Second
	p := NewSpike(rate, d)
	due := plan(p, d)
	if len(due) != rate*10 {
		t.Fatalf("%d hits, want all %d", len(due), rate*10)
	}
	if first, last := due[0], due[len(due)-1]; first < time.Second || last-first >= time.Second {
		t.Errorf("from %v to %v: that is not nothing, and then all in a second", first, last)
	}
	for at := time.Duration(0); at < d; at += d / 100 {
		within := at >= due[0] && at < due[0]+time.Second
		if rate := p.Rate(at); within != (rate > 0) {
			t.Errorf("the rate at %v is %v", at, rate)
		}
	}
	if short := plan(NewSpike(rate, d/50), d/50); len(short) != rate/5 {
		t.Errorf("%d hits in a load shorter than a spike, want %d", len(short), rate/5)
	}
}

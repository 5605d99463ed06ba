package load

import (
	"math"
	"math/rand/v2"
	"time"
)

// Pacer plans a load: it says when hits are due, whatever has become of those before them. It knows no clock, so a plan
// is the same whenever it is carried out. One goroutine at a time asks it.
type Pacer interface {
	// Due is when hit n, counted from 0, is due, from the start of the load. It never decreases with n. Asking for one
	// hit after the other is cheap; to go back may mean to begin anew.
	Due(n int64) time.Duration
	// Rate is how many hits a second are due at a time after the start; of a random plan, in the mean.
	Rate(at time.Duration) float64
}

// never is when a hit is due that a plan does not have.
const never = time.Duration(math.MaxInt64)

// Constant is so many hits a second at equal distances.
type Constant float64

// Due is exact to the nanosecond, however long the load lasts: nothing adds up.
func (c Constant) Due(n int64) time.Duration {
	return time.Duration(float64(n) / float64(c) * float64(time.Second))
}

// Rate is the same at all times.
func (c Constant) Rate(time.Duration) float64 { return float64(c) }

// Poisson is hits that know nothing of each other, as of many people: the gaps between them are exponentially
// distributed, so that they come in clumps.
type Poisson struct {
	rate float64
	seed uint64

	gaps *rand.Rand
	n    int64   // of the last hit that was asked for
	at   float64 // seconds, when it is due
}

// NewPoisson plans rate hits a second in the mean. Equal seeds give equal plans.
func NewPoisson(rate float64, seed uint64) *Poisson {
	return &Poisson{rate: rate, seed: seed, n: math.MaxInt64}
}

// Due draws the gaps up to hit n.
func (p *Poisson) Due(n int64) time.Duration {
	if n < p.n {
		p.gaps, p.n, p.at = rand.New(rand.NewPCG(p.seed, 0)), -1, 0
	}
	for ; p.n < n; p.n++ {
		p.at += p.gaps.ExpFloat64() / p.rate
	}
	return time.Duration(p.at * float64(time.Second))
}

// Rate is that of the mean.
func (p *Poisson) Rate(time.Duration) float64 { return p.rate }

// Spike is a sale that opens: nothing at first, then within a second everything that would be due at the rate
// within the whole time, and nothing more.
type Spike struct {
	begin, length time.Duration
	hits          float64
}

const spikeLength = time.Second

// NewSpike plans as many hits as rate hits a second are in a time d, in a second in the middle of it.
func NewSpike(rate float64, d time.Duration) Spike {
	length := min(spikeLength, d)
	return Spike{begin: (d - length) / 2, length: length, hits: math.Floor(rate * d.Seconds())}
}

// Due is at equal distances within the spike.
func (s Spike) Due(n int64) time.Duration {
	if float64(n) >= s.hits {
		return never
	}
	return s.begin + time.Duration(float64(n)/s.hits*float64(s.length))
}

// Rate is 0 before and behind the spike.
func (s Spike) Rate(at time.Duration) float64 {
	if at < s.begin || at >= s.begin+s.length {
		return 0
	}
	return s.hits / s.length.Seconds()
}

package limit

import (
	"fmt"
	"hash/maphash"
	"sync"
	"time"
)

// Limits of a limit.
const (
	RateMax    = 1_000_000_000 // tokens a second, and tokens of a bucket
	keysMaxMin = 2             // one in each generation
)

const (
	// cost is what a request adds to the debt of its bucket. A nanosecond pays perSecond off.
	cost = 1_000_000_000

	shardsMax    = 64
	shardKeysMin = 2048 // below that, one lock less serves better than one more

	// skewMax is by how much the readings of the clock of two callers may be out of order. Time stands still between
	// them: were it turned back, the time between them would be paid for twice. What is further back is a clock that
	// was set.
	skewMax = time.Second
)

// Buckets is a token bucket for each key, in bounded memory. It is safe for concurrent use.
type Buckets[K comparable] struct {
	perSecond int64
	burst     int
	debtMax   int64         // of an empty bucket
	refill    time.Duration // from empty to full

	start         time.Time
	seed          maphash.Seed
	shards        []shard
	generationMax int // keys
}

// shard holds the buckets of some of the keys, by the hashes of those.
type shard struct {
	mu         sync.Mutex
	young, old map[uint64]bucket
	born       time.Duration // when young began, since start
}

// bucket is what is known of one.
type bucket struct {
	debt int64         // what it lacks, in units of 1/cost of a token
	at   time.Duration // when it lacked that, since start
}

// NewBuckets returns full buckets of burst tokens, into which perSecond of them flow; burst 0 is one second's worth. It
// holds keysMax keys at most, and surely the keysMax/2 used last (a little fewer where there are many, by how evenly
// they fall). It panics where perSecond is not 1 to RateMax, burst not 0 to RateMax, or keysMax below 2.
func NewBuckets[K comparable](perSecond, burst, keysMax int) *Buckets[K] {
	if perSecond < 1 || perSecond > RateMax || burst < 0 || burst > RateMax || keysMax < keysMaxMin {
		panic(fmt.Sprintf("limit: no such buckets: %d a second, burst %d, %d keys", perSecond, burst, keysMax))
	}
	if burst == 0 {
		burst = perSecond
	}
	shards := 1
	for shards < shardsMax && keysMax/shards >= 2*shardKeysMin {
		shards *= 2
	}
	b := &Buckets[K]{
		perSecond: int64(perSecond), burst: burst, debtMax: int64(burst) * cost,
		start: time.Now(), seed: maphash.MakeSeed(),
		shards: make([]shard, shards), generationMax: keysMax / shards / 2,
	}
	b.refill = b.toPay(b.debtMax)
	return b
}

// Decision is what a request is told.
type Decision struct {
	OK         bool
	Limit      int           // tokens of a full bucket
	Remaining  int           // tokens that are left
	RetryAfter time.Duration // until a token is there for the request; 0 where one was
	Next       time.Duration // until there is one more than Remaining
	Reset      time.Duration // until the bucket is full
	Window     time.Duration // from an empty bucket to a full one
}

// Take takes a token for a request of the key; now is the time at which it came. A refused request costs nothing.
//
// Setting the clock of the machine changes nothing, since time.Now also reads a clock that only runs. Where that is not
// so, a bucket goes on from the new time with what it lacked.
func (b *Buckets[K]) Take(key K, now time.Time) Decision {
	hash := maphash.Comparable(b.seed, key)
	at := now.Sub(b.start)
	s := &b.shards[hash%uint64(len(b.shards))]
	s.mu.Lock()
	defer s.mu.Unlock()
	b.age(s, at)
	k, known := s.young[hash]
	if !known {
		k, known = s.old[hash]
	}
	if !known {
		k.at = at
	}
	k = b.paid(k, at)
	ok := k.debt+cost <= b.debtMax
	if ok {
		k.debt += cost
	}
	s.young[hash] = k
	return b.decision(ok, k, at)
}

// age begins another generation when it is time. The old one is left to the garbage collector: to empty it would take
// as long as it is large.
func (b *Buckets[K]) age(s *shard, now time.Duration) {
	if now < s.born-skewMax {
		s.born = now // the clock was set back
	}
	if s.young == nil || now-s.born >= b.refill || len(s.young) >= b.generationMax {
		s.young, s.old, s.born = make(map[uint64]bucket), s.young, now
	}
}

// paid returns the bucket as it is now.
func (b *Buckets[K]) paid(k bucket, now time.Duration) bucket {
	elapsed := now - k.at
	switch {
	case elapsed >= b.refill:
		return bucket{at: now}
	case elapsed >= 0:
		return bucket{debt: max(0, k.debt-int64(elapsed)*b.perSecond), at: now}
	case elapsed >= -skewMax:
		return k
	}
	return bucket{debt: k.debt, at: now}
}

func (b *Buckets[K]) decision(ok bool, k bucket, now time.Duration) Decision {
	skew := k.at - now // nothing is paid off before k.at
	remaining := (b.debtMax - k.debt) / cost
	d := Decision{
		OK: ok, Limit: b.burst, Remaining: int(remaining),
		Next:   skew + b.toPay(k.debt-(b.debtMax-(remaining+1)*cost)),
		Reset:  skew + b.toPay(k.debt),
		Window: b.refill,
	}
	if !ok {
		d.RetryAfter = d.Next
	}
	return d
}

// toPay returns how long it takes to pay a debt off: the first nanosecond at which nothing is left.
func (b *Buckets[K]) toPay(debt int64) time.Duration {
	return time.Duration((debt + b.perSecond - 1) / b.perSecond)
}

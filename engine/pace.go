package engine

import (
	"sync"
	"time"
)

const (
	paceProducts = 4096                   // products a partition that are watched at a time
	paceSpan     = time.Second            // of selling by which the pace is judged
	paceLeast    = 20 * time.Millisecond  // less than that says nothing
	paceAhead    = 500 * time.Millisecond // a share that would be empty by then wants more
	paceEvery    = 100 * time.Millisecond // between calls of low for a product
)

// pace watches how fast the shares of a partition run down, so that units are lent to them before they are empty: the low-water
// mark of a share is what it sells in half a second.
type pace struct {
	mu     sync.Mutex
	levels map[int64]level
	low    func(product int64) // told of each share that runs low
}

// level is what a share held at a time from which its pace is counted.
type level struct {
	since time.Time
	units int64
	told  time.Time
}

// note takes what is left of a share after a call that sold of it or tried to.
func (p *pace) note(product, left int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l, known := p.levels[product]
	if !known && len(p.levels) >= paceProducts {
		clear(p.levels) // whatever sells comes again with its next call
	}
	low := left == 0 || l.low(left, now)
	if !known || left > l.units || now.Sub(l.since) > paceSpan {
		l.since, l.units = now, left
	}
	if low && now.Sub(l.told) >= paceEvery {
		l.told = now
		p.low(product)
	}
	p.levels[product] = l
}

// low reports whether a share will be empty soon if it goes on to sell as it did since the level.
func (l level) low(left int64, now time.Time) bool {
	span, sold := now.Sub(l.since), l.units-left
	if span < paceLeast || span > paceSpan || sold <= 0 {
		return false
	}
	return float64(left)*float64(span) < float64(sold)*float64(paceAhead)
}

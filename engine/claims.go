package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// What there is of a product is divided among the orders that wait for it, in all partitions and processes, the earlier first. So
// partitions do not take the last units from each other for ever; and as all products go by the same order, the earliest
// of the orders that wait is to have all its lines.

// claim is what an order waits for.
type claim struct {
	ticket    int64 // when it came, in us of its process' clock
	process   string
	partition int
	units     int64
}

const (
	claimsTold   = 1024             // of a process' orders for a product: the earliest
	claimsLive   = 3 * time.Second  // what a process told is believed for so long: an order waits no longer
	claimsOver   = 1024             // products of which they are yet to be taken back; more are left to claimsLive
	claimsForget = 30 * time.Second // and taken away after that: the process has died
)

// claims returns how many of a product's units each partition is to have. Whoever wants more than there is gets none.
func (e *Engine) claims(ctx context.Context, product int64, view stockView) ([]int64, error) {
	own := e.waiting(product)
	all, err := e.exchange(ctx, product, own)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b claim) int {
		if a.ticket != b.ticket {
			return sign(a.ticket - b.ticket)
		}
		return strings.Compare(a.process, b.process)
	})
	claimed, left := make([]int64, len(view.units)), view.total
	for _, c := range all {
		if c.units <= left {
			left -= c.units
			claimed[c.partition] += c.units
		}
	}
	return claimed, nil
}

// waiting are the earliest claims of this process.
func (e *Engine) waiting(product int64) []claim {
	s := &e.supplies
	var all []claim
	s.mu.Lock()
	for n := range e.partitions {
		if one := s.under[shareKey{product, n}]; one != nil {
			for ticket, units := range one.wanted {
				all = append(all, claim{ticket, e.name, n, units})
			}
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b claim) int { return sign(a.ticket - b.ticket) })
	return all[:min(len(all), claimsTold)]
}

// exchange tells the other processes what this one waits for, and returns what all wait for.
func (e *Engine) exchange(ctx context.Context, product int64, own []claim) ([]claim, error) {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	key, now := e.keys.Wanted(e.keys.Home(product), product), time.Now()
	var told map[string]string
	err := e.repeat(ctx, func() (err error) {
		if err = e.redis.HSet(ctx, key, e.name, encodeClaims(own, now)).Err(); err == nil {
			told, err = e.redis.HGetAll(ctx, key).Result()
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%w: telling what orders wait for: %v", ErrUnavailable, err) //nolint:errorlint // for the log
	}
	if len(e.waiting(product)) == 0 { // all have left meanwhile, and nobody comes after this to take it back
		if err := e.withdraw(ctx, product); err != nil {
			return nil, err
		}
	}
	all := own
	for process, text := range told {
		if process == e.name {
			continue
		}
		claims, at, err := e.decodeClaims(process, text)
		switch age := now.Sub(at); {
		case err != nil || age > claimsForget:
			e.redis.HDel(ctx, key, process)
		case age <= claimsLive:
			all = append(all, claims...)
		}
	}
	return all, nil
}

// takeBack withdraws the claims that are over.
func (e *Engine) takeBack(ctx context.Context) error {
	for product, more := e.supplies.nextOver(); more; product, more = e.supplies.nextOver() {
		if err := e.withdraw(ctx, product); err != nil {
			return err
		}
	}
	return nil
}

func (s *supplies) nextOver() (product int64, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for product = range s.over {
		delete(s.over, product)
		return product, true
	}
	return 0, false
}

// withdraw takes back what this process told of a product, once nobody waits for it here.
func (e *Engine) withdraw(ctx context.Context, product int64) error {
	if len(e.waiting(product)) > 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	if err := e.redis.HDel(ctx, e.keys.Wanted(e.keys.Home(product), product), e.name).Err(); err != nil {
		return fmt.Errorf("%w: taking back what orders wait for: %v", ErrUnavailable, err) //nolint:errorlint // for the log
	}
	return nil
}

// encodeClaims writes a time in us, then ticket, partition and units of each claim.
func encodeClaims(claims []claim, at time.Time) []byte {
	b := appendInt(nil, at.UnixMicro())
	for _, c := range claims {
		b = appendInt(appendInt(appendInt(b, c.ticket), int64(c.partition)), c.units)
	}
	return b
}

func (e *Engine) decodeClaims(process, text string) (claims []claim, at time.Time, err error) {
	d := &decoder{b: []byte(text)}
	at = time.UnixMicro(d.int())
	for len(d.b) > 0 && d.err == nil && len(claims) < claimsTold {
		c := claim{ticket: d.int(), process: process, partition: int(d.int()), units: d.int()}
		if c.partition < 0 || c.partition >= len(e.partitions) || c.units < 1 {
			return nil, at, fmt.Errorf("%w: a claim of %+v", ErrCorrupt, c)
		}
		claims = append(claims, c)
	}
	return claims, at, d.err
}

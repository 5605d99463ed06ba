package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	supplyWait  = 2 * time.Second       // for units that lie in other partitions
	supplyPause = 10 * time.Millisecond // before looking again where nothing could be moved
	supplyLines = 8                     // of an order, for which units are fetched at a time

	lateKept = 10 * time.Second // who waited in vain and asks again within that is as early as he was
	lateMax  = 4096             // of them

	// How long units stay in the share into which they came for a buyer: those who wait for the same in another process must
	// not take them away before he has bought, which he does once the units of his other lines have come too.
	supplyStay = 250 * time.Millisecond
)

// supply goes on with a sale that found a share of its partition too small: err says so, and anything else it returns as it is.
// One share proves nothing, so the sale is made again with what comes from other partitions, until it succeeds, a product
// is proven to be short everywhere, or supplyWait has passed: then it is ErrElsewhere, not done.
func (e *Engine) supply(ctx context.Context, p *partition, by asker, lines []Line, err error, sell func() error) error {
	short := shortOf(err)
	if short == nil || len(e.partitions) == 1 {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, supplyWait)
	defer cancel()
	w := e.supplies.wait(p.number, by, lines)
	err = e.waitAndSell(waiting, w, short, sell)
	end := waitEndOf(err)
	if end == waitLate {
		e.supplies.keep(w, by)
	}
	e.metrics.waited[end].Inc()
	return err
}

func (e *Engine) waitAndSell(waiting context.Context, w *waiter, short *Refusal, sell func() error) (err error) {
	defer e.leave(w)
	for short != nil {
		if err := e.fetch(waiting, w); err != nil {
			if waiting.Err() != nil && shortOf(err) == nil {
				return &Refusal{Reason: ErrElsewhere, ProductID: short.ProductID}
			}
			return err
		}
		err = sell()
		short = shortOf(err)
	}
	return err
}

func waitEndOf(err error) waitEnd {
	switch {
	case err == nil:
		return waitSupplied
	case shortOf(err) != nil:
		return waitShort
	case errors.Is(err, ErrElsewhere):
		return waitLate
	}
	return waitOther
}

// shortOf returns the refusal for lack of stock, if that is what an error is.
func shortOf(err error) *Refusal {
	var r *Refusal
	if errors.As(err, &r) && errors.Is(r, ErrOutOfStock) {
		return r
	}
	return nil
}

// fetch brings units into a partition's shares for all lines of an order, each together with others who wait for the same:
// nil says that the order is worth another try. As soon as a product is proven to be short everywhere it is the refusal.
func (e *Engine) fetch(ctx context.Context, w *waiter) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, len(w.lines))
	var next atomic.Int64
	for range min(supplyLines, len(w.lines)) {
		go func() {
			for i := next.Add(1) - 1; i < int64(len(w.lines)); i = next.Add(1) - 1 {
				ends <- e.fetchLine(ctx, w, int(i))
			}
		}()
	}
	var errs []error
	for range w.lines {
		err := <-ends
		if shortOf(err) != nil {
			return err
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (e *Engine) fetchLine(ctx context.Context, w *waiter, i int) error {
	line := w.lines[i]
	found, err := w.at[i].rounds.Do(ctx, supplyWait, func(ctx context.Context) (stockView, error) {
		return e.bring(ctx, shareKey{line.ProductID, w.partition})
	})
	if err == nil && found.proven && found.total < line.Quantity {
		err = &Refusal{Reason: ErrOutOfStock, ProductID: line.ProductID, Left: found.total}
	}
	return err
}

// supplies are the shares for which this process fetches units.
type supplies struct {
	mu    sync.Mutex
	last  int64 // ticket: when the order came, in us, and each another
	under map[shareKey]*supplying
	over  map[int64]struct{} // products of claims to take back
	late  map[asker]lateTicket
	swept time.Time // late, of what is over
}

// asker is a request that is made again with the same key.
type asker struct {
	key  string
	what Fingerprint
}

// lateTicket is the ticket of one that waited in vain. Where units take longer than supplyWait to come, nobody would ever be
// the earliest for long enough if all who ask again began anew.
type lateTicket struct {
	ticket int64
	until  time.Time
}

type shareKey struct {
	product   int64
	partition int
}

// supplying is what those have in common who wait for units in one share.
type supplying struct {
	rounds Shared[stockView]
	wanted map[int64]int64 // units by ticket
}

// waiter is an order that waits for units.
type waiter struct {
	ticket    int64
	partition int
	lines     []Line
	at        []*supplying // of each line
}

func (s *supplies) wait(partition int, by asker, lines []Line) *waiter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.under == nil {
		s.under, s.over, s.late = map[shareKey]*supplying{}, map[int64]struct{}{}, map[asker]lateTicket{}
	}
	now := time.Now()
	s.last = max(s.last+1, now.UnixMicro())
	w := &waiter{ticket: s.last, partition: partition, lines: lines, at: make([]*supplying, len(lines))}
	if earlier, found := s.late[by]; found {
		delete(s.late, by) // one of those who ask at once has it
		if now.Before(earlier.until) {
			w.ticket = earlier.ticket
		}
	}
	for i, line := range lines {
		key := shareKey{line.ProductID, partition}
		one := s.under[key]
		if one == nil {
			one = &supplying{wanted: map[int64]int64{}}
			s.under[key] = one
		}
		one.wanted[w.ticket] = line.Quantity
		w.at[i] = one
	}
	return w
}

// keep has the next wait of the same request be as early as this one.
func (s *supplies) keep(w *waiter, by asker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if len(s.late) >= lateMax && now.Sub(s.swept) > lateKept/10 { // a crowd that is late may not look through all of them each time
		s.swept = now
		maps.DeleteFunc(s.late, func(_ asker, l lateTicket) bool { return now.After(l.until) })
	}
	if len(s.late) < lateMax {
		s.late[by] = lateTicket{ticket: w.ticket, until: now.Add(lateKept)}
	}
}

// leave ends a wait.
func (e *Engine) leave(w *waiter) {
	s := &e.supplies
	s.mu.Lock()
	over := false
	for i, line := range w.lines {
		if delete(w.at[i].wanted, w.ticket); len(w.at[i].wanted) == 0 {
			delete(s.under, shareKey{line.ProductID, w.partition})
			if over = true; len(s.over) < claimsOver {
				s.over[line.ProductID] = struct{}{}
			}
		}
	}
	s.mu.Unlock()
	if over {
		e.aside(e.takeBack)
	}
}

// bring looks at a product everywhere and moves into a share what the orders that wait there may have. It takes nothing away that
// others may have where it is.
func (e *Engine) bring(ctx context.Context, to shareKey) (stockView, error) {
	view, err := e.lookAround(ctx, to.product)
	if err != nil {
		return view, err
	}
	claimed, err := e.claims(ctx, to.product, view)
	if err != nil {
		return view, err
	}
	short := claimed[to.partition] - view.units[to.partition]
	spare := slices.Clone(view.units)
	for n := range spare {
		spare[n] = max(spare[n]-claimed[n], 0)
	}
	switch {
	case view.total == 0: // all are refused, if it is proven
	case short > 0:
		if !e.move(ctx, to, short, spare) {
			pause(ctx, supplyPause)
		}
	case claimed[to.partition] == 0: // it is the turn of others
		pause(ctx, supplyPause)
	}
	return view, nil
}

// move brings units into a share, as far as others have some to spare, and reports whether any came.
func (e *Engine) move(ctx context.Context, to shareKey, units int64, spare []int64) bool {
	home := e.keys.Home(to.product)
	if to.partition == home {
		return e.recall(ctx, to, units, spare, supplyStay)
	}
	at := spare[home]
	if at < units {
		e.recall(ctx, to, units-at, spare, 0)
	}
	// More than is asked for, so that the next buyers need not wait.
	most := max(units, at/int64(len(e.partitions)))
	return e.send(ctx, to.product, home, to.partition, most, supplyStay) == nil
}

// recall brings units home from the partitions that have most to spare, but for the one that they are for, and reports whether
// any came. From each it takes half of what it has, or more where that is not enough.
func (e *Engine) recall(ctx context.Context, to shareKey, units int64, spare []int64, stay time.Duration) bool {
	home := e.keys.Home(to.product)
	var from []int
	for n, has := range spare {
		if n != home && n != to.partition && has > 0 {
			from = append(from, n)
		}
	}
	slices.SortFunc(from, func(a, b int) int { return sign(spare[b] - spare[a]) })
	var group errgroup.Group
	group.SetLimit(partitionsAtOnce)
	came := make([]bool, len(from))
	for i, n := range from {
		if units <= 0 {
			break
		}
		most := min(spare[n], max(units, (spare[n]+1)/2))
		units -= most
		group.Go(func() error {
			came[i] = e.send(ctx, to.product, n, home, most, stay) == nil
			return nil
		})
	}
	_ = group.Wait()
	return slices.Contains(came, true)
}

// send moves up to most units from a share into another and returns when some have come: where an earlier transfer between the two
// is still open, it brings that one to its end instead.
func (e *Engine) send(ctx context.Context, product int64, from, to int, most int64, stay time.Duration) error {
	t, earlier, err := e.lend(ctx, product, from, to, most)
	if err != nil {
		return err
	}
	if earlier {
		return e.finish(ctx, t)
	}
	credited, err := e.arrive(ctx, t, stay)
	if err != nil {
		return err
	}
	e.aside(func(ctx context.Context) error { return e.settle(ctx, t, credited) })
	return nil
}

// replenish lends to a share that runs low, ahead of its next buyers: a part of what its product's home has.
func (p *partition) replenish(product int64) {
	e := p.engine
	home := e.keys.Home(product)
	if p.number == home {
		return
	}
	e.aside(func(ctx context.Context) error {
		stocks, err := e.get(ctx, e.partitions[home], e.keys.Stock(home, product))
		if err != nil {
			return err
		}
		at, err := units(product, stocks[0])
		if err != nil {
			return err
		}
		// The last units stay where all can reach them.
		each := at / int64(len(e.partitions))
		if each == 0 {
			return nil
		}
		return e.send(ctx, product, home, p.number, each, 0)
	})
}

// spread lends the shares of the other partitions what they would have if a product had come with these units.
func (e *Engine) spread(product, units int64) {
	home, each := e.keys.Home(product), units/int64(len(e.partitions))
	if each < 1 {
		return
	}
	for n := range e.partitions {
		if n != home {
			e.aside(func(ctx context.Context) error { return e.send(ctx, product, home, n, each, 0) })
		}
	}
}

// InitialShare is the part of a new product's units with which a partition starts: all have the same, and the home what is
// left over.
func (e *Engine) InitialShare(product int64, partition int, units int64) int64 {
	parts := int64(len(e.partitions))
	if partition == e.keys.Home(product) {
		return units - units/parts*(parts-1)
	}
	return units / parts
}

// pause waits, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

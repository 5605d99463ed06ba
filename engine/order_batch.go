package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Placed is how one of several orders ended: what Place returns.
type Placed struct {
	Order    Order
	Replayed bool
	Err      error
}

// PlaceEach places several orders that are paid at once, each of them as Place does, and returns how each ended, in the
// order of the requests. They wait in the queues together, and so become few calls. Requests of one user under one key take
// effect in their order; the others as if they had been made at the same time. When ctx ends first, what was not begun is
// not done, and the outcome of the rest is unknown.
func (e *Engine) PlaceEach(ctx context.Context, requests []PlaceRequest) []Placed {
	s := &several{engine: e, ops: make([]placeOp, len(requests)), ends: make([]Placed, len(requests)), next: make([]int, len(requests))}
	for round := s.first(requests); len(round) > 0; round = s.following(round) {
		s.place(ctx, round)
	}
	return s.ends
}

// several are orders that are placed together.
//
// Two workers run calls of a partition at the same time, so that of two operations either may be the first. Where they have
// one key, that decides which is the replay or the misuse of the other: the second is held back until the first has ended.
type several struct {
	engine *Engine
	ops    []placeOp
	ends   []Placed
	next   []int // by request: the next one of its user and key; 0 for none
}

// first checks the requests, and returns those that nothing holds back.
func (s *several) first(requests []PlaceRequest) (round []int) {
	type key struct {
		user int64
		key  string
	}
	last := make(map[key]int, len(requests))
	round = make([]int, 0, len(requests))
	for i, r := range requests {
		op, err := s.engine.placing(r)
		if err == nil && r.Later {
			err = invalid("orders that are placed together are paid at once")
		}
		if err != nil {
			s.ends[i].Err = err
			continue
		}
		s.ops[i] = op
		k := key{r.UserID, r.Key}
		if before, known := last[k]; known {
			s.next[before] = i
		} else {
			round = append(round, i)
		}
		last[k] = i
	}
	return round
}

// place queues the operations of a round and waits for their ends.
func (s *several) place(ctx context.Context, round []int) {
	queued := make([]*operation, len(round))
	for i, n := range round {
		op := &s.ops[n]
		if ctx.Err() != nil {
			break // the round before has taken all the time
		}
		queued[i] = s.engine.partitionOf(op.user).queue.start(placeKind, op, len(op.lines))
	}
	var used, short []int
	for i, n := range round {
		op, end := &s.ops[n], &s.ends[n]
		if queued[i] == nil {
			end.Err = fmt.Errorf("%w: no room in the queue, or no time", ErrOverloaded)
			continue
		}
		switch err := queued[i].wait(ctx); {
		case err != nil:
			end.Err = err
			if shortOf(err) != nil {
				short = append(short, n)
			}
		case op.replayed != 0:
			used = append(used, n)
		default:
			end.Order = op.result()
		}
	}
	used = append(used, s.supply(ctx, short)...)
	s.replay(ctx, used)
}

// supplyOrders is how many orders of a batch wait for units from other partitions at a time.
const supplyOrders = 64

// supply goes on with orders whose partitions lack units, and returns those that turned out to be replays.
func (s *several) supply(ctx context.Context, short []int) (used []int) {
	var group errgroup.Group
	group.SetLimit(supplyOrders)
	for _, n := range short {
		group.Go(func() error {
			op, end := &s.ops[n], &s.ends[n]
			p := s.engine.partitionOf(op.user)
			end.Err = s.engine.supply(ctx, p, op.asker(), op.lines, end.Err, func() error {
				return p.queue.do(ctx, placeKind, op, len(op.lines))
			})
			return nil
		})
	}
	_ = group.Wait()
	for _, n := range short {
		switch op, end := &s.ops[n], &s.ends[n]; {
		case end.Err != nil:
		case op.replayed != 0:
			used = append(used, n)
		default:
			end.Order = op.result()
		}
	}
	return used
}

// replayReaders is how many orders of used keys a batch reads at a time. Those that Redis has let go come from the books,
// whose connections others need too.
const replayReaders = 16

// replay reads the orders that requests placed earlier.
func (s *several) replay(ctx context.Context, used []int) {
	var readers sync.WaitGroup
	for r := range min(replayReaders, len(used)) {
		readers.Go(func() {
			for i := r; i < len(used); i += replayReaders {
				op, end := &s.ops[used[i]], &s.ends[used[i]]
				end.Order, end.Replayed, end.Err = s.engine.replayed(ctx, s.engine.partitionOf(op.user), op.replayed, Success)
			}
		})
	}
	readers.Wait()
}

// following are the requests that those of a round have held back.
func (s *several) following(round []int) (after []int) {
	for _, n := range round {
		err, next := s.ends[n].Err, s.next[n]
		switch {
		case next == 0:
		case err == nil, errors.Is(err, ErrKeyReused):
			// The key is used, for good: what follows changes nothing, whichever is the first.
			for ; next != 0; next, s.next[next] = s.next[next], 0 {
				after = append(after, next)
			}
		case errors.Is(err, ErrOverloaded), errors.Is(err, ErrUnavailable), errors.Is(err, ErrUnknown):
			// Whatever became of the first, asking for the next now could take as long, a thousand times.
			for ; next != 0; next = s.next[next] {
				s.ends[next].Err = err
			}
		default: // it changed nothing: the next is judged anew
			after = append(after, next)
		}
	}
	return after
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"stampede/lua"
)

// Window is how far back the best sellers are counted.
const Window = 72 * time.Hour

// TopMax is the longest list of best sellers.
const TopMax = 100

// Seller is a product with the units sold in the window.
type Seller struct {
	Product
	Sold int64
}

// Top returns the best sellers of the window, at most limit, and the time at which it ends. More units come first, then
// the lower product id. The window is exact to the minute: it ends with the current one.
func (e *Engine) Top(ctx context.Context, limit int) (time.Time, []Seller, error) {
	if limit < 1 || limit > TopMax {
		return time.Time{}, nil, invalid("limit must be 1 to %d", TopMax)
	}
	reading, longest := &e.topFive, topFive
	if limit > topFive {
		reading, longest = &e.top, TopMax
	}
	r, err := reading.Do(ctx, e.cfg.OperationTimeout, func(ctx context.Context) (topReading, error) { return e.readTop(ctx, longest) })
	if err != nil {
		return time.Time{}, nil, nothingDone(err) // rolling a window on is no change that anybody asked for
	}
	return r.asOf, r.sellers[:min(limit, len(r.sellers))], nil
}

// topFive is what a shop's first page shows: up to so many are read by themselves, which with several partitions is much less work.
const topFive = 5

// topPause lies between two readings for a crowd: without it one that keeps asking takes a third of the time of one Redis.
const topPause = 5 * time.Millisecond

// topReading is shared by all who asked before it began: it has the longest list that any of them may want.
type topReading struct {
	asOf    time.Time
	sellers []Seller
}

func (e *Engine) readTop(ctx context.Context, longest int) (topReading, error) {
	asOf, sold, err := e.bestSellers(ctx, longest)
	if err != nil {
		return topReading{}, err
	}
	ids := make([]int64, len(sold))
	for i, s := range sold {
		ids[i] = s.ID
	}
	products, err := e.allProducts(ctx, ids)
	if err != nil {
		return topReading{}, err
	}
	for i := range sold {
		sold[i].Product = products[i]
	}
	return topReading{asOf: asOf, sellers: sold}, nil
}

const (
	windowMinutes = int64(Window / time.Minute)
	rollMinutes   = 256  // hashes a call looks at
	rollTries     = 4096 // calls: three days of minutes that each hold a large catalogue
)

// errToRoll says that minutes which have left the window still count.
var errToRoll = errors.New("minutes wait to be rolled out")

// topHead reads the n best sellers of a partition at a time by its clock, after minutes that have left the window were taken
// out.
func (e *Engine) topHead(ctx context.Context, p *partition, n int) (time.Time, []Seller, error) {
	h, err := e.readHead(ctx, p, n)
	for tries := 0; errors.Is(err, errToRoll) && tries < cancelTries; tries++ {
		if err := e.roll(ctx, p, h.first); err != nil {
			return h.at, nil, err
		}
		h, err = e.readHead(ctx, p, n)
	}
	return h.at, h.best, err
}

// head are the best sellers of a partition.
type head struct {
	at    time.Time // by its clock
	first int64     // minute that still counts
	best  []Seller
}

// rollPartition takes minutes that have left the window out of a partition's totals.
func (e *Engine) rollPartition(ctx context.Context, p *partition) error {
	if !p.door.state.Load().open {
		return nil
	}
	h, err := e.readHead(ctx, p, 1)
	if errors.Is(err, errToRoll) {
		err = e.roll(ctx, p, h.first)
	}
	return err
}

// readHead returns errToRoll, and the first minute that still counts, where minutes wait.
func (e *Engine) readHead(ctx context.Context, p *partition, n int) (h head, err error) {
	reply, err := e.upkeep(ctx, lua.Top, []string{e.keys.Meta(p.number), e.keys.Top(p.number)}, e.clockOffset.Load(), n)
	if err != nil {
		return h, err
	}
	fields, _ := reply.([]any)
	if len(fields) < 2 || len(fields)%2 != 0 {
		return h, fmt.Errorf("%w: reply of top.lua", ErrCorrupt)
	}
	now, _ := fields[0].(int64)
	h.at = time.UnixMilli(now).UTC()
	text, _ := fields[1].(string)
	if h.first, err = strconv.ParseInt(text, 10, 64); err != nil {
		h.first = firstMinute(h.at) // a shop older than the top five
	}
	if h.first <= minuteOf(h.at)-windowMinutes {
		return h, errToRoll
	}
	h.best = make([]Seller, 0, len(fields)/2-1) // also if nothing was sold: a list without entries
	for i := 2; i < len(fields); i += 2 {
		member, _ := fields[i].(string)
		score, _ := fields[i+1].(string)
		id, err1 := strconv.ParseInt(member, 10, 64)
		units, err2 := strconv.ParseInt(score, 10, 64)
		if err := errors.Join(err1, err2); err != nil {
			return h, fmt.Errorf("%w: best sellers of partition %d: %v", ErrCorrupt, p.number, err) //nolint:errorlint // for the log
		}
		h.best = append(h.best, Seller{Product: Product{ID: id}, Sold: -units})
	}
	return h, nil
}

// roll takes minutes out of the totals, from the first that still counts to the first that should.
func (e *Engine) roll(ctx context.Context, p *partition, first int64) error {
	next := rollOp{first: first, cursor: "0", minutes: rollMinutes}
	for range rollTries {
		op := next
		direct := newDirect(rollKind, &op)
		p.sendOpen(&call{}, rollKind, []*operation{direct})
		if err := <-direct.done; err != nil {
			return err
		}
		if op.rolled >= op.horizon {
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		next.first, next.cursor = op.rolled, op.cursor
	}
	return fmt.Errorf("%w: too many minutes wait to be rolled out", ErrUnavailable)
}

// firstMinute is where counting begins in a Redis that has none yet: far enough back for sales of a journal that is
// replayed, and for clocks that differ.
func firstMinute(now time.Time) int64 { return minuteOf(now) - windowMinutes - 2*foldSlackMinutes }

func minuteOf(t time.Time) int64 { return t.Unix() / 60 }

// topMember is how a product stands in the sorted set: sets order equal scores by bytes, so ids have 16 digits. The
// score is minus the units sold: then more units come first, and the lower product id among equals.
func topMember(product int64) string { return fmt.Sprintf("%016d", product) }

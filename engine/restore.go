package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// A call of lua/load.lua holds up Redis for some milliseconds: it may be large, since each costs an fsync.
const (
	loadKeysMax  = 4000
	loadBytesMax = 1 << 20
)

// Load is a part of a partition's state as the books have it, on its way into Redis.
type Load struct {
	partition int
	keys      *Keys

	plain, ending, many                   []string // keys
	plainValues, endingValues, manyValues []string
	ends                                  []int64 // of ending, in ms
	counts                                []int64 // of manyValues; below 0 for a sorted set
	bytes                                 int
}

// NewLoad returns an empty one.
func (e *Engine) NewLoad(partition int) *Load { return &Load{partition: partition, keys: e.keys} }

// Partition is where it belongs.
func (l *Load) Partition() int { return l.partition }

// Keys counts what it sets: keys, and fields and members of those that hold many.
func (l *Load) Keys() int64 { return int64(len(l.plain) + len(l.ending) + len(l.manyValues)/2) }

// Full reports whether it is as large as a call should be.
func (l *Load) Full() bool { return l.Keys() >= loadKeysMax || l.bytes >= loadBytesMax }

func (l *Load) set(key, value string) {
	l.plain, l.plainValues = append(l.plain, key), append(l.plainValues, value)
	l.bytes += len(key) + len(value)
}

// add adds values to a hash or a sorted set, in pairs.
func (l *Load) add(key string, sorted bool, values ...string) {
	count := int64(len(values))
	if sorted {
		count = -count
	}
	if last := len(l.many) - 1; last >= 0 && l.many[last] == key {
		l.counts[last] += count
	} else {
		l.many, l.counts = append(l.many, key), append(l.counts, count)
	}
	l.manyValues = append(l.manyValues, values...)
	for _, v := range values {
		l.bytes += len(v)
	}
}

// Balance is what a user has, in minor units.
func (l *Load) Balance(user, amount int64) {
	l.set(l.keys.Balance(l.partition, user), strconv.FormatInt(amount, 10))
}

// Product is a product's catalogue record with the partition's share of its stock, in units.
func (l *Load) Product(p Product, share int64) {
	l.set(l.keys.Catalogue(l.partition, p.ID), encodeCatalogue(p))
	l.set(l.keys.Stock(l.partition, p.ID), strconv.FormatInt(share, 10))
}

// Transfers is a product's record of transfers, with what left at which time.
func (l *Load) Transfers(product int64, t *Transfers, left []time.Time) {
	l.set(l.keys.Transfers(l.partition, product), string(t.append(appendInt(msgp.AppendArrayHeader(nil, 3), t.LeasedMS))))
	for i, out := range t.Out {
		l.add(l.keys.Moving(l.partition), true, strconv.FormatInt(left[i].UnixMilli(), 10), Moving(product, out.Peer))
	}
}

// Listed is the highest product id.
func (l *Load) Listed(product int64) {
	l.set(l.keys.Listed(l.partition), strconv.FormatInt(product, 10))
}

// Cart is what a user's cart holds, which is not empty.
func (l *Load) Cart(user int64, lines []Line) {
	l.set(l.keys.Cart(l.partition, user), encodeCart(lines))
}

// Unpaid is an order that holds its stock.
func (l *Load) Unpaid(o *Order) {
	l.set(l.keys.Order(l.partition, o.ID), string(encodeOrder(o)))
	l.add(l.keys.Holds(l.partition), true, strconv.FormatInt(o.ExpiresAt.UnixMilli(), 10), string(appendID(nil, o.ID)))
}

// Sold are the units of a product that were sold in a minute of Unix time.
type Sold struct{ Minute, Product, Units int64 }

// Minute are all units sold in a minute.
func (l *Load) Minute(minute int64, sold []Sold) {
	values := make([]string, 0, 2*len(sold))
	for _, s := range sold {
		values = append(values, strconv.FormatInt(s.Product, 10), strconv.FormatInt(s.Units, 10))
	}
	l.add(l.keys.Sold(l.partition, minute), false, values...)
}

// Total are the units of a product that were sold in all minutes loaded.
func (l *Load) Total(product, units int64) {
	l.add(l.keys.Top(l.partition), true, strconv.FormatInt(-units, 10), topMember(product))
}

// Record loads the idempotency record of an event of since or later, if it has one. One of an earlier layout ends by
// itself: its event stands in the journal of a partition that may have nothing to do with the load's, so that Lapse will
// not come to it.
func (e *Engine) Record(l *Load, ev *Event, since time.Time, earlier bool) {
	switch key, record := e.remembered(l.partition, ev, since); {
	case key == "":
	case earlier:
		l.ending, l.endingValues = append(l.ending, key), append(l.endingValues, record)
		l.ends = append(l.ends, ev.At.Add(e.cfg.IdempotencyTTL).UnixMilli())
		l.bytes += len(key) + len(record)
	default:
		l.set(key, record)
	}
}

// FirstMinute is the minute of Unix time from which units sold may count in a Redis that has none yet.
func (e *Engine) FirstMinute() int64 { return firstMinute(e.now()) }

// BeginRestore notes in an empty partition, claimed by the token, what the books say of it: their checkpoint with its
// cumulative bytes, and the time of the last event. It returns the minute of Unix time from which units sold are to be
// loaded. A restore of the same books that was cut short is taken up.
func (e *Engine) BeginRestore(ctx context.Context, partition int, token string, at Mark, bytes int64, last time.Time) (int64, error) {
	reply, err := e.upkeep(ctx, lua.Begin, []string{e.keys.Meta(partition)},
		token, at.Events, at.Epoch, at.Seq, bytes, minuteOf(last), e.FirstMinute())
	if err != nil {
		return 0, err
	}
	switch first, _ := reply.(int64); first {
	case 0:
		return 0, errRestoreLost
	case -1:
		return 0, ErrOtherBooks
	default:
		return first, nil
	}
}

// ErrOtherBooks is the error of a restore that finds the beginning of another one: of other books, or of these at another
// time.
var ErrOtherBooks = errors.New("a restore of this Redis was begun from other books and not finished")

var errRestoreLost = fmt.Errorf("%w: Redis changed during the restore", ErrUnavailable)

// EndRestore takes the mark of a restore that was begun from the deployment.
func (e *Engine) EndRestore(ctx context.Context) error {
	if err := e.redis.HDel(ctx, DeploymentKey, fieldRestoring).Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// SendLoad brings a load into Redis. It is safe to repeat.
func (e *Engine) SendLoad(ctx context.Context, token string, l *Load) error {
	head := msgp.AppendString(nil, token)
	head = appendInt(head, int64(len(l.plain)))
	head = appendInts(head, l.counts)
	head = appendInts(head, l.ends)
	keys := make([]string, 0, 1+len(l.plain)+len(l.ending)+len(l.many))
	keys = append(keys, e.keys.Meta(l.partition))
	args := make([]any, 0, 1+len(l.plainValues)+len(l.endingValues)+len(l.manyValues))
	args = append(args, string(head))
	for _, more := range [][]string{l.plain, l.ending, l.many} {
		keys = append(keys, more...)
	}
	for _, values := range [][]string{l.plainValues, l.endingValues, l.manyValues} {
		for _, v := range values {
			args = append(args, v)
		}
	}
	reply, err := e.upkeep(ctx, lua.Load, keys, args...)
	if err == nil && reply != int64(1) {
		err = errRestoreLost
	}
	return err
}

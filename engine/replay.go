package engine

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// Kinds of assignment in lua/replay.lua.
const (
	assignSet    = 1
	assignAdd    = 2
	assignDelete = 3
	assignRank   = 4
	assignUnrank = 5
	assignScore  = 6
	assignMoves  = 7
)

// assignments are keys and arguments of lua/replay.lua.
type assignments struct {
	keys []string
	args []any
}

func (a *assignments) add(key string, kind int64, write func(b []byte) []byte) {
	a.keys = append(a.keys, key)
	a.args = append(a.args, string(write(appendInt(nil, kind))))
}

func (a *assignments) set(key, value string) {
	a.add(key, assignSet, func(b []byte) []byte { return msgp.AppendString(b, value) })
}

func (a *assignments) delete(key string) {
	a.add(key, assignDelete, func(b []byte) []byte { return b })
}

// fold is the state of a partition after some journal entries, as far as they say it: final values, so that one call
// equals the replay of each event in order.
type fold struct {
	balances, stocks map[int64]int64
	orders           map[int64]*Order
	placed           map[int64]bool // orders whose first event is among these
	carts            map[int64][]Line
	sold             map[minuteProduct]int64
	moved            map[int64]*moves
	keys             *Keys
	partition        int
	assignments
}

// moves are the transfers of a product among the events: of each peer the last that left for it, and the last that came.
type moves struct {
	out map[int]Outgoing
	at  map[int]time.Time // of those
	in  map[int]Incoming
}

type minuteProduct struct{ minute, product int64 }

// foldEntries turns journal entries into the values Redis held after them, and returns the time of the latest event in ms.
// Orders that have ended stay out where letGo says so: Redis has no use for them any more.
func (e *Engine) foldEntries(partition int, entries []Entry, letGo bool) (set *assignments, latest int64, err error) {
	f := &fold{
		balances: map[int64]int64{}, stocks: map[int64]int64{}, orders: map[int64]*Order{}, placed: map[int64]bool{},
		carts: map[int64][]Line{},
		sold:  map[minuteProduct]int64{}, moved: map[int64]*moves{}, keys: e.keys, partition: partition,
	}
	now, since := e.now(), e.RememberedSince()
	for i := range entries {
		events, err := entries[i].Events()
		if errors.Is(err, ErrNewer) {
			return nil, 0, err
		}
		if err != nil { // in quarantine: what no program can read must not keep the shop shut for good
			e.cfg.Log.Error("replaying without events that cannot be read", "partition", partition, "error", err)
		}
		for j := range events {
			f.event(&events[j])
			latest = max(latest, events[j].At.UnixMilli())
			if key, record := e.remembered(partition, &events[j], since); key != "" {
				f.set(key, record)
			}
		}
	}
	f.values(letGo, minuteOf(now)-windowMinutes-foldSlackMinutes)
	return &f.assignments, latest, nil
}

func (f *fold) event(ev *Event) {
	switch ev.Kind {
	case Ordered:
		f.balances[ev.UserID] = ev.Balance
		f.order(ev)
		f.sell(&ev.Order, minuteOf(ev.At), 1)
	case Stepped:
		if ev.Balance != BalanceUntouched {
			f.balances[ev.UserID] = ev.Balance
		}
		f.order(ev)
		switch ev.Order.Status {
		case Success:
			f.sell(&ev.Order, minuteOf(ev.At), 1)
		case Refunded:
			if sold := minuteOf(ev.Order.PaidAt()); sold > minuteOf(ev.At)-windowMinutes {
				f.sell(&ev.Order, sold, -1)
			}
		}
	case Carted:
		f.carts[ev.UserID] = ev.Cart
	case Credited:
		f.balances[ev.UserID] = ev.Balance
	case Restocked:
		f.stocks[ev.ProductID] = ev.Stock
	case Moved:
		f.stocks[ev.ProductID] = ev.Stock
		f.move(ev)
	}
}

// move notes what a transfer leaves in the record of the partition. Whether it was settled no event tells: what is open
// too long is settled once more.
func (f *fold) move(ev *Event) {
	m := f.moved[ev.ProductID]
	if m == nil {
		m = &moves{out: map[int]Outgoing{}, at: map[int]time.Time{}, in: map[int]Incoming{}}
		f.moved[ev.ProductID] = m
	}
	if ev.Delta > 0 {
		m.in[ev.Peer] = Incoming{Peer: ev.Peer, ID: ev.Sent}
		return
	}
	m.out[ev.Peer], m.at[ev.Peer] = Outgoing{Peer: ev.Peer, ID: ev.Sent, Units: -ev.Delta}, ev.At
}

func (f *fold) order(ev *Event) {
	f.orders[ev.RefID] = &ev.Order
	if ev.Kind == Ordered || ev.Order.Status == Pending {
		f.placed[ev.RefID] = true
	}
	for i := range ev.StocksAfter {
		f.stocks[ev.Order.Items[i].ProductID] = ev.StocksAfter[i]
	}
}

func (f *fold) sell(o *Order, minute, sign int64) {
	for _, i := range o.Items {
		f.sold[minuteProduct{minute, i.ProductID}] += sign * i.Quantity
	}
}

// foldSlackMinutes is by how much the clocks of Redis and of a repair may differ: minutes that Redis has no use for
// are let in, and leave by themselves.
const foldSlackMinutes = 60

func (f *fold) values(letGo bool, left int64) {
	p := f.partition
	for id, balance := range f.balances {
		f.set(f.keys.Balance(p, id), strconv.FormatInt(balance, 10))
	}
	for id, units := range f.stocks {
		f.set(f.keys.Stock(p, id), strconv.FormatInt(units, 10))
	}
	for product, m := range f.moved {
		var t Transfers
		for peer, out := range m.out {
			t.Out = append(t.Out, out)
			member, at := Moving(product, peer), m.at[peer].UnixMilli()
			f.add(f.keys.Moving(p), assignRank, func(b []byte) []byte { return appendInt(msgp.AppendString(b, member), at) })
		}
		for _, in := range m.in {
			t.In = append(t.In, in)
		}
		f.add(f.keys.Transfers(p, product), assignMoves, t.append)
	}
	for user, lines := range f.carts {
		if len(lines) == 0 {
			f.delete(f.keys.Cart(p, user))
		} else {
			f.set(f.keys.Cart(p, user), encodeCart(lines))
		}
	}
	for id, o := range f.orders {
		member := appendIDString(nil, id)
		switch {
		case o.Status == Pending:
			f.add(f.keys.Holds(p), assignRank, func(b []byte) []byte { return appendInt(append(b, member...), o.ExpiresAt.UnixMilli()) })
		case !f.placed[id]: // it may be held in Redis
			f.add(f.keys.Holds(p), assignUnrank, func(b []byte) []byte { return append(b, member...) })
		}
		switch {
		case o.Status == Pending || !letGo:
			f.set(f.keys.Order(p, id), string(encodeOrder(o)))
		case !f.placed[id]:
			f.delete(f.keys.Order(p, id))
		}
	}
	for at, units := range f.sold {
		if at.minute <= left || units == 0 {
			continue
		}
		product := strconv.FormatInt(at.product, 10)
		f.add(f.keys.Sold(p, at.minute), assignAdd, func(b []byte) []byte { return appendInt(msgp.AppendString(b, product), units) })
		f.add(f.keys.Top(p), assignScore, func(b []byte) []byte { return appendInt(msgp.AppendString(b, topMember(at.product)), -units) })
	}
}

// Enrolled reports whether each of some users has an account in a partition.
func (e *Engine) Enrolled(ctx context.Context, partition int, users []int64) (bool, error) {
	keys := make([]string, len(users))
	for i, user := range users {
		keys[i] = e.keys.Balance(partition, user)
	}
	if len(keys) == 0 {
		return true, nil
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	var found int64
	err := e.repeat(ctx, func() (err error) {
		found, err = e.redis.Exists(ctx, keys...).Result()
		return err
	})
	if err != nil {
		return false, fmt.Errorf("%w: looking for accounts: %v", ErrUnavailable, err) //nolint:errorlint // for the log
	}
	return found == int64(len(keys)), nil
}

// EnrollBehind opens accounts behind a shut door; see Enroll.
func (e *Engine) EnrollBehind(partition int, epoch int64, users []int64) error {
	ops := make([]*operation, len(users))
	for i, user := range users {
		ops[i] = newDirect(enrollKind, &enrollOp{user: user})
	}
	return e.behind(partition, epoch, enrollKind, ops)
}

// Listing is a product with the units it starts with.
type Listing struct {
	Product
	InitialStock int64 // units
}

// ListBehind lists products in one partition behind a shut door; see List.
func (e *Engine) ListBehind(partition int, epoch int64, listings []Listing) error {
	ops := make([]*operation, len(listings))
	for i, l := range listings {
		op := &listOp{product: l.Product, initial: e.InitialShare(l.ID, partition, l.InitialStock)}
		ops[i] = newDirect(listKind, op)
	}
	return e.behind(partition, epoch, listKind, ops)
}

func newDirect(k *kind, body any) *operation {
	return &operation{kind: k, body: body, weight: 1, done: make(chan error, 1)}
}

func (e *Engine) behind(partition int, epoch int64, k *kind, ops []*operation) error {
	p, c := e.partitions[partition], &call{}
	for from := 0; from < len(ops); from += e.cfg.BatchMax {
		batch := ops[from:min(from+e.cfg.BatchMax, len(ops))]
		p.send(c, k, header{epoch: epoch, behind: true}, batch)
		for _, op := range batch {
			if err := <-op.done; err != nil {
				return err
			}
		}
	}
	return nil
}

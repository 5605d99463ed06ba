package engine

import (
	"strconv"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// Kinds of assignment in lua/replay.lua.
const (
	assignSet    = 1
	assignSetFor = 2
	assignAdd    = 3
)

// assignments are keys and arguments of lua/replay.lua.
type assignments struct {
	keys []string
	args []any
}

func (a *assignments) add(key string, arg []byte) {
	a.keys = append(a.keys, key)
	a.args = append(a.args, string(arg))
}

func (a *assignments) set(key, value string) {
	a.add(key, msgp.AppendString(appendInt(nil, assignSet), value))
}

// fold turns journal entries into the values Redis held after them. Later events win, so a call that sets final
// values equals the replay of each event in order.
func (e *Engine) fold(partition int, entries []Entry) (*assignments, error) {
	balances, stocks := map[int64]int64{}, map[int64]int64{}
	type minuteProduct struct{ minute, product int64 }
	sold := map[minuteProduct]int64{}
	a := &assignments{}
	now := time.Now().Add(time.Duration(e.clockOffset.Load()) * time.Millisecond)
	for i := range entries {
		events, err := entries[i].Events()
		if err != nil {
			return nil, err
		}
		for j := range events {
			ev := &events[j]
			scope := ev.UserID
			switch ev.Kind {
			case Ordered:
				balances[ev.UserID] = ev.Balance
				for l, line := range ev.Lines {
					stocks[line.ProductID] = ev.StocksAfter[l]
					sold[minuteProduct{ev.At.Unix() / 60, line.ProductID}] += line.Quantity
				}
				order := ev.Order()
				a.set(e.keys.Order(partition, order.ID), string(encodeOrder(&order)))
			case Credited:
				balances[ev.UserID] = ev.Balance
			case Restocked:
				stocks[ev.ProductID] = ev.Stock
				scope = adminScope
			}
			if ev.Key != "" {
				left := int64(e.cfg.IdempotencyTTL/time.Second) - int64(now.Sub(ev.At)/time.Second)
				b := appendInt(nil, assignSetFor)
				b = msgp.AppendStringFromBytes(b, ev.idempotencyRecord())
				a.add(e.keys.Idempotency(partition, scope, ev.Key), appendInt(b, left))
			}
		}
	}
	for id, balance := range balances {
		a.set(e.keys.Balance(partition, id), strconv.FormatInt(balance, 10))
	}
	for id, units := range stocks {
		a.set(e.keys.Stock(partition, id), strconv.FormatInt(units, 10))
	}
	for at, units := range sold {
		b := appendInt(nil, assignAdd)
		b = msgp.AppendString(b, strconv.FormatInt(at.product, 10))
		a.add(e.keys.Sold(partition, at.minute), appendInt(b, units))
	}
	return a, nil
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
		op := &listOp{product: l.Product}
		if e.keys.Home(l.ID) == partition {
			op.initial = l.InitialStock
		}
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

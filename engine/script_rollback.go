package engine

import (
	"time"

	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// rollbackOp is an operation of lua/rollback.lua.
type rollbackOp struct {
	user        int64 // who must own the order
	order       int64
	key         string // empty where a hold expires
	scope       int64  // of the key
	fingerprint Fingerprint
	reason      string
	within      time.Duration // after the sale; negative: at any time
	items       []Item        // of the order, as it was read
	soldAt      time.Time     // zero: not sold when it was read
	archived    string        // its record in the books, where Redis had none
	events      int64         // that the books held then

	// reply
	balance  int64
	record   string
	status   Status // after a replay: as answered
	replayed bool
}

// Calls are either all of holds that expire, which have no keys, or all of wishes to cancel.
var (
	expireKind = &kind{script: lua.Rollback, encode: func(c *call, ops []*operation) { encodeRollback(c, ops, true) }, decode: decodeRollback, quiet: true}
	cancelKind = &kind{script: lua.Rollback, encode: func(c *call, ops []*operation) { encodeRollback(c, ops, false) }, decode: decodeRollback}
)

func encodeRollback(c *call, ops []*operation, expire bool) {
	c.addKey(c.keys.Top(c.partition))
	c.addKey(c.keys.Holds(c.partition))
	keyed := 0
	if !expire {
		keyed = len(ops)
		for _, op := range ops {
			o := op.body.(*rollbackOp)
			c.addKey(c.keys.Idempotency(c.partition, o.scope, o.key))
		}
	}
	for _, op := range ops {
		c.addKey(c.keys.Order(c.partition, op.body.(*rollbackOp).order))
	}
	b := appendInt(c.scratch[:0], int64(keyed))
	b = c.addBalances(b, func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*rollbackOp).user)
		}
	})
	b = c.addStocks(b, func(yield func(int64)) {
		for _, op := range ops {
			for _, i := range op.body.(*rollbackOp).items {
				yield(i.ProductID)
			}
		}
	})
	c.addGrown(c.order)
	b = c.addSaleMinutes(b, ops)
	b = appendInt(b, c.several())
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*rollbackOp)
		b = appendOperation(b[:0], o.user, o.order, o.key, o.fingerprint)
		c.addArg(b)
	}
	for _, op := range ops {
		b = op.body.(*rollbackOp).appendWish(b[:0], expire)
		c.addArg(b)
	}
	c.scratch = b
}

func (c *call) addSaleMinutes(b []byte, ops []*operation) []byte {
	minutes := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			if o := op.body.(*rollbackOp); !o.soldAt.IsZero() {
				yield(minuteOf(o.soldAt))
			}
		}
	})
	for _, m := range minutes {
		c.addKey(c.keys.Sold(c.partition, m))
	}
	return appendInts(b, minutes)
}

func (o *rollbackOp) appendWish(b []byte, expire bool) []byte {
	wish := int64(0)
	if expire {
		wish = 1
	}
	b = appendInt(b, wish)
	b = appendInt(b, o.scope)
	b = msgp.AppendString(b, o.reason)
	within := int64(-1)
	if o.within >= 0 {
		within = o.within.Milliseconds()
	}
	b = appendInt(b, within)
	b = msgp.AppendString(b, o.archived)
	return appendInt(b, o.events)
}

func decodeRollback(d *decoder, c code, body any) error {
	o := body.(*rollbackOp)
	if c == codeReplay {
		o.replayed = true
		o.order, o.status = d.id(), Status(d.int())
		return nil
	}
	o.balance, o.record = d.int(), d.string()
	return nil
}

package engine

import (
	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// debitOp is an operation of lua/debit.lua.
type debitOp struct {
	user        int64
	order       int64
	key         string
	fingerprint Fingerprint
	items       []Item // of the order, as Redis had it; none where it had not

	// reply
	balance  int64
	record   string
	status   Status // after a replay: as answered
	replayed bool
}

var debitKind = &kind{script: lua.Debit, encode: encodeDebit, decode: decodeDebit}

func encodeDebit(c *call, ops []*operation) {
	c.addKey(c.keys.Sold(c.partition, c.minute))
	c.addKey(c.keys.Top(c.partition))
	c.addKey(c.keys.Holds(c.partition))
	for _, op := range ops {
		o := op.body.(*debitOp)
		c.addKey(c.keys.Idempotency(c.partition, o.user, o.key))
	}
	for _, op := range ops {
		c.addKey(c.keys.Order(c.partition, op.body.(*debitOp).order))
	}
	b := appendInt(c.scratch[:0], c.minute)
	b = c.addBalances(b, func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*debitOp).user)
		}
	})
	b = c.addStocks(b, func(yield func(int64)) {
		for _, op := range ops {
			for _, i := range op.body.(*debitOp).items {
				yield(i.ProductID)
			}
		}
	})
	c.addGrown(c.order)
	b = appendInt(b, c.several())
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*debitOp)
		b = appendOperation(b[:0], o.user, o.order, o.key, o.fingerprint)
		c.addArg(b)
	}
	c.scratch = b
}

func decodeDebit(d *decoder, c code, body any) error {
	o := body.(*debitOp)
	if c == codeReplay {
		o.replayed = true
		o.order, o.status, o.balance = d.id(), Status(d.int()), d.int()
		return nil
	}
	o.balance, o.record = d.int(), d.string()
	return nil
}

// addBalances adds the balances' keys of the users that visit yields, and appends their ids to b.
func (c *call) addBalances(b []byte, visit func(yield func(id int64))) []byte {
	users := c.distinct(visit)
	for _, id := range users {
		c.addKey(c.keys.Balance(c.partition, id))
	}
	return appendInts(b, users)
}

// addStocks does the same for the stock shares of products.
func (c *call) addStocks(b []byte, visit func(yield func(id int64))) []byte {
	products := c.distinct(visit)
	for _, id := range products {
		c.addKey(c.keys.Stock(c.partition, id))
	}
	return appendInts(b, products)
}

// addGrown adds the keys that count how often shares have grown. With one partition nobody asks.
func (c *call) addGrown(products []int64) {
	if c.several() == 0 {
		return
	}
	for _, id := range products {
		c.addKey(c.keys.Grown(c.partition, id))
	}
}

// several is 1 where there are several partitions, else 0.
func (c *call) several() int64 {
	if c.keys.Partitions() > 1 {
		return 1
	}
	return 0
}

// appendOperation appends what every operation under a key begins with: it becomes part of the event as it stands.
func appendOperation(b []byte, user, id int64, key string, f Fingerprint) []byte {
	b = appendInt(b, user)
	b = appendIDString(b, id)
	b = msgp.AppendString(b, key)
	if key == "" {
		return msgp.AppendString(b, "")
	}
	return msgp.AppendStringFromBytes(b, f[:])
}

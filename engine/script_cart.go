package engine

import (
	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// cartOp is an operation of lua/cart.lua.
type cartOp struct {
	user        int64
	product     int64
	quantity    int64 // to add; 0 takes the product out
	key         string
	fingerprint Fingerprint
	// Under a key the answer is stored, so the script must know all that is in the cart.
	products  []int64 // in the cart, as it was read, the one to add among them
	elsewhere []int64 // units of each in other partitions

	// reply
	record   string // of the cart, without a key
	answer   string // under a key
	replayed bool
}

// Calls are either all under keys or all without.
var (
	cartKind      = &kind{script: lua.Cart, encode: func(c *call, ops []*operation) { encodeCarts(c, ops, false) }, decode: decodeCartOp}
	keyedCartKind = &kind{script: lua.Cart, encode: func(c *call, ops []*operation) { encodeCarts(c, ops, true) }, decode: decodeKeyedCartOp}
)

func encodeCarts(c *call, ops []*operation, keyed bool) {
	k := 0
	if keyed {
		k = len(ops)
		for _, op := range ops {
			o := op.body.(*cartOp)
			c.addKey(c.keys.Idempotency(c.partition, o.user, o.key))
		}
	}
	for _, op := range ops {
		c.addKey(c.keys.Cart(c.partition, op.body.(*cartOp).user))
	}
	b := appendInt(c.scratch[:0], int64(k))
	b = c.addBalances(b, func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*cartOp).user)
		}
	})
	elsewhere := map[int64]int64{}
	products := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			o := op.body.(*cartOp)
			if o.quantity > 0 {
				yield(o.product)
			}
			for i, id := range o.products {
				elsewhere[id] = o.elsewhere[i]
				yield(id)
			}
		}
	})
	for _, id := range products {
		c.addKey(c.keys.Catalogue(c.partition, id))
	}
	b = appendInts(b, products)
	b = msgp.AppendArrayHeader(b, uint32(len(products))) //nolint:gosec // bounded by a batch
	for _, id := range products {
		c.addKey(c.keys.Stock(c.partition, id))
		b = appendInt(b, elsewhere[id])
	}
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*cartOp)
		b = appendInt(b[:0], o.user)
		b = msgp.AppendString(b, o.key)
		fingerprint := o.fingerprint[:]
		if !keyed {
			fingerprint = nil
		}
		b = msgp.AppendStringFromBytes(b, fingerprint)
		b = appendInt(b, o.product)
		b = appendInt(b, o.quantity)
		c.addArg(b)
	}
	c.scratch = b
}

func decodeCartOp(d *decoder, _ code, body any) error {
	body.(*cartOp).record = d.string()
	return nil
}

func decodeKeyedCartOp(d *decoder, c code, body any) error {
	o := body.(*cartOp)
	o.answer, o.replayed = d.string(), c == codeReplay
	return nil
}

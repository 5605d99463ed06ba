package engine

import (
	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// restockOp is an operation of lua/restock.lua.
type restockOp struct {
	product     int64
	delta       int64
	reason      string
	key         string
	fingerprint Fingerprint
	elsewhere   int64 // units in other partitions

	// reply
	stock    int64 // of all partitions
	replayed bool
}

var restockKind = &kind{script: lua.Restock, encode: encodeRestock, decode: decodeRestock}

func encodeRestock(c *call, ops []*operation) {
	for _, op := range ops {
		c.addKey(c.keys.Idempotency(c.partition, adminScope, op.body.(*restockOp).key))
	}
	products := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*restockOp).product)
		}
	})
	for _, id := range products {
		c.addKey(c.keys.Stock(c.partition, id))
	}
	elsewhere := map[int64]int64{}
	for _, op := range ops {
		o := op.body.(*restockOp)
		elsewhere[o.product] = o.elsewhere // what was read last, and so is the latest
	}
	b := appendInts(c.scratch[:0], products)
	b = msgp.AppendArrayHeader(b, uint32(len(products)))
	for _, id := range products {
		b = appendInt(b, elsewhere[id])
	}
	c.addGrown(products)
	b = appendInt(b, c.several())
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*restockOp)
		b = appendInt(b[:0], o.product)
		b = msgp.AppendString(b, o.key)
		b = msgp.AppendStringFromBytes(b, o.fingerprint[:])
		b = appendInt(b, o.delta)
		b = msgp.AppendString(b, o.reason)
		c.addArg(b)
	}
	c.scratch = b
}

func decodeRestock(d *decoder, c code, body any) error {
	o := body.(*restockOp)
	o.stock, o.replayed = d.int(), c == codeReplay
	return nil
}

// listOp is an operation of lua/list.lua.
type listOp struct {
	product Product
	initial int64 // units of this partition's share
}

var listKind = &kind{script: lua.List, encode: encodeList, decode: decodeNothing, quiet: true}

func encodeList(c *call, ops []*operation) {
	c.addKey(c.keys.Listed(c.partition))
	for _, op := range ops {
		c.addKey(c.keys.Catalogue(c.partition, op.body.(*listOp).product.ID))
	}
	var b []byte
	for _, op := range ops {
		o := op.body.(*listOp)
		c.addKey(c.keys.Stock(c.partition, o.product.ID))
		b = appendInt(b[:0], o.product.ID)
		b = appendInt(b, o.product.Version)
		b = msgp.AppendString(b, encodeCatalogue(o.product))
		b = appendInt(b, o.initial)
		c.addArg(b)
	}
}

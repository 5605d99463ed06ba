package engine

import (
	"stampede/lua"
)

// lendOp is an operation of lua/lend.lua, at the sender.
type lendOp struct {
	product  int64
	receiver int
	most     int64 // units

	// reply
	units int64
	id    Position
	open  bool // it is an earlier transfer, which is still open
}

var lendKind = &kind{script: lua.Lend, encode: encodeLend, decode: decodeLend, quiet: true}

func encodeLend(c *call, ops []*operation) {
	c.addKey(c.keys.Moving(c.partition))
	b := c.addStocks(c.scratch[:0], func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*lendOp).product)
		}
	})
	c.addTransfers(c.order)
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*lendOp)
		b = appendInt(b[:0], o.product)
		b = appendInt(b, int64(o.receiver))
		b = appendInt(b, o.most)
		c.addArg(b)
	}
	c.scratch = b
}

func (c *call) addTransfers(products []int64) {
	for _, id := range products {
		c.addKey(c.keys.Transfers(c.partition, id))
	}
}

func decodeLend(d *decoder, c code, body any) error {
	o := body.(*lendOp)
	o.open = c == codeReplay
	o.units, o.id = d.int(), d.position()
	return nil
}

// creditOp is an operation of lua/credit.lua, at the receiver.
type creditOp struct {
	product int64
	sender  int
	id      Position
	units   int64
	stayMS  int64

	// reply
	at Position // an event at or behind the credit
}

var creditKind = &kind{script: lua.Credit, encode: encodeCredit, decode: decodeCredit, quiet: true}

func encodeCredit(c *call, ops []*operation) {
	b := c.addStocks(c.scratch[:0], func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*creditOp).product)
		}
	})
	c.addTransfers(c.order)
	c.addGrown(c.order)
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*creditOp)
		b = appendInt(b[:0], o.product)
		b = appendInt(b, int64(o.sender))
		b = appendPosition(b, o.id)
		b = appendInt(b, o.units)
		b = appendInt(b, o.stayMS)
		c.addArg(b)
	}
	c.scratch = b
}

func decodeCredit(d *decoder, _ code, body any) error {
	body.(*creditOp).at = d.position()
	return nil
}

// settleOp is an operation of lua/settle.lua, at the sender.
type settleOp struct {
	product  int64
	receiver int
	id       Position
}

var settleKind = &kind{script: lua.Settle, encode: encodeSettle, decode: decodeNothing, quiet: true}

func encodeSettle(c *call, ops []*operation) {
	c.addKey(c.keys.Moving(c.partition))
	products := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*settleOp).product)
		}
	})
	c.addTransfers(products)
	b := appendInts(c.scratch[:0], products)
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*settleOp)
		b = appendInt(b[:0], o.product)
		b = appendInt(b, int64(o.receiver))
		b = appendPosition(b, o.id)
		c.addArg(b)
	}
	c.scratch = b
}

func appendPosition(b []byte, at Position) []byte { return appendInt(appendInt(b, at.Epoch), at.Seq) }

func (d *decoder) position() Position { return Position{Epoch: d.int(), Seq: d.int()} }

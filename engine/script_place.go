package engine

import (
	"time"

	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// placeOp is an operation of lua/place.lua.
type placeOp struct {
	user        int64
	order       int64
	key         string
	fingerprint Fingerprint
	lines       []Line

	// reply
	atMS     int64
	total    int64
	prices   []int64
	replayed int64 // order of the earlier call, 0 for none
}

var placeKind = &kind{script: lua.Place, encode: encodePlace, decode: decodePlace}

func encodePlace(c *call, ops []*operation) {
	c.addKey(c.keys.Sold(c.partition, c.minute))
	for _, op := range ops {
		o := op.body.(*placeOp)
		c.addKey(c.keys.Idempotency(c.partition, o.user, o.key))
	}
	for _, op := range ops {
		c.addKey(c.keys.Order(c.partition, op.body.(*placeOp).order))
	}
	b := appendInt(c.scratch[:0], c.minute)
	users := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*placeOp).user)
		}
	})
	b = appendInts(b, users)
	for _, id := range users {
		c.addKey(c.keys.Balance(c.partition, id))
	}
	products := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			for _, l := range op.body.(*placeOp).lines {
				yield(l.ProductID)
			}
		}
	})
	b = appendInts(b, products)
	for _, id := range products {
		c.addKey(c.keys.Stock(c.partition, id))
	}
	for _, id := range products {
		c.addKey(c.keys.Catalogue(c.partition, id))
	}
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*placeOp)
		b = appendInt(b[:0], o.user)
		b = appendIDString(b, o.order)
		b = msgp.AppendString(b, o.key)
		b = msgp.AppendStringFromBytes(b, o.fingerprint[:])
		c.addArg(b)
	}
	for _, op := range ops {
		b = appendLines(b[:0], op.body.(*placeOp).lines)
		c.addArg(b)
	}
	c.scratch = b
}

func decodePlace(d *decoder, c code, body any) error {
	o := body.(*placeOp)
	if c == codeReplay {
		o.replayed = d.id()
		return nil
	}
	o.atMS, o.total, o.prices = d.int(), d.int(), d.ints(LinesMax)
	return nil
}

// result is the order that the operation placed.
func (o *placeOp) result() Order {
	at := time.UnixMilli(o.atMS).UTC()
	items := make([]Item, len(o.lines))
	for i, l := range o.lines {
		items[i] = Item{ProductID: l.ProductID, Quantity: l.Quantity, Price: o.prices[i]}
	}
	return Order{
		ID: o.order, UserID: o.user, Status: Success, Total: o.total, Items: items, CreatedAt: at,
		History: []Step{{Status: Pending, At: at}, {Status: Success, At: at}},
	}
}

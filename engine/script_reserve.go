package engine

import (
	"time"

	"stampede/lua"
)

// reserveOp is an operation of lua/reserve.lua.
type reserveOp struct {
	placeOp
	hold time.Duration
}

var reserveKind = &kind{script: lua.Reserve, encode: encodeReserve, decode: decodeReserve, behind: decodeShares}

func encodeReserve(c *call, ops []*operation) {
	places := c.places[:0]
	for _, op := range ops {
		places = append(places, &op.body.(*reserveOp).placeOp)
	}
	c.places = places
	c.addKey(c.keys.Holds(c.partition))
	b := appendInt(c.scratch[:0], ops[0].body.(*reserveOp).hold.Milliseconds())
	c.addSale(b, places, false)
}

func decodeReserve(d *decoder, c code, body any) error {
	return decodePlace(d, c, &body.(*reserveOp).placeOp)
}

// result is the order that the operation placed.
func (o *reserveOp) result() Order {
	order := o.placeOp.result()
	order.Status, order.History = Pending, order.History[:1]
	order.ExpiresAt = order.CreatedAt.Add(o.hold)
	return order
}

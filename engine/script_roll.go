package engine

import (
	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// rollOp is the operation of lua/roll.lua; a call has one.
type rollOp struct {
	first   int64 // minute from which units may still count
	minutes int64 // how many to look at
	cursor  string

	// reply
	rolled  int64
	horizon int64 // the first minute that should count
}

var rollKind = &kind{script: lua.Roll, encode: encodeRoll, decode: decodeRoll, quiet: true}

func encodeRoll(c *call, ops []*operation) {
	o := ops[0].body.(*rollOp)
	c.addKey(c.keys.Top(c.partition))
	for m := range o.minutes {
		c.addKey(c.keys.Sold(c.partition, o.first+m))
	}
	c.addArg(msgp.AppendString(appendInt(nil, o.first), o.cursor))
}

func decodeRoll(d *decoder, _ code, body any) error {
	o := body.(*rollOp)
	o.rolled, o.cursor, o.horizon = d.int(), d.string(), d.int()
	return nil
}

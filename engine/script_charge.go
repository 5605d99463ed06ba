package engine

import (
	"github.com/tinylib/msgp/msgp"

	"stampede/lua"
)

// chargeOp is an operation of lua/charge.lua.
type chargeOp struct {
	user        int64
	charge      int64 // of the earlier call after a replay
	amount      int64
	key         string
	fingerprint Fingerprint

	// reply
	balance  int64
	replayed bool
}

var chargeKind = &kind{script: lua.Charge, encode: encodeCharge, decode: decodeCharge}

func encodeCharge(c *call, ops []*operation) {
	for _, op := range ops {
		o := op.body.(*chargeOp)
		c.addKey(c.keys.Idempotency(c.partition, o.user, o.key))
	}
	users := c.distinct(func(yield func(int64)) {
		for _, op := range ops {
			yield(op.body.(*chargeOp).user)
		}
	})
	for _, id := range users {
		c.addKey(c.keys.Balance(c.partition, id))
	}
	b := appendInts(c.scratch[:0], users)
	c.addArg(b)
	for _, op := range ops {
		o := op.body.(*chargeOp)
		b = appendInt(b[:0], o.user)
		b = appendIDString(b, o.charge)
		b = msgp.AppendString(b, o.key)
		b = msgp.AppendStringFromBytes(b, o.fingerprint[:])
		b = appendInt(b, o.amount)
		c.addArg(b)
	}
	c.scratch = b
}

func decodeCharge(d *decoder, c code, body any) error {
	o := body.(*chargeOp)
	if c == codeReplay {
		o.replayed = true
		o.charge = d.id()
	}
	o.balance = d.int()
	return nil
}

// enrollOp is an operation of lua/enroll.lua.
type enrollOp struct {
	user int64
}

var enrollKind = &kind{script: lua.Enroll, encode: encodeEnroll, decode: decodeNothing, quiet: true}

func encodeEnroll(c *call, ops []*operation) {
	for _, op := range ops {
		user := op.body.(*enrollOp).user
		c.addKey(c.keys.Balance(c.partition, user))
		c.addArg(appendInt(nil, user))
	}
}

func decodeNothing(*decoder, code, any) error { return nil }

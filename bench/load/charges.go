package load

import (
	"bytes"
	"strconv"
)

const chargeMax = 1000 // minor units

// charges add to the balances of users who are all equally likely.
type charges struct {
	users []string
	name  string
	seed  uint64
}

// NewCharges is a scenario of small charges. Equal seeds give equal charges; the name keeps their keys apart from those
// of other loads on the same server.
func NewCharges(users []string, name string, seed uint64) Scenario {
	return &charges{users: users, name: name, seed: seed}
}

func (c *charges) Kinds() []string { return []string{"charge"} }

func (c *charges) Source() Source {
	return &chargeSource{users: c.users, wire: wire{name: c.name}, chance: newChance(c.seed)}
}

type chargeSource struct {
	wire
	chance
	users []string
}

func (c *chargeSource) Next(n int64, h *Hit) {
	c.of(n)
	c.begin(c.users[c.IntN(len(c.users))])
	c.charge(1 + c.Int64N(chargeMax))
	c.post(h, n, "/balance/charge")
}

func (c *chargeSource) Accepted(_ *Hit, body []byte) bool { return charged(body) }

// charge adds an amount to the body.
func (w *wire) charge(amount int64) {
	w.body = strconv.AppendInt(append(w.body, `,"amount":`...), amount, 10)
}

// charged is whether a body is the answer to a charge.
func charged(body []byte) bool { return bytes.Contains(body, []byte(`"charge_id":"`)) }

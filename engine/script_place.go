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
	cart        bool // the lines leave the user's cart

	// reply
	atMS     int64
	total    int64
	prices   []int64
	replayed int64 // order of the earlier call, 0 for none
}

func (o *placeOp) asker() asker { return asker{o.key, o.fingerprint} }

var placeKind = &kind{script: lua.Place, encode: encodePlace, decode: decodePlace, behind: decodeShares}

func encodePlace(c *call, ops []*operation) {
	places := c.places[:0]
	for _, op := range ops {
		places = append(places, op.body.(*placeOp))
	}
	c.places = places
	c.addKey(c.keys.Sold(c.partition, c.minute))
	c.addKey(c.keys.Top(c.partition))
	c.addSale(appendInt(c.scratch[:0], c.minute), places, true)
}

// addSale adds what lua/place.lua and lua/reserve.lua share; b is what their second argument begins with. With named it
// ends with the products as text, for which a script would pay several times what it costs here.
func (c *call) addSale(b []byte, ops []*placeOp, named bool) {
	for _, o := range ops {
		c.addKey(c.keys.Idempotency(c.partition, o.user, o.key))
	}
	buys := c.order[:0]
	for i, o := range ops {
		if o.cart {
			c.addKey(c.keys.Cart(c.partition, o.user))
			buys = append(buys, int64(i)+1)
		}
	}
	b = appendInts(b, buys)
	b = c.addBalances(b, func(yield func(int64)) {
		for _, o := range ops {
			yield(o.user)
		}
	})
	who := c.who[:0]
	for _, o := range ops {
		who = append(who, c.ids[o.user])
	}
	c.who = who
	b = c.addStocks(b, func(yield func(int64)) {
		for _, o := range ops {
			for _, l := range o.lines {
				yield(l.ProductID)
			}
		}
	})
	products := c.order // still
	for _, id := range products {
		c.addKey(c.keys.Catalogue(c.partition, id))
	}
	b = appendInts(b, who)
	b = c.appendIndexedLines(b, ops)
	if named {
		b = appendTexts(b, products)
	}
	b = appendInt(b, c.several())
	for _, o := range ops {
		c.addKey(c.keys.Order(c.partition, o.order))
	}
	c.addArg(b)
	for _, o := range ops {
		b = appendOperation(b[:0], o.user, o.order, o.key, o.fingerprint)
		c.addArg(b)
	}
	for _, o := range ops {
		b = appendLines(b[:0], o.lines)
		c.addArg(b)
	}
	c.scratch = b
}

// appendIndexedLines appends the lines of all operations as one array: how many an operation has, then product by index
// and quantity of each.
func (c *call) appendIndexedLines(b []byte, ops []*placeOp) []byte {
	size := len(ops)
	for _, o := range ops {
		size += 2 * len(o.lines)
	}
	b = msgp.AppendArrayHeader(b, uint32(size))
	for _, o := range ops {
		b = appendInt(b, int64(len(o.lines)))
		for _, l := range o.lines {
			b = appendInt(b, c.ids[l.ProductID])
			b = appendInt(b, l.Quantity)
		}
	}
	return b
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
	return paidAtOnce(o.order, o.user, o.lines, o.prices, o.total, time.UnixMilli(o.atMS).UTC())
}

// decodeShares reads the shares of the call's products after it, which several partitions want to know: see pace.go.
func decodeShares(p *partition, c *call, d *decoder) {
	products := c.order // still
	if n := d.array(len(products)); n != len(products) {
		return
	}
	for _, id := range products {
		if left, listed := d.intOrFalse(); listed {
			p.pace.note(id, left, time.Now())
		}
	}
}

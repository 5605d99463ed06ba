package load

import (
	"math/rand/v2"
	"strconv"
)

// Goods are what orders are made of: ids of users and products that exist.
type Goods struct{ Users, Products []string }

// uniformOrders are orders of one unit on one line: every user and every product is equally likely.
type uniformOrders struct {
	goods Goods
	rng   *rand.Rand
	key   string // begins every idempotency key; no other source of the run has the same
	count uint64
	body  []byte
}

// NewUniformOrders returns one source a connection. Equal seeds give equal orders: a baseline gets what Stampede got.
// The name keeps their keys apart from those of other loads on the same server.
func NewUniformOrders(g Goods, name string, seed uint64, connections int) []Source {
	sources := make([]Source, connections)
	for i := range sources {
		sources[i] = &uniformOrders{
			goods: g,
			rng:   rand.New(rand.NewPCG(seed, uint64(i))),
			key:   name + "-" + strconv.Itoa(i) + "-",
		}
	}
	return sources
}

// Every request names Host because HTTP/1.1 demands it; the servers do not look at it.
const orderHead = "POST /order HTTP/1.1\r\nHost: stampede\r\nContent-Type: application/json\r\nIdempotency-Key: "

func (o *uniformOrders) Next(buf []byte) []byte {
	o.count++
	o.body = append(o.body[:0], `{"user_id":"`...)
	o.body = append(o.body, o.goods.Users[o.rng.IntN(len(o.goods.Users))]...)
	o.body = append(o.body, `","items":[{"product_id":"`...)
	o.body = append(o.body, o.goods.Products[o.rng.IntN(len(o.goods.Products))]...)
	o.body = append(o.body, `","quantity":1}]}`...)

	buf = append(buf, orderHead...)
	buf = append(buf, o.key...)
	buf = strconv.AppendUint(buf, o.count, 10)
	buf = append(buf, "\r\nContent-Length: "...)
	buf = strconv.AppendInt(buf, int64(len(o.body)), 10)
	buf = append(buf, "\r\n\r\n"...)
	return append(buf, o.body...)
}

package load

import (
	"bytes"
	"math/rand/v2"
	"strconv"
)

// Scenario is what a load asks for.
type Scenario interface {
	// Kinds names the kinds of requests that are counted apart.
	Kinds() []string
	// Source returns one that makes the requests of a connection. The sources of a scenario share what it remembers.
	Source() Source
}

// Source makes requests. One goroutine uses it.
type Source interface {
	// Next writes the request of hit n, counted from 0, into h. It depends on the scenario's seed, on n and, where a
	// request follows another, on earlier answers; not on which connection sends it.
	Next(n int64, h *Hit)
	// Accepted takes an answer with a status of 2xx to h, and says whether its body is one. The body is valid
	// until it returns.
	Accepted(h *Hit, body []byte) bool
}

// Hit is a request.
type Hit struct {
	Kind    int    // an index of Kinds
	Request []byte // whole and ready to send; Next writes it anew

	step step // of a mixed scenario
	user int  // who takes it, an index
}

// Goods are what requests are made of: ids of users and products that exist.
type Goods struct{ Users, Products []string }

// chance is randomness that belongs to a hit, whoever sends it.
type chance struct {
	*rand.Rand
	pcg  *rand.PCG
	seed uint64
}

func newChance(seed uint64) chance {
	pcg := rand.NewPCG(0, 0)
	return chance{Rand: rand.New(pcg), pcg: pcg, seed: seed}
}

// of begins what hit n draws.
func (c chance) of(n int64) {
	// Neighbouring hits must have nothing in common: spread their numbers over all 64 bits (the finalizer of splitmix64,
	// Steele, Lea, Flood 2014).
	x := uint64(n) + 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	c.pcg.Seed(c.seed, x^x>>31)
}

// popularity draws products by their place in a list.
type popularity struct {
	chance
	zipf  *rand.Zipf // nil: all are equally likely
	count int
}

// newPopularity has the product in place k drawn in proportion to (1+k)^-s. rand.Zipf wants s above 1; 0 makes all
// equally likely.
func newPopularity(c chance, s float64, products int) popularity {
	p := popularity{chance: c, count: products}
	if s > 1 {
		p.zipf = rand.NewZipf(c.Rand, s, 1, uint64(products-1))
	}
	return p
}

func (p popularity) product() int {
	if p.zipf == nil {
		return p.IntN(p.count)
	}
	return int(p.zipf.Uint64())
}

// wire writes requests.
type wire struct {
	name string // begins every idempotency key; no other load on the same server has it
	body []byte // of the next POST
}

// begin starts a body that names its buyer.
func (w *wire) begin(user string) {
	w.body = append(append(append(w.body[:0], `{"user_id":"`...), user...), '"')
}

// line adds the only line of an order, of one unit.
func (w *wire) line(product string) {
	w.body = append(append(append(w.body, `,"items":[{"product_id":"`...), product...), `","quantity":1}]`...)
}

// post ends the body and writes the request of hit n into h. Every request names Host because HTTP/1.1 demands it; the
// servers do not look at it.
func (w *wire) post(h *Hit, n int64, path ...string) {
	w.body = append(w.body, '}')
	buf := h.Request[:0]
	buf = append(buf, "POST "...)
	for _, part := range path {
		buf = append(buf, part...)
	}
	buf = append(buf, " HTTP/1.1\r\nHost: stampede\r\nContent-Type: application/json\r\nIdempotency-Key: "...)
	buf = append(buf, w.name...)
	buf = strconv.AppendInt(append(buf, '-'), n, 10)
	buf = append(buf, "\r\nContent-Length: "...)
	buf = strconv.AppendInt(buf, int64(len(w.body)), 10)
	buf = append(buf, "\r\n\r\n"...)
	buf = append(buf, w.body...)
	h.Request = buf
}

// get writes a request without a body into h.
func (w *wire) get(h *Hit, path ...string) {
	buf := h.Request[:0]
	buf = append(buf, "GET "...)
	for _, part := range path {
		buf = append(buf, part...)
	}
	buf = append(buf, " HTTP/1.1\r\nHost: stampede\r\n\r\n"...)
	h.Request = buf
}

// orderID finds the id of an order in an answer; an answer without one is none.
func orderID(body []byte) (id []byte, ok bool) {
	_, rest, _ := bytes.Cut(body, []byte(`"id":"`))
	id, _, ok = bytes.Cut(rest, []byte{'"'})
	return id, ok && len(id) > 0
}

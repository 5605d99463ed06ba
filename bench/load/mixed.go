package load

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// step is what somebody in a shop does.
type step int

const (
	browseProduct step = iota
	browseList
	fillCart
	orderNow
	orderLater // held; pay follows
	orderCart  // of a user with something in the cart
	payHeld
	refundPaid
	chargeBalance
	stepCount
)

// steps are what people in a shop do, and how often: the whole table of the mixed scenario. As many orders are paid later
// as are held, and there are more carts than orders of carts. A step that follows up on another, when there is nothing
// to follow up on (at the beginning, or when answers stay away), is that other one instead.
var steps = [stepCount]struct {
	kind    string
	percent int
	instead step
}{
	browseProduct: {kind: "browse", percent: 35},
	browseList:    {kind: "browse", percent: 10},
	fillCart:      {kind: "cart", percent: 20},
	orderNow:      {kind: "order", percent: 11},
	orderLater:    {kind: "order", percent: 6},
	orderCart:     {kind: "order", percent: 6, instead: fillCart},
	payHeld:       {kind: "pay", percent: 6, instead: orderLater},
	refundPaid:    {kind: "refund", percent: 3, instead: orderNow},
	chargeBalance: {kind: "charge", percent: 3},
}

// stepsByPercent has each step as often as its percentage says.
var stepsByPercent = func() (all [100]step) {
	n := 0
	for s := range stepCount {
		for range steps[s].percent {
			all[n] = s
			n++
		}
	}
	return all
}()

// kinds names the kinds in the order in which they first stand in the table.
func mixedKinds() (names []string) {
	for _, s := range steps {
		if !slices.Contains(names, s.kind) {
			names = append(names, s.kind)
		}
	}
	return names
}

// MixedShares tells how much of the mixed scenario each kind of request is.
func MixedShares() string {
	var shares []string
	for _, name := range mixedKinds() {
		sum := 0
		for _, s := range steps {
			if s.kind == name {
				sum += s.percent
			}
		}
		shares = append(shares, fmt.Sprintf("%d %% %s", sum, name))
	}
	return strings.Join(shares, ", ")
}

// mixed is people in a shop.
type mixed struct {
	goods  Goods
	name   string
	seed   uint64
	zipf   float64
	kinds  []string
	memory memory // of answers
}

// NewMixed is a scenario of people who look at products, fill carts, order (at once, held or from the cart), pay what is
// held, give back what is paid, and charge their balances, in the shares that MixedShares tells. Users are equally likely,
// products as in NewOrders. Equal seeds give equal steps by equal users; whose order a step follows up on depends on the
// answers before it.
func NewMixed(g Goods, name string, seed uint64, zipf float64) Scenario {
	return &mixed{goods: g, name: name, seed: seed, zipf: zipf, kinds: mixedKinds(), memory: newMemory(len(g.Users))}
}

func (m *mixed) Kinds() []string { return m.kinds }

func (m *mixed) Source() Source {
	return &mixedSource{
		mixed: m, wire: wire{name: m.name},
		popularity: newPopularity(newChance(m.seed), m.zipf, len(m.goods.Products)),
	}
}

type mixedSource struct {
	wire
	popularity
	mixed *mixed
}

func (m *mixedSource) Next(n int64, h *Hit) {
	m.of(n)
	// Everything is drawn, whether it is needed or not, so that it is the same whatever the step turns out to be.
	h.step = stepsByPercent[m.IntN(len(stepsByPercent))]
	h.user = m.IntN(len(m.mixed.goods.Users))
	amount := 1 + m.Int64N(chargeMax)
	product := m.mixed.goods.Products[m.product()]

	var order string
	var found bool
	switch h.step {
	case orderCart:
		h.user, found = m.mixed.memory.takeCart(h.user)
	case payHeld:
		h.user, order, found = m.mixed.memory.held.take(h.user)
	case refundPaid:
		h.user, order, found = m.mixed.memory.paid.take(h.user)
	default:
		found = true
	}
	if !found {
		h.step = steps[h.step].instead
	}
	h.Kind = slices.Index(m.mixed.kinds, steps[h.step].kind)
	m.write(n, h, product, order, amount)
}

// write writes the request of a step.
func (m *mixedSource) write(n int64, h *Hit, product, order string, amount int64) {
	m.begin(m.mixed.goods.Users[h.user])
	switch h.step {
	case browseProduct:
		m.get(h, "/products/", product)
	case browseList:
		m.get(h, "/products?limit=20")
	case fillCart:
		m.body = append(append(append(m.body, `,"product_id":"`...), product...), `","quantity":1`...)
		m.post(h, n, "/cart/add")
	case orderNow:
		m.line(product)
		m.post(h, n, "/order")
	case orderLater:
		m.line(product)
		m.body = append(m.body, `,"payment":"later"`...)
		m.post(h, n, "/order")
	case orderCart:
		m.post(h, n, "/cart/order")
	case payHeld:
		m.post(h, n, "/order/", order, "/payment")
	case refundPaid:
		m.post(h, n, "/order/", order, "/cancel")
	case chargeBalance:
		m.charge(amount)
		m.post(h, n, "/balance/charge")
	}
}

func (m *mixedSource) Accepted(h *Hit, body []byte) bool {
	memory := &m.mixed.memory
	switch h.step {
	case browseProduct:
		return bytes.Contains(body, []byte(`"stock":`))
	case browseList:
		return bytes.Contains(body, []byte(`"items":[`))
	case chargeBalance:
		return charged(body)
	case fillCart:
		memory.putCart(h.user)
		return bytes.Contains(body, []byte(`"items":[`))
	}
	id, ok := orderID(body)
	if !ok {
		return false
	}
	switch h.step {
	case orderLater:
		memory.held.put(h.user, string(id))
	case orderNow, orderCart, payHeld:
		memory.paid.put(h.user, string(id))
	}
	return true
}

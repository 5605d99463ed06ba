package load

// orders are of one unit of one product each, by users who are all equally likely.
type orders struct {
	goods Goods
	name  string
	seed  uint64
	zipf  float64
}

// NewOrders is a scenario of orders of one line of one unit. Every user is equally likely, and so is every product where
// zipf is 0; above 1, the earlier ones sell better: see newPopularity. Of one product it is a flash sale.
// Equal seeds give equal orders: a baseline gets what Stampede got. The name keeps their keys apart from those of other
// loads on the same server.
func NewOrders(g Goods, name string, seed uint64, zipf float64) Scenario {
	return &orders{goods: g, name: name, seed: seed, zipf: zipf}
}

func (o *orders) Kinds() []string { return []string{"order"} }

func (o *orders) Source() Source {
	return &orderSource{
		goods: o.goods, wire: wire{name: o.name},
		popularity: newPopularity(newChance(o.seed), o.zipf, len(o.goods.Products)),
	}
}

type orderSource struct {
	wire
	popularity
	goods Goods
}

func (o *orderSource) Next(n int64, h *Hit) {
	o.of(n)
	o.begin(o.goods.Users[o.IntN(len(o.goods.Users))])
	o.line(o.goods.Products[o.product()])
	o.post(h, n, "/order")
}

func (o *orderSource) Accepted(_ *Hit, body []byte) bool {
	_, ok := orderID(body)
	return ok
}

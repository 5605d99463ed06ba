package engine

// Limits of the contract. The scripts hold the same caps for what they compute.
const (
	BalanceMax      = 100_000_000_000_000 // minor units; also the largest charge
	PriceMax        = 1_000_000_000       // minor units
	StockMax        = 1_000_000_000       // units
	QuantityMax     = 10_000              // units a line, after equal products are merged
	LinesMax        = 100                 // lines an order, after equal products are merged
	NameMax         = 200                 // characters
	KeyMax          = 255                 // characters of an idempotency key
	PartitionsMax   = 240                 // partitions of a deployment
	RequestLinesMax = 10_000              // lines of an order before merging: bounds the work of one request

	// IDMax is the largest user or product id. Scripts handle those as Lua numbers, exact to 2^53, and the
	// sequences in Postgres end here. Order and charge ids travel as bytes and use all 63 bits.
	IDMax = 1<<53 - 1
)

package engine

import "time"

// Bucket is how long each of the spans is that a report of sales adds up; they are of UTC.
type Bucket time.Duration

// The buckets there are.
const (
	Hour = Bucket(time.Hour)
	Day  = Bucket(24 * time.Hour)
)

// SalesQuery says which sales a report shows: those of the buckets that start at From or later and before To.
type SalesQuery struct {
	From, To  *time.Time // nil: no bound
	Bucket    Bucket
	ProductID int64   // 0: all products
	After     SaleKey // rows behind it only; zero: from the first on
	Limit     int     // rows
}

// SaleKey names a row of a report of sales, and its place: by bucket, then by product.
type SaleKey struct {
	Bucket    time.Time // its start
	ProductID int64
}

// Sale is what was sold of a product in a bucket and not given back.
type Sale struct {
	SaleKey
	Units   int64
	Revenue string // decimal digits, in minor units; may exceed an int64
	Orders  int64
}

// Posting is a change of a user's balance.
type Posting struct {
	Position     Position // of the event that made it
	At           time.Time
	Kind         string // PostedCharge, "order" or "refund"
	Amount       int64  // signed, in minor units
	BalanceAfter int64
	RefID        int64 // the charge, or the order that was paid or refunded
}

// PostedCharge is the kind of a posting that belongs to a charge; the others belong to an order.
const PostedCharge = "charge"

package persist

import (
	"slices"

	"stampede/engine"
)

// shelf is what the stock ledger says of a product's shares.
type shelf struct {
	partitions []int16
	sums       []int64 // of each of them: of its postings in the layout of now
	initials   []int64 // units with which each of them started
	carried    int64   // from earlier layouts into the product's home
}

// selectShelves is a row of each product that has postings.
const selectShelves = `SELECT product_id, array_agg(partition) AS partitions, array_agg(units) AS sums, array_agg(initial) AS initials,
		sum(earlier)::bigint AS carried
	FROM (SELECT product_id, partition, coalesce(sum(delta) FILTER (WHERE epoch >= first), 0)::bigint AS units,
			coalesce(sum(delta) FILTER (WHERE kind = 'restock' AND reason = 'initial stock'), 0)::bigint AS initial,
			coalesce(sum(delta) FILTER (WHERE epoch < first), 0)::bigint AS earlier
		FROM stock_ledger, (SELECT max(epoch) AS first FROM layouts) l GROUP BY product_id, partition) s GROUP BY product_id`

// share returns what lies in a partition.
func (s *shelf) share(partition int, home bool) (units int64) {
	if i := slices.Index(s.partitions, int16(partition)); i >= 0 { //nolint:gosec // at most PartitionsMax
		units = s.sums[i]
	}
	if home {
		units += s.carried
	}
	return units
}

// listed reports whether a partition has had the units with which it was to start. Where some are missing, the creation of
// the product got no further than other partitions, or Redis was lost with the event.
func (s *shelf) listed(e *engine.Engine, product, initial int64, partition int) bool {
	var started int64
	for i, units := range s.initials {
		if started += units; int(s.partitions[i]) == partition && units > 0 {
			return true
		}
	}
	return started >= initial || e.InitialShare(product, partition, initial) == 0
}

// openTransfers begins a query of what was sent and has not been received, as s.
const openTransfers = ` FROM stock_ledger s WHERE s.kind = 'sent' AND NOT EXISTS (SELECT FROM stock_ledger r
	WHERE r.kind = 'received' AND r.product_id = s.product_id AND r.partition = s.peer AND r.peer = s.partition
		AND r.sent_epoch = s.epoch AND r.sent_seq = s.seq)`

// thisLayout is a condition: the row is of the layout of now. No transfer goes from one to the next.
const thisLayout = "epoch >= (SELECT max(epoch) FROM layouts)"

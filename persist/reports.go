package persist

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// Reports are read from Postgres alone. They show everything that was answered before the call, unless the writer does
// not get there in time or Redis does not answer: then they show the books as they stand.

const (
	salesMax  = 100_000 // rows of a report of sales
	ledgerMax = 200     // postings of a page
)

const (
	// The primary key has the rows as the report shows them, by hour and product: a page reads its own rows and no others,
	// whatever the planner would make of the statistics.
	inOrder     = "SET LOCAL enable_sort = off"
	selectHours = `SELECT hour, product_id, sum(units)::bigint, sum(revenue)::text, sum(orders)::bigint FROM sales_hours
		WHERE hour >= $1 AND hour < $2 AND (hour, product_id) > ($3, $4)
		GROUP BY hour, product_id HAVING sum(orders) > 0 ORDER BY hour, product_id LIMIT $5`
	selectDay = `SELECT $1::timestamptz, product_id, sum(units)::bigint, sum(revenue)::text, sum(orders)::bigint FROM sales_hours
		WHERE hour >= $1 AND hour < $2 AND product_id > $3
		GROUP BY product_id HAVING sum(orders) > 0 ORDER BY product_id LIMIT $4`
	selectNextHour = "SELECT min(hour) FROM sales_hours WHERE hour >= $1 AND hour < $2"
	// A look-up an hour, instead of a walk over all products of all hours.
	selectProduct = `SELECT date_bin($1, hour, 'epoch') AS bucket, product_id, sum(units)::bigint, sum(revenue)::text, sum(orders)::bigint
		FROM sales_hours WHERE product_id = $4 AND hour = ANY (ARRAY(
			SELECT h FROM (SELECT min(hour) AS first, max(hour) AS last FROM sales_hours) known
			CROSS JOIN generate_series(greatest($2::timestamptz, first), least($3::timestamptz - interval '1 hour', last), interval '1 hour') AS h
			WHERE first IS NOT NULL))
		GROUP BY bucket, product_id HAVING sum(orders) > 0 ORDER BY bucket LIMIT $5`
)

// SalesReport visits what was sold and not given back, in the bucket of the sale, in the order of engine.SaleKey: at most so
// many rows as the query's limit, all of one snapshot. more tells whether there are others behind them.
func (b *Books) SalesReport(ctx context.Context, q engine.SalesQuery, visit func(engine.Sale) error) (more bool, err error) {
	switch {
	case q.Bucket != engine.Hour && q.Bucket != engine.Day:
		return false, fmt.Errorf("%w: a bucket is an hour or a day", engine.ErrInvalid)
	case q.Limit < 1 || q.Limit > salesMax:
		return false, fmt.Errorf("%w: limit must be 1 to %d", engine.ErrInvalid, salesMax)
	}
	b.warnBehind(ctx, b.progress.awaitAll(ctx))
	r := newSalesReport(q, visit)
	err = pgx.BeginTxFunc(ctx, b.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return r.read(ctx, tx)
	})
	if r.stopped != nil {
		return false, r.stopped
	}
	if err != nil {
		return false, unavailable("reading the sales", err)
	}
	return r.more, nil
}

// warnBehind logs that a report may lack what was answered just before it.
func (b *Books) warnBehind(ctx context.Context, err error) {
	if err != nil && ctx.Err() == nil {
		b.log.Warn("a report shows the books as they stand: what was answered just before it may be missing", "error", err)
	}
}

// nextBucket returns the first start of a bucket that is not before a time.
func nextBucket(t time.Time, size time.Duration) time.Time {
	start := t.UTC().Truncate(size)
	if start.Before(t) {
		start = start.Add(size)
	}
	return start
}

// salesReport is one that is being read.
type salesReport struct {
	engine.SalesQuery
	size     time.Duration // of a bucket
	from, to time.Time     // starts of buckets
	visit    func(engine.Sale) error
	rows     int // visited
	more     bool
	stopped  error // by visit
}

// endOfTime is later than any sale.
var endOfTime = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

func newSalesReport(q engine.SalesQuery, visit func(engine.Sale) error) *salesReport {
	r := &salesReport{SalesQuery: q, size: time.Duration(q.Bucket), to: endOfTime, visit: visit}
	if q.From != nil {
		r.from = nextBucket(*q.From, r.size)
	}
	if q.To != nil && q.To.Before(r.to) {
		r.to = nextBucket(*q.To, r.size)
	}
	if q.After.Bucket.After(r.from) {
		r.from = q.After.Bucket
	}
	return r
}

func (r *salesReport) read(ctx context.Context, tx pgx.Tx) error {
	switch {
	case r.ProductID != 0:
		return r.readProduct(ctx, tx)
	case r.Bucket == engine.Hour:
		return r.readHours(ctx, tx)
	}
	return r.readDays(ctx, tx)
}

func (r *salesReport) readHours(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, inOrder); err != nil {
		return err
	}
	return r.rowsOf(ctx, tx, selectHours, r.from, r.to, r.After.Bucket, r.After.ProductID, r.left())
}

// readProduct reads the buckets of one product.
func (r *salesReport) readProduct(ctx context.Context, tx pgx.Tx) error {
	from := r.from
	if r.After.Bucket.Equal(from) && r.ProductID <= r.After.ProductID {
		from = from.Add(r.size)
	}
	return r.rowsOf(ctx, tx, selectProduct, r.size, from, r.to, r.ProductID, r.left())
}

// readDays reads day by day, and passes over days on which nothing was sold: rows stand hour by hour, and all hours of a
// day must be read before its first row is known.
func (r *salesReport) readDays(ctx context.Context, tx pgx.Tx) error {
	for from := r.from; !r.more; from = from.Add(r.size) {
		var hour *time.Time
		if err := tx.QueryRow(ctx, selectNextHour, from, r.to).Scan(&hour); err != nil || hour == nil {
			return err
		}
		from = hour.UTC().Truncate(r.size)
		after := int64(0)
		if from.Equal(r.After.Bucket) {
			after = r.After.ProductID
		}
		if err := r.rowsOf(ctx, tx, selectDay, from, from.Add(r.size), after, r.left()); err != nil {
			return err
		}
	}
	return nil
}

// left is how many rows to ask for: one more than may be visited, which tells whether there are more.
func (r *salesReport) left() int { return r.Limit - r.rows + 1 }

// rowsOf visits the rows of a statement.
func (r *salesReport) rowsOf(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
	found, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if r.rows == r.Limit {
			r.more = true
			return nil
		}
		var s engine.Sale
		if err := found.Scan(&s.Bucket, &s.ProductID, &s.Units, &s.Revenue, &s.Orders); err != nil {
			return err
		}
		s.Bucket = s.Bucket.UTC()
		if r.stopped = r.visit(s); r.stopped != nil {
			return r.stopped
		}
		r.rows++
	}
	return found.Err()
}

// selectLedger does not name the partition, in which all postings of a user are: by it the planner would walk through
// everybody's.
const selectLedger = `SELECT epoch, seq, at, kind, amount, balance_after, ref_id FROM balance_ledger
	WHERE user_id = $1 AND (epoch, seq) < ($2, $3) ORDER BY epoch DESC, seq DESC LIMIT $4`

// newest is behind every position.
var newest = engine.Position{Epoch: math.MaxInt64, Seq: math.MaxInt64}

// Ledger returns the changes of a user's balance before a position, newest first (before the zero position: from the
// newest on), and whether there are more.
func (b *Books) Ledger(ctx context.Context, user int64, before engine.Position, limit int) (postings []engine.Posting, more bool, err error) {
	if limit < 1 || limit > ledgerMax {
		return nil, false, fmt.Errorf("%w: limit must be 1 to %d", engine.ErrInvalid, ledgerMax)
	}
	if user < 1 || user > engine.IDMax {
		return nil, false, engine.ErrUserNotFound
	}
	b.warnBehind(ctx, b.progress.await(ctx, b.engine.Keys().OfUser(user)))
	if before == (engine.Position{}) {
		before = newest
	}
	if postings, err = readLedger(ctx, b.pool, user, before, limit+1); err != nil {
		return nil, false, unavailable("reading the ledger", err)
	}
	if len(postings) == 0 {
		// Most who are asked about have postings: only where none is found it matters whether there is such a user.
		if _, err := b.User(ctx, user); err != nil {
			return nil, false, err
		}
	}
	if len(postings) > limit {
		return postings[:limit], true, nil
	}
	return postings, false, nil
}

func readLedger(ctx context.Context, q querier, user int64, before engine.Position, limit int) ([]engine.Posting, error) {
	found, err := q.Query(ctx, selectLedger, user, before.Epoch, before.Seq, limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(found, scanPosting)
}

func scanPosting(row pgx.CollectableRow) (p engine.Posting, err error) {
	err = row.Scan(&p.Position.Epoch, &p.Position.Seq, &p.At, &p.Kind, &p.Amount, &p.BalanceAfter, &p.RefID)
	p.At = p.At.UTC()
	return p, err
}

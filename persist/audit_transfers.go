package persist

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// Every unit that came from another partition left it: the row that says so is named by its partition, epoch, seq and product.
// Of those from a share to another one at most is under way.
var (
	receivedWasSent = tableCheck{
		checkTransfers, `
		SELECT 'stock_ledger partition=' || r.partition || ' epoch=' || r.epoch || ' seq=' || r.seq || ' product_id=' || r.product_id,
			'received ' || r.delta || ' units by event ' || r.sent_epoch || '-' || r.sent_seq || ' of partition ' || r.peer || ', which '
				|| CASE WHEN times > 1 THEN 'others received, too' WHEN s.seq IS NULL THEN 'sent none'
				ELSE 'sent ' || -s.delta || ' to partition ' || s.peer END
		FROM (SELECT *, count(*) OVER (PARTITION BY peer, sent_epoch, sent_seq, product_id) AS times FROM stock_ledger WHERE kind = 'received') r
		LEFT JOIN (SELECT * FROM stock_ledger WHERE kind = 'sent') s
			ON s.partition = r.peer AND s.epoch = r.sent_epoch AND s.seq = r.sent_seq AND s.product_id = r.product_id
		WHERE times > 1 OR s.seq IS NULL OR s.delta <> -r.delta OR s.peer IS DISTINCT FROM r.partition`,
		func(n *counts, _ *Summary) int64 { return n.stocks },
	}
	oneUnderWay = tableCheck{
		checkTransfers, `
		SELECT 'stock_ledger partition=' || s.partition || ' product_id=' || s.product_id, count(*) || ' transfers to partition ' || s.peer
			|| ' are under way, ' || sum(-s.delta) || ' units in all' ` + openTransfers + ` GROUP BY s.partition, s.product_id, s.peer HAVING count(*) > 1`,
		func(*counts, *Summary) int64 { return 0 },
	}
)

// lentOrRecalled makes sure that what moved, moved between the product's home and another partition.
func (a *audit) lentOrRecalled(p int, events []event) {
	for _, e := range events {
		if e.Kind != engine.Moved || e.at.Epoch < a.layouts.now().first {
			continue // products had other homes
		}
		a.looked(checkTransfers, 1)
		if home := a.keys.Home(e.ProductID); (p == home) == (e.Peer == home) {
			a.violated(checkTransfers, fmt.Sprintf("stock_ledger partition=%d epoch=%d seq=%d product_id=%d", p, e.at.Epoch, e.at.Seq, e.ProductID),
				"moved between partitions %d and %d, the product's home is %d", p, e.Peer, home)
		}
	}
}

// transfers compares the records of transfers in Redis with the ledger, and what is said to be moving with the records.
func (a *audit) transfers(ctx context.Context) error {
	// With one partition there is no record, and nothing may be said to be on its way.
	for after, more, done := int64(0), a.keys.Partitions() > 1, int64(0); more; {
		var err error
		if after, more, err = a.someTransfers(ctx, after); err != nil {
			return err
		}
		done += int64(a.chunk)
		a.progress(Progress{"transfers", min(done, a.sum.Products), a.sum.Products})
	}
	for p := range a.keys.Partitions() {
		if a.doors[p].skip {
			continue
		}
		for cursor, more := uint64(0), true; more; more = cursor != 0 {
			var err error
			if cursor, err = a.someMoving(ctx, p, cursor); err != nil {
				return err
			}
		}
	}
	return nil
}

// someTransfers compares the records of a chunk of products.
func (a *audit) someTransfers(ctx context.Context, after int64) (last int64, more bool, err error) {
	rows, _ := a.books.pool.Query(ctx, "SELECT id FROM products WHERE id > $1 ORDER BY id LIMIT $2", after, a.chunk) // CollectRows tells the error
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		return after, false, fmt.Errorf("reading products: %w", err)
	}
	if len(ids) == 0 {
		return after, false, nil
	}
	for p := range a.keys.Partitions() {
		if a.doors[p].skip {
			continue
		}
		if err := a.transfersAgree(ctx, p, ids); err != nil {
			return after, false, err
		}
	}
	return ids[len(ids)-1], len(ids) == a.chunk, nil
}

// lane is what goes one way: a product with the peer to or from which it goes.
type lane struct {
	product int64
	peer    int
}

// booked is what stands in a lane.
type booked struct {
	id    engine.Position
	units int64
}

// transfersAgree compares the records of some products in a partition with the ledger. What is open in the books when they
// have come so far was open in Redis: only what they hold as received is settled there. What stands open in Redis may be
// settled only later, but must have been sent.
func (a *audit) transfersAgree(ctx context.Context, p int, products []int64) error {
	keys := make([]string, len(products))
	for i, id := range products {
		keys[i] = a.keys.Transfers(p, id)
	}
	values, at, err := a.held(ctx, p, keys)
	if err != nil {
		return err
	}
	a.looked(checkRTransfers, int64(len(keys)))
	out, in, some := map[lane]booked{}, map[lane]booked{}, []int64(nil)
	for i, id := range products {
		record, err := engine.DecodeTransfers(values[i])
		if err != nil {
			a.violated(checkRTransfers, keys[i], "%v", err)
			continue
		}
		some = append(some, id)
		for _, o := range record.Out {
			out[lane{id, o.Peer}] = booked{o.ID, o.Units}
		}
		for _, n := range record.In {
			in[lane{id, n.Peer}] = booked{id: n.ID}
		}
	}
	if err := a.passed(ctx, p, at.Mark); err != nil {
		return err
	}
	came, err := a.lanes(ctx, `SELECT DISTINCT ON (product_id, peer) product_id, peer, sent_epoch, sent_seq, 0 FROM stock_ledger
		WHERE kind = 'received' AND product_id = ANY($1) AND partition = $2 AND (epoch, seq) <= ($3, $4) AND `+thisLayout+`
		ORDER BY product_id, peer, sent_epoch DESC, sent_seq DESC`, some, p, at.Epoch, at.Seq)
	if err != nil {
		return err
	}
	a.lanesAgree(p, "came last from", in, came)
	open, err := a.lanes(ctx, "SELECT s.product_id, s.peer, s.epoch, s.seq, -s.delta"+openTransfers+
		" AND s.product_id = ANY($1) AND s.partition = $2 AND (s.epoch, s.seq) <= ($3, $4)", some, p, at.Epoch, at.Seq)
	if err != nil {
		return err
	}
	var ways []lane
	rest := map[lane]booked{} // received by now, and not settled
	for way, stands := range out {
		ways = append(ways, way)
		if open[way] != stands {
			rest[way] = stands
			delete(out, way)
		}
	}
	a.lanesAgree(p, "is under way to", out, open)
	sent, err := a.sentAs(ctx, p, rest)
	if err != nil {
		return err
	}
	a.lanesAgree(p, "is under way to", rest, sent)
	return a.areMoving(ctx, p, ways)
}

// lanes reads what the books say of some lanes.
func (a *audit) lanes(ctx context.Context, sql string, args ...any) (map[lane]booked, error) {
	rows, err := a.books.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading transfers: %w", err)
	}
	found := map[lane]booked{}
	var way lane
	var b booked
	_, err = pgx.ForEachRow(rows, []any{&way.product, &way.peer, &b.id.Epoch, &b.id.Seq, &b.units}, func() error {
		found[way] = b
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading transfers: %w", err)
	}
	return found, nil
}

// sentAs reads of what is said to be under way from a partition what the books say that was sent.
func (a *audit) sentAs(ctx context.Context, p int, of map[lane]booked) (map[lane]booked, error) {
	if len(of) == 0 {
		return nil, nil //nolint:nilnil // nothing of nothing
	}
	var products, epochs, seqs []int64
	for way, b := range of {
		products, epochs, seqs = append(products, way.product), append(epochs, b.id.Epoch), append(seqs, b.id.Seq)
	}
	return a.lanes(ctx, `SELECT product_id, peer, epoch, seq, -delta FROM stock_ledger
		JOIN unnest($2::bigint[], $3::bigint[], $4::bigint[]) AS n(product_id, epoch, seq) USING (product_id, epoch, seq)
		WHERE partition = $1 AND kind = 'sent'`, p, products, epochs, seqs)
}

// lanesAgree compares what stands in Redis of a partition with the books.
func (a *audit) lanesAgree(p int, what string, held, books map[lane]booked) {
	differ := func(way lane) {
		say := func(of map[lane]booked) string {
			b, found := of[way]
			switch {
			case !found:
				return "nothing"
			case b.units == 0:
				return "transfer " + b.id.String()
			}
			return fmt.Sprintf("transfer %v of %d units", b.id, b.units)
		}
		a.violated(checkRTransfers, a.keys.Transfers(p, way.product), "says that %s %s partition %d, the books say %s", say(held), what, way.peer, say(books))
	}
	for way, b := range held {
		if books[way] != b {
			differ(way)
		}
	}
	for way := range books {
		if _, found := held[way]; !found {
			differ(way)
		}
	}
}

// areMoving makes sure that lanes are among those that move just when something is under way in them. Both are read at one
// instant, whatever they were before.
func (a *audit) areMoving(ctx context.Context, p int, ways []lane) error {
	if len(ways) == 0 {
		return nil
	}
	keys, members := make([]string, len(ways)), make([]string, len(ways))
	for i, way := range ways {
		keys[i], members[i] = a.keys.Transfers(p, way.product), engine.Moving(way.product, way.peer)
	}
	var records, scores *redis.SliceCmd
	_, err := a.at(ctx, p, func(pipe redis.Pipeliner) {
		records = pipe.MGet(ctx, keys...)
		args := []any{"ZMSCORE", a.keys.Moving(p)}
		for _, m := range members {
			args = append(args, m)
		}
		scores = redis.NewSliceCmd(ctx, args...) // ZMScore gives 0 for a missing member
		_ = pipe.Process(ctx, scores)
	})
	if err != nil {
		return err
	}
	a.looked(checkRTransfers, int64(len(ways)))
	for i, way := range ways {
		record, err := engine.DecodeTransfers(records.Val()[i])
		if err != nil {
			continue // transfersAgree names it
		}
		leaves := false
		for _, o := range record.Out {
			leaves = leaves || o.Peer == way.peer
		}
		if moves := scores.Val()[i] != nil; moves != leaves {
			a.violated(checkRTransfers, a.keys.Moving(p), "%s stands there: %v, %s has something under way to partition %d: %v",
				members[i], moves, keys[i], way.peer, leaves)
		}
	}
	return nil
}

// someMoving compares a page of what is said to be moving, from a rank on, and returns where the next begins; 0: there is none. It
// goes by ranks because the user of a sale may not scan.
func (a *audit) someMoving(ctx context.Context, p int, from uint64) (next uint64, err error) {
	first := int64(from) //nolint:gosec // a rank
	page, err := a.redis.ZRange(ctx, a.keys.Moving(p), first, first+int64(a.chunk)-1).Result()
	if err != nil {
		return 0, fmt.Errorf("reading from Redis: %w", err)
	}
	if len(page) == a.chunk {
		next = from + uint64(len(page))
	}
	var ways []lane
	for _, member := range page {
		product, peer, _ := strings.Cut(member, ":")
		id, err1 := strconv.ParseInt(product, 10, 64)
		n, err2 := strconv.Atoi(peer)
		if err1 != nil || err2 != nil || engine.Moving(id, n) != member {
			a.violated(checkRTransfers, a.keys.Moving(p), "holds %q, which is no transfer", member)
			continue
		}
		ways = append(ways, lane{id, n})
	}
	return next, a.areMoving(ctx, p, ways)
}

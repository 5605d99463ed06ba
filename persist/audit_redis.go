package persist

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// holding is a user or product as the tables have it.
type holding struct {
	id      int64
	amount  int64 // balance or stock
	inRedis bool  // false: it may still be on its way there
}

// balances compares every balance in Redis with Postgres.
func (a *audit) balances(ctx context.Context) error {
	return a.holdings(ctx, "SELECT id, balance, in_redis FROM users WHERE id > $1 ORDER BY id LIMIT $2",
		func(chunk []holding) error {
			byPartition := make([][]holding, a.keys.Partitions())
			for _, h := range chunk {
				p := a.keys.OfUser(h.id)
				byPartition[p] = append(byPartition[p], h)
			}
			for p, part := range byPartition {
				if err := a.same(ctx, p, part, "balance", a.keys.Balance, lastBalances); err != nil {
					return err
				}
			}
			return nil
		})
}

// stocks compares every share in Redis with Postgres: all stock lies in the home partition.
func (a *audit) stocks(ctx context.Context) error {
	return a.holdings(ctx, "SELECT id, stock, in_redis FROM products WHERE id > $1 ORDER BY id LIMIT $2",
		func(chunk []holding) error {
			for p := range a.keys.Partitions() {
				part := make([]holding, len(chunk))
				for i, h := range chunk {
					if part[i] = h; a.keys.Home(h.id) != p {
						part[i].amount = 0
					}
				}
				if err := a.same(ctx, p, part, "stock", a.keys.Stock, lastStocks); err != nil {
					return err
				}
			}
			return nil
		})
}

func (a *audit) holdings(ctx context.Context, sql string, visit func([]holding) error) error {
	for after := int64(0); ; {
		rows, err := a.snapshot.Query(ctx, sql, after, auditChunk)
		if err != nil {
			return err
		}
		chunk, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h holding, err error) {
			err = row.Scan(&h.id, &h.amount, &h.inRedis)
			return h, err
		})
		if err != nil || len(chunk) == 0 {
			return err
		}
		after = chunk[len(chunk)-1].id
		if err := visit(chunk); err != nil {
			return err
		}
	}
}

// What the ledgers say of some holdings as of a position.
const (
	lastBalances = `SELECT DISTINCT ON (user_id) user_id, balance_after FROM balance_ledger
		WHERE partition = $1 AND user_id = ANY($2) AND (epoch, seq) <= ($3, $4) ORDER BY user_id, epoch DESC, seq DESC`
	lastStocks = `SELECT DISTINCT ON (product_id) product_id, stock_after FROM stock_ledger
		WHERE partition = $1 AND product_id = ANY($2) AND (epoch, seq) <= ($3, $4) ORDER BY product_id, epoch DESC, seq DESC`
)

// same compares amounts in Redis with the tables. On a running shop the two are read at different positions: what
// differs is judged by the ledger as of the position at which Redis was read, once the writer has passed it.
func (a *audit) same(ctx context.Context, p int, want []holding, what string, key func(int, int64) string, last string) error {
	if len(want) == 0 {
		return nil
	}
	keys := make([]string, len(want))
	for i, h := range want {
		keys[i] = key(p, h.id)
	}
	values, at, err := a.held(ctx, p, keys)
	if err != nil {
		return err
	}
	differ := map[int64]string{}
	var ids []int64
	for i, h := range want {
		text, found := values[i].(string)
		if !found && !h.inRedis {
			continue
		}
		if text != strconv.FormatInt(h.amount, 10) {
			differ[h.id] = text
			ids = append(ids, h.id)
		}
	}
	if len(ids) == 0 {
		return nil
	}
	if err := a.passed(ctx, p, at.Mark); err != nil {
		return err
	}
	ledger, err := a.ledger(ctx, last, p, ids, at.Position)
	if err != nil {
		return err
	}
	for _, id := range ids {
		if text := differ[id]; text != strconv.FormatInt(ledger[id], 10) {
			if text == "" {
				text = "missing"
			}
			a.violated(what+" in Redis = Postgres", key(p, id), "is %s, the ledger says %d at %v", text, ledger[id], at.Position)
		}
	}
	return nil
}

// ledger reads outside the snapshot, which may be older than the position.
func (a *audit) ledger(ctx context.Context, sql string, p int, ids []int64, at engine.Position) (map[int64]int64, error) {
	rows, err := a.books.pool.Query(ctx, sql, p, ids, at.Epoch, at.Seq)
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", err)
	}
	amounts := map[int64]int64{}
	var id, amount int64
	_, err = pgx.ForEachRow(rows, []any{&id, &amount}, func() error {
		amounts[id] = amount
		return nil
	})
	return amounts, err
}

package persist

import (
	"context"
	"errors"
	"fmt"
	"math"
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

const (
	selectBalances = "SELECT id, balance, in_redis FROM users WHERE id > $1 ORDER BY id LIMIT $2"
	selectStocks   = "SELECT id, stock, in_redis FROM products WHERE id > $1 ORDER BY id LIMIT $2"
)

// balances compares every balance in Redis with Postgres.
func (a *audit) balances(ctx context.Context) error {
	return a.holdings(ctx, "balances", a.sum.Users, selectBalances, a.balancesAgree)
}

// stocks compares every share in Redis with Postgres.
func (a *audit) stocks(ctx context.Context) error {
	if a.keys.Partitions() > 1 {
		return a.shares(ctx)
	}
	return a.holdings(ctx, "products", a.sum.Products, selectStocks, a.stocksAgree)
}

func (a *audit) holdings(ctx context.Context, step string, total int64, sql string, agree func(context.Context, []checkpoint, []holding) error) error {
	for after, done := int64(0), int64(0); ; {
		books, chunk, err := a.someHoldings(ctx, sql, after, a.chunk)
		if err != nil || len(chunk) == 0 {
			return err
		}
		after, done = chunk[len(chunk)-1].id, done+int64(len(chunk))
		if err := agree(ctx, books, chunk); err != nil {
			return err
		}
		a.progress(Progress{step, done, total})
	}
}

// someHoldings reads a chunk, with the checkpoints of the same snapshot. It is no older than it must be: what changes
// between it and Redis has to be followed.
func (a *audit) someHoldings(ctx context.Context, sql string, after int64, limit int) (books []checkpoint, chunk []holding, err error) {
	err = pgx.BeginTxFunc(ctx, a.books.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, sql, after, limit)
		if err != nil {
			return err
		}
		chunk, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (h holding, err error) {
			err = row.Scan(&h.id, &h.amount, &h.inRedis)
			return h, err
		})
		if err != nil {
			return err
		}
		books, err = readCheckpoints(ctx, tx)
		books = books[:min(len(books), a.keys.Partitions())]
		return err
	})
	if err == nil && len(books) != a.keys.Partitions() {
		err = fmt.Errorf("%d checkpoints of %d partitions", len(books), a.keys.Partitions())
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading users and products: %w", err)
	}
	return books, chunk, nil
}

// readCheckpoints returns all, also those of partitions that only earlier layouts had.
func readCheckpoints(ctx context.Context, q querier) ([]checkpoint, error) {
	rows, err := q.Query(ctx, "SELECT epoch, seq, events, bytes, fence FROM checkpoints ORDER BY partition")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (c checkpoint, err error) {
		err = row.Scan(&c.Epoch, &c.Seq, &c.events, &c.bytes, &c.fence)
		return c, err
	})
}

// balancesAgree compares the balances of some users with Redis.
func (a *audit) balancesAgree(ctx context.Context, books []checkpoint, chunk []holding) error {
	byPartition := make([][]holding, a.keys.Partitions())
	for _, h := range chunk {
		a.users.add(h.id)
		p := a.keys.OfUser(h.id)
		byPartition[p] = append(byPartition[p], h)
	}
	for p, part := range byPartition {
		if err := a.same(ctx, p, books[p], part, checkRBalances, a.keys.Balance, balanceAfter); err != nil {
			return err
		}
	}
	return nil
}

// stocksAgree compares the stocks of some products with Redis. With several partitions they are sums.
func (a *audit) stocksAgree(ctx context.Context, books []checkpoint, chunk []holding) error {
	for _, h := range chunk {
		a.products.add(h.id)
	}
	if a.keys.Partitions() > 1 {
		return a.sumsAgree(ctx, books, chunk)
	}
	return a.same(ctx, 0, books[0], chunk, checkRStocks, a.keys.Stock, stockAfter)
}

// after tells what an event left, by user or product.
type after func(e *engine.Event, tell func(id, amount int64))

func balanceAfter(e *engine.Event, tell func(id, amount int64)) {
	switch e.Kind {
	case engine.Stepped:
		if e.Balance != engine.BalanceUntouched {
			tell(e.UserID, e.Balance)
		}
	case engine.Ordered, engine.Credited:
		tell(e.UserID, e.Balance)
	}
}

func stockAfter(e *engine.Event, tell func(id, amount int64)) {
	switch e.Kind {
	case engine.Restocked, engine.Moved:
		tell(e.ProductID, e.Stock)
	case engine.Ordered, engine.Stepped:
		for i, stock := range e.StocksAfter {
			tell(e.Order.Items[i].ProductID, stock)
		}
	}
}

// same compares amounts in Redis with the tables. On a running shop the two are read at different positions: what differs
// must differ by the events between them.
func (a *audit) same(ctx context.Context, p int, books checkpoint, want []holding, check string, key func(int, int64) string, after after) error {
	if len(want) == 0 || a.doors[p].skip {
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
	a.looked(check, int64(len(keys)))
	held, amounts := map[int64]string{}, map[int64]int64{} // of those that differ
	for i, h := range want {
		text, found := values[i].(string)
		if !found && !h.inRedis {
			continue
		}
		if text != strconv.FormatInt(h.amount, 10) {
			held[h.id], amounts[h.id] = text, h.amount
		}
	}
	if len(held) == 0 {
		return nil
	}
	err = a.follow(ctx, p, books, at.Mark, func(e *engine.Event) {
		after(e, func(id, amount int64) {
			if _, asked := amounts[id]; asked {
				amounts[id] = amount
			}
		})
	})
	if err != nil {
		return err
	}
	for id, amount := range amounts {
		if text := held[id]; text != strconv.FormatInt(amount, 10) {
			if text == "" {
				text = "missing"
			}
			a.violated(check, key(p, id), "is %s, the books say %d at %v", text, amount, at.Position)
		}
	}
	return nil
}

// followMax is how many events a comparison of a whole audit follows from the books to Redis.
const followMax = 1_000_000

// follow visits the events between where the books were read and where Redis was.
func (a *audit) follow(ctx context.Context, p int, from checkpoint, to engine.Mark, visit func(*engine.Event)) error {
	switch {
	case to.Events < from.events:
		return errTurned
	case to.Events-from.events > a.followed:
		return fmt.Errorf("the writer of partition %d is %d events behind", p, to.Events-from.events)
	case to.Events == from.events:
		return nil
	}
	if err := a.passed(ctx, p, to); err != nil {
		return err
	}
	return a.behind(ctx, a.books.pool, p, from.Position, to.Position, visit)
}

// endOfJournal is behind every position.
var endOfJournal = engine.Position{Epoch: math.MaxInt64}

// behind visits the events of the journal from behind one position up to another. What cannot be read is left out: the
// walk over the journal names it.
func (a *audit) behind(ctx context.Context, q querier, p int, from, to engine.Position, visit func(*engine.Event)) error {
	for {
		entries, err := journal(ctx, q, p, from, streamChunk)
		if err != nil {
			return err
		}
		for i := range entries {
			if entries[i].Last.Compare(to) > 0 {
				return nil
			}
			events, err := entries[i].Events()
			if errors.Is(err, engine.ErrNewer) {
				return err
			}
			for j := range events {
				visit(&events[j])
			}
			from = entries[i].Last
		}
		if len(entries) < streamChunk {
			return nil
		}
	}
}

package persist

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// catalogue compares every product's record in each partition of Redis with Postgres.
func (a *audit) catalogue(ctx context.Context) error {
	for after, done := int64(0), int64(0); ; {
		last, n, err := a.someListed(ctx, after)
		if err != nil {
			return err
		}
		if n == 0 {
			return a.highest(ctx)
		}
		after, done = last, done+int64(n)
		a.progress(Progress{"catalogue", done, a.sum.Products})
	}
}

// someListed compares a chunk of products, and returns the last and how many they are.
func (a *audit) someListed(ctx context.Context, after int64) (last int64, n int, err error) {
	chunk, err := a.listed(ctx, " WHERE id > $1 ORDER BY id LIMIT $2", after, a.chunk)
	if err != nil || len(chunk) == 0 {
		return after, 0, err
	}
	return chunk[len(chunk)-1].ID, len(chunk), a.catalogueAgrees(ctx, chunk)
}

// listed is a product as Postgres has it.
type listed struct {
	engine.Product
	inRedis bool // in this version
}

func (a *audit) listed(ctx context.Context, conditions string, args ...any) ([]listed, error) {
	rows, err := a.books.pool.Query(ctx, "SELECT id, name, price, version, created_at, in_redis FROM products"+conditions, args...)
	if err != nil {
		return nil, fmt.Errorf("reading products: %w", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (l listed, err error) {
		err = row.Scan(&l.ID, &l.Name, &l.Price, &l.Version, &l.CreatedAt, &l.inRedis)
		return l, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading products: %w", err)
	}
	return found, nil
}

func (a *audit) catalogueAgrees(ctx context.Context, chunk []listed) error {
	for p := range a.keys.Partitions() {
		if a.doors[p].skip {
			continue
		}
		keys := make([]string, len(chunk))
		for i, l := range chunk {
			keys[i] = a.keys.Catalogue(p, l.ID)
		}
		found, _, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		a.looked(checkRCatalogue, int64(len(keys)))
		suspects, ids := map[int64]string{}, []int64(nil)
		for i, l := range chunk {
			if record, _ := found[i].(string); record != engine.CatalogueRecord(l.Product) {
				suspects[l.ID] = record
				ids = append(ids, l.ID)
			}
		}
		if len(ids) == 0 {
			continue
		}
		before := map[int64]listed{}
		for _, l := range chunk {
			before[l.ID] = l
		}
		if err := a.changed(ctx, p, ids, suspects, before); err != nil {
			return err
		}
	}
	return nil
}

// changed judges records that are not what Postgres had before them. A change is written there first: the record is
// that of a version between what it had before and what it has now.
func (a *audit) changed(ctx context.Context, p int, ids []int64, records map[int64]string, before map[int64]listed) error {
	now, err := a.listed(ctx, " WHERE id = ANY($1)", ids)
	if err != nil {
		return err
	}
	for _, l := range now {
		record, was := records[l.ID], before[l.ID]
		version := engine.CatalogueVersion(record)
		switch {
		case record == engine.CatalogueRecord(l.Product), !was.inRedis && version < was.Version: // or still on its way
		case was.Version < version && version < l.Version: // between the two
		case record == "":
			a.violated(checkRCatalogue, a.keys.Catalogue(p, l.ID), "is missing")
		default:
			a.violated(checkRCatalogue, a.keys.Catalogue(p, l.ID), "is %q, the books say %q", record, engine.CatalogueRecord(l.Product))
		}
	}
	return nil
}

// highest compares the highest product id of each partition.
func (a *audit) highest(ctx context.Context) error {
	for p := range a.keys.Partitions() {
		if a.doors[p].skip {
			continue
		}
		var before, after int64
		const highest = "SELECT coalesce(max(id), 0) FROM products"
		err := a.books.pool.QueryRow(ctx, highest+" WHERE in_redis").Scan(&before)
		var found *redis.SliceCmd
		if err == nil {
			_, err = a.at(ctx, p, func(pipe redis.Pipeliner) { found = pipe.MGet(ctx, a.keys.Listed(p)) })
		}
		if err == nil {
			err = a.books.pool.QueryRow(ctx, highest).Scan(&after)
		}
		if err != nil {
			return err
		}
		text, _ := found.Val()[0].(string)
		id, err := strconv.ParseInt(text, 10, 64)
		if (err != nil || id < before || id > after) && (text != "" || before > 0) {
			a.violated(checkRCatalogue, a.keys.Listed(p), "is %q, the highest product of the books is %d", text, after)
		}
	}
	return nil
}

package persist

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
)

// redisKeys compares what stands in Redis with the books, where the books may not know of it: the other way round the
// other steps go.
func (a *audit) redisKeys(ctx context.Context) error {
	s := a.newSorting()
	var mu sync.Mutex // masters are scanned side by side
	scan := func(ctx context.Context, server redis.Cmdable) error {
		for cursor, more := uint64(0), true; more; more = cursor != 0 {
			keys, next, err := scanKeys(ctx, server, cursor)
			if err != nil {
				return err
			}
			mu.Lock()
			err = s.sort(ctx, keys)
			mu.Unlock()
			if err != nil {
				return err
			}
			cursor = next
		}
		return nil
	}
	var err error
	if cluster, several := a.redis.(*redis.ClusterClient); several {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return scan(ctx, master) })
	} else {
		err = scan(ctx, a.redis)
	}
	if err != nil {
		return err
	}
	return s.flush(ctx)
}

// scanKeys returns a page of the keys of orders, carts, minutes, balances, shares, transfers and products of a server. A scan from
// cursor to cursor, 0 to 0, finds all that stand there all the while; some twice.
func scanKeys(ctx context.Context, server redis.Cmdable, cursor uint64) (keys []string, next uint64, err error) {
	keys, next, err = server.Scan(ctx, cursor, "*}[ocmbsvx]*", auditChunk).Result()
	if err != nil {
		return nil, 0, fmt.Errorf("scanning Redis: %w", err)
	}
	return keys, next, nil
}

// sorting sorts keys by kind and partition, and compares each kind as soon as there are many of it.
type sorting struct {
	audit       *audit
	kinds       []*redisKind
	partitionOf map[string]int // by hash tag
}

func (a *audit) newSorting() *sorting {
	s := &sorting{audit: a, partitionOf: map[string]int{}, kinds: []*redisKind{
		{name: "o:", compare: a.records},
		{name: "cart:", compare: a.strayCarts},
		{name: "m:", compare: a.strayMinutes},
		{name: "b:", compare: a.strays("users", a.users, a.keys.Balance)},
		{name: "s:", compare: a.strays("products", a.products, a.keys.Stock)},
		{name: "v:", compare: a.strays("products", a.products, a.keys.Grown)},
		{name: "x:", compare: a.strays("products", a.products, a.keys.Transfers)},
		{name: "w:", compare: a.strays("products", a.products, a.keys.Wanted)},
		{name: "c:", compare: a.strays("products", a.products, a.keys.Catalogue)},
	}}
	for p := range a.keys.Partitions() {
		tag, _, _ := strings.Cut(a.keys.Meta(p), "}")
		s.partitionOf[tag] = p
	}
	for _, k := range s.kinds {
		k.found = make([][]int64, a.keys.Partitions())
	}
	return s
}

func (s *sorting) sort(ctx context.Context, keys []string) error {
	for _, key := range keys {
		tag, rest, _ := strings.Cut(key, "}")
		p, known := s.partitionOf[tag]
		if !known || s.audit.doors[p].skip {
			continue
		}
		for _, k := range s.kinds {
			text, is := strings.CutPrefix(rest, k.name)
			if !is {
				continue
			}
			id, err := strconv.ParseInt(text, 10, 64)
			if err != nil {
				s.audit.violated(checkStray, key, "is none that Stampede writes")
			} else if err := k.add(ctx, p, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush compares what is left.
func (s *sorting) flush(ctx context.Context) error {
	for _, k := range s.kinds {
		for p := range k.found {
			if err := k.flush(ctx, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// strays makes sure that there is a user or product for each key of a kind. Those whose keys were compared are known.
func (a *audit) strays(table string, known idSet, key func(int, int64) string) func(context.Context, int, []int64) error {
	return func(ctx context.Context, p int, ids []int64) error {
		a.looked(checkStray, int64(len(ids)))
		ids = slices.DeleteFunc(ids, known.has)
		if len(ids) == 0 {
			return nil
		}
		// Users and products are written to Postgres first.
		rows, err := a.books.pool.Query(ctx, "SELECT id FROM unnest($1::bigint[]) AS k(id) WHERE NOT EXISTS (SELECT FROM "+table+" t WHERE t.id = k.id)", ids)
		if err != nil {
			return fmt.Errorf("reading %s: %w", table, err)
		}
		var id int64
		_, err = pgx.ForEachRow(rows, []any{&id}, func() error {
			a.violated(checkStray, key(p, id), "stands there, the table %s has no such row", table)
			return nil
		})
		return err
	}
}

// redisKind is a kind of key, named by what follows the hash tag, with those found of it that were not compared yet.
type redisKind struct {
	name    string
	compare func(ctx context.Context, partition int, ids []int64) error
	found   [][]int64 // by partition
}

func (k *redisKind) add(ctx context.Context, p int, id int64) error {
	if k.found[p] = append(k.found[p], id); len(k.found[p]) < auditChunk {
		return nil
	}
	return k.flush(ctx, p)
}

func (k *redisKind) flush(ctx context.Context, p int) error {
	ids := k.found[p]
	k.found[p] = nil
	if len(ids) == 0 {
		return nil
	}
	return k.compare(ctx, p, ids)
}

package persist

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// redisKeys compares what stands in Redis with the books, where the books may not know of it: the other way round the
// other steps go.
func (a *audit) redisKeys(ctx context.Context) error {
	kinds := []*redisKind{
		{name: "o:", compare: a.records},
		{name: "cart:", compare: a.strayCarts},
		{name: "m:", compare: a.strayMinutes},
	}
	partitionOf := map[string]int{}
	for p := range a.keys.Partitions() {
		tag, _, _ := strings.Cut(a.keys.Meta(p), "}")
		partitionOf[tag] = p
	}
	for _, k := range kinds {
		k.found = make([][]int64, a.keys.Partitions())
	}
	var mu sync.Mutex // masters are scanned side by side
	scan := func(ctx context.Context, server redis.Cmdable) error {
		return scanKeys(ctx, server, func(key string) error {
			mu.Lock()
			defer mu.Unlock()
			tag, rest, _ := strings.Cut(key, "}")
			p, known := partitionOf[tag]
			for _, k := range kinds {
				id, err := strconv.ParseInt(strings.TrimPrefix(rest, k.name), 10, 64)
				if known && strings.HasPrefix(rest, k.name) && err == nil {
					return k.add(ctx, p, id)
				}
			}
			return nil
		})
	}
	var err error
	if cluster, several := a.redis.(*redis.ClusterClient); several {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, master *redis.Client) error { return scan(ctx, master) })
	} else {
		err = scan(ctx, a.redis)
	}
	for _, k := range kinds {
		for p := range k.found {
			if err == nil {
				err = k.flush(ctx, p)
			}
		}
	}
	return err
}

// scanKeys visits the keys of orders, carts and minutes that stand on a server all the while; some twice.
func scanKeys(ctx context.Context, server redis.Cmdable, visit func(key string) error) error {
	for cursor := uint64(0); ; {
		keys, next, err := server.Scan(ctx, cursor, "*}[ocm]*", auditChunk).Result()
		if err != nil {
			return fmt.Errorf("scanning Redis: %w", err)
		}
		for _, key := range keys {
			if err := visit(key); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// redisKind is a kind of key, with those found of it that were not compared yet.
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

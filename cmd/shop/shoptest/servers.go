package shoptest

import (
	"context"
	"os"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"stampede/cmd/stack"
)

// Servers are all redis-servers of a shop: one, or the masters of a cluster. What befalls them befalls all together.
type Servers []stack.RedisNode

// Servers returns those of the shop.
func (s *Shop) Servers() Servers { return s.Stack.Redises() }

// HaltNow kills them, and keeps them down until Resume.
func (all Servers) HaltNow(ctx context.Context) error {
	return all.each(func(n stack.RedisNode) error { return n.HaltNow(ctx) })
}

// Resume starts them again, and returns when they take connections; a cluster may take some time longer to agree.
func (all Servers) Resume(ctx context.Context) error {
	return all.each(func(n stack.RedisNode) error { return n.Resume(ctx) })
}

// Restart kills them and starts them again.
func (all Servers) Restart(ctx context.Context) error {
	return all.each(func(n stack.RedisNode) error {
		if err := n.HaltNow(ctx); err != nil {
			return err
		}
		return n.Resume(ctx)
	})
}

// Signal sends sig to all.
func (all Servers) Signal(sig os.Signal) error {
	return all.each(func(n stack.RedisNode) error { return n.Signal(sig) })
}

func (all Servers) each(do func(stack.RedisNode) error) error {
	var group errgroup.Group
	for _, n := range all {
		group.Go(func() error { return do(n) })
	}
	return group.Wait()
}

// EachRedis does something with every redis-server of the shop that has keys: for commands that name none.
func (s *Shop) EachRedis(ctx context.Context, do func(ctx context.Context, c *redis.Client) error) error {
	switch c := s.Redis.(type) {
	case *redis.ClusterClient:
		return c.ForEachMaster(ctx, do)
	case *redis.Client:
		return do(ctx, c)
	}
	panic("neither one server nor a cluster")
}

// EmptyRedis forgets everything that Redis holds.
func (s *Shop) EmptyRedis(ctx context.Context) error {
	return s.EachRedis(ctx, func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() })
}

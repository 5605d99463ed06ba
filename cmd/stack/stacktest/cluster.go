package stacktest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"stampede/cmd/stack"
)

const (
	answerMax = time.Second // of a node that is well
	lookPause = 20 * time.Millisecond
	masters   = 3 // of every cluster that a stack runs
)

// Masters returns the nodes that serve slots, in the order of the slots, as soon as all nodes that answer agree who
// they are.
func Masters(t testing.TB, s *stack.Stack) []stack.RedisNode {
	t.Helper()
	return await(t, s, "all nodes agree who serves", func([]stack.RedisNode) bool { return true })
}

// AwaitPromotion waits until another node serves the slots that a master had which is down, and returns that.
func AwaitPromotion(t testing.TB, s *stack.Stack, down stack.RedisNode) stack.RedisNode {
	t.Helper()
	all := s.Redises()
	group := slices.IndexFunc(all, func(n stack.RedisNode) bool { return n.Addr == down.Addr }) % masters
	var promoted stack.RedisNode
	await(t, s, "another node serves the slots of "+down.Addr, func(serving []stack.RedisNode) bool {
		for i := group; i < len(all); i += masters {
			if all[i].Addr != down.Addr && slices.ContainsFunc(serving, func(n stack.RedisNode) bool { return n.Addr == all[i].Addr }) {
				promoted = all[i]
				return true
			}
		}
		return false
	})
	return promoted
}

// await returns who serves once all nodes agree and it is as wanted.
func await(t testing.TB, s *stack.Stack, what string, wanted func([]stack.RedisNode) bool) []stack.RedisNode {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	for {
		serving, err := agreed(ctx, s.Redises())
		if err == nil && wanted(serving) {
			return serving
		}
		select {
		case <-ctx.Done():
			t.Fatalf("never came true: %s (%v)", what, err)
		case <-time.After(lookPause):
		}
	}
}

// agreed asks every node, and returns what all that answer say.
func agreed(ctx context.Context, nodes []stack.RedisNode) ([]stack.RedisNode, error) {
	var all []string
	answers := 0
	for _, node := range nodes {
		if node.Pid() == 0 {
			continue
		}
		said, err := serving(ctx, node)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil:
			continue // it dies or hangs
		case answers > 0 && !slices.Equal(said, all):
			return nil, fmt.Errorf("%s says %v serve, others %v", node.Addr, said, all)
		}
		all = said
		answers++
	}
	if answers == 0 {
		return nil, errors.New("no node answers")
	}
	var found []stack.RedisNode
	for _, addr := range all {
		i := slices.IndexFunc(nodes, func(n stack.RedisNode) bool { return n.Addr == addr })
		if i < 0 {
			return nil, fmt.Errorf("%s serves, which is none of the stack's", addr)
		}
		found = append(found, nodes[i])
	}
	return found, nil
}

// serving are the addresses of the masters as one node knows them, in the order of their first slots.
func serving(ctx context.Context, node stack.RedisNode) (addrs []string, err error) {
	o, err := redis.ParseURL(node.URL)
	if err != nil {
		return nil, err
	}
	o.MaxRetries, o.DialerRetries, o.DialTimeout, o.ReadTimeout = -1, 1, answerMax, answerMax
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(o)
	defer func() { err = errors.Join(err, client.Close()) }()
	// CLUSTER SHARDS lists masters that failed as well, and for some no slots.
	slots, err := client.ClusterSlots(ctx).Result() //nolint:staticcheck // deprecated in favor of CLUSTER SHARDS
	if err != nil {
		return nil, err
	}
	slices.SortFunc(slots, func(a, b redis.ClusterSlot) int { return a.Start - b.Start })
	for _, of := range slots {
		if len(of.Nodes) > 0 && !slices.Contains(addrs, of.Nodes[0].Addr) {
			addrs = append(addrs, of.Nodes[0].Addr)
		}
	}
	return addrs, nil
}

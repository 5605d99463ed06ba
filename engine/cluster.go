package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// IsCluster reports whether a client of Connect speaks to a Redis Cluster.
func IsCluster(c redis.UniversalClient) bool {
	_, is := c.(*redis.ClusterClient)
	return is
}

// holder is the server that holds a partition. No other way leads there for a command without a key, and for commands
// that belong together on one connection.
func holder(ctx context.Context, c redis.UniversalClient, keys *Keys, partition int) (redis.UniversalClient, error) {
	cluster, is := c.(*redis.ClusterClient)
	if !is {
		return c, nil
	}
	master, err := cluster.MasterForKey(ctx, keys.Meta(partition))
	if err != nil {
		return nil, fmt.Errorf("%w: no node of the cluster tells its slots: %w", ErrUnavailable, err)
	}
	return master, nil
}

// server is one that holds partitions.
type server struct {
	redis.UniversalClient
	partitions []int
}

// servers are all that hold partitions: the one there is, or masters of a cluster.
func servers(ctx context.Context, c redis.UniversalClient, keys *Keys) ([]server, error) {
	var all []server
	for p := range keys.Partitions() {
		c, err := holder(ctx, c, keys, p)
		if err != nil {
			return nil, err
		}
		n := slices.IndexFunc(all, func(s server) bool { return s.UniversalClient == c })
		if n < 0 {
			n, all = len(all), append(all, server{UniversalClient: c})
		}
		all[n].partitions = append(all[n].partitions, p)
	}
	return all, nil
}

func (e *Engine) node(ctx context.Context, partition int) (redis.UniversalClient, error) {
	return holder(ctx, e.redis, e.keys, partition)
}

// InCluster reports whether partitions lie on several servers, of which one may fail without the others.
func (e *Engine) InCluster() bool { return IsCluster(e.redis) }

// reloadSlots has the client of a cluster read its slot map anew. A master that was left behind by a failover says nothing of
// it, and goes on answering.
func (e *Engine) reloadSlots(ctx context.Context) {
	if cluster, is := e.redis.(*redis.ClusterClient); is {
		cluster.ReloadState(ctx)
	}
}

// follow has the client of a cluster read its slot map anew whenever a node does not answer or turns a command away. By
// itself it does so only for a redirect, and would go on asking a master that died or froze.
func follow(cluster *redis.ClusterClient) {
	cluster.OnNewNode(func(node *redis.Client) { node.AddHook(follower{cluster}) })
}

// follower is a hook of each node's client.
type follower struct{ cluster *redis.ClusterClient }

// DialHook changes nothing: a connection that does not come about is the error of a command.
func (f follower) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook looks at how commands end.
func (f follower) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		f.ended(ctx, err)
		return err
	}
}

// ProcessPipelineHook looks at how pipelines end.
func (f follower) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		f.ended(ctx, err)
		return err
	}
}

func (f follower) ended(ctx context.Context, err error) {
	var reply redis.Error
	switch {
	case err == nil, errors.Is(err, context.Canceled):
	case errors.As(err, &reply) && !isPassing(reply):
	default:
		f.cluster.ReloadState(ctx) // in the background, and not more than once in a while
	}
}

// passing are the errors with which a cluster turns a call away before it runs, for as long as a slot or a master is
// on the move.
var passing = []string{"MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "READONLY"}

func isPassing(reply redis.Error) bool {
	for _, prefix := range passing {
		if strings.HasPrefix(reply.Error(), prefix) {
			return true
		}
	}
	return false
}

// A call that a cluster turned away is made again after 10, 20, 40, 80 and 160 ms. A failover takes longer: the others
// that wait for the partition had better be told.
const (
	retryFirst  = 10 * time.Millisecond
	retryFactor = 2
	retryMax    = 500 * time.Millisecond
)

// retries are those of one call.
type retries struct {
	until time.Time
	pause time.Duration
}

func (e *Engine) retries() retries {
	return retries{until: time.Now().Add(min(retryMax, e.cfg.OperationTimeout/2)), pause: retryFirst}
}

// again reports whether a call is to be made once more, after a pause in which the client reads its slot map: a cluster
// has certainly not executed it. A redirect is never followed. One to a slot that is being imported (ASK) ends where the
// partition is shut for its move, and the new master of one that has moved is told by the slot map.
func (e *Engine) again(ctx context.Context, r *retries, err error) bool {
	var reply redis.Error
	var dial *net.OpError
	switch {
	case err == nil || !e.InCluster() || time.Now().Add(r.pause).After(r.until):
		return false
	case errors.As(err, &reply):
		if !isPassing(reply) {
			return false
		}
	case !errors.As(err, &dial) || dial.Op != "dial":
		return false
	}
	timer := time.NewTimer(r.pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	}
	r.pause *= retryFactor
	return true
}

// repeat makes a call that is safe to repeat.
func (e *Engine) repeat(ctx context.Context, call func() error) error {
	for r := e.retries(); ; {
		if err := call(); !e.again(ctx, &r, err) {
			return err
		}
	}
}

package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"

	"stampede/lua"
)

// What is promised to be kept of what was answered.
const (
	DurabilityReplica  = "replica"  // everything, by a replica too
	DurabilityFsync    = "fsync"    // everything, on the disk of Redis
	DurabilityEverySec = "everysec" // everything but the last 2 s
	DurabilityNone     = "none"     // nothing in particular
	DurabilityUnknown  = "unknown"  // this user may not ask
)

// errNotReplicated says of a call that it was carried out, and may be lost again with the master.
var errNotReplicated = fmt.Errorf("%w: no replica has it yet", ErrUnknown)

// replicate makes a call and has the master wait, on the same connection, until a replica has everything that the master
// had written when it was done with the call: also what an earlier one wrote, where the call only repeats its answer. It
// reports false where none has in time.
func (e *Engine) replicate(ctx context.Context, node redis.UniversalClient, call redis.Cmder) bool {
	// For half as long as for the answer, which so comes in time in any case.
	replicas := redis.NewIntCmd(ctx, "wait", 1, (e.cfg.OperationTimeout / 2).Milliseconds())
	pipe := node.Pipeline()
	_ = errors.Join(pipe.Process(ctx, call), pipe.Process(ctx, replicas))
	_, _ = pipe.Exec(ctx) // each tells its own error
	return replicas.Err() == nil && replicas.Val() > 0
}

// RightsOfReplica are the commands that durability replica needs besides those of the scripts.
var RightsOfReplica = []string{"WAIT"}

// CheckReplicas makes sure that there are replicas to wait for. That a master has lost its own is no reason not to start:
// the others sell.
func CheckReplicas(ctx context.Context, c redis.UniversalClient, partitions int) error {
	keys, err := NewKeys(partitions)
	if err != nil {
		return err
	}
	all, err := servers(ctx, c, keys)
	if err != nil {
		return err
	}
	for _, s := range all {
		info, err := s.Info(ctx, "replication").Result()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !strings.Contains(info, "connected_slaves:0") {
			return nil
		}
	}
	return ErrNoReplica
}

// ErrNoReplica says that nothing which is sold now would have a replica.
var ErrNoReplica = errors.New("no master of this Redis has a replica")

// durability is what the engine promises of a partition. It asks the server how it keeps its data. A user who may not read the configuration, where passwords stand, does
// not learn it: nothing but the judgement of a loss depends on it.
func (e *Engine) durability(ctx context.Context, partition int) string {
	if e.cfg.Replica {
		return DurabilityReplica
	}
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	node, err := e.node(ctx, partition)
	if err != nil {
		return DurabilityUnknown
	}
	if may, err := run(ctx, node, lua.Tells, nil, nil); err != nil || may != int64(1) {
		return DurabilityUnknown
	}
	settings, err := node.ConfigGet(ctx, "append*").Result()
	switch {
	case err != nil:
		return DurabilityUnknown
	case settings["appendonly"] != "yes":
		return DurabilityNone
	case settings["appendfsync"] == "always":
		return DurabilityFsync
	case strings.HasPrefix(settings["appendfsync"], "everysec"):
		return DurabilityEverySec
	}
	return DurabilityNone
}

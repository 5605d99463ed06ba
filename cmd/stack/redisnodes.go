package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	clusterMasters = 3 // the fewest that can outvote a dead one
	replicasMax    = 5 // of a master

	// nodeTimeout is short for loopback, where an answer takes no time, and long for a
	// machine that is busy with a rush: a master that is doubted sells nothing.
	nodeTimeout         = 2500 * time.Millisecond
	shortestNodeTimeout = 100 * time.Millisecond

	nodesFile = "nodes.conf" // what a node knows of its cluster
)

// validateCluster refuses what cannot be meant.
func (o Options) validateCluster() error {
	switch {
	case o.RedisNodes != 0 && o.RedisNodes != 1 && o.RedisNodes != clusterMasters:
		return &ConfigError{
			What: fmt.Sprintf("%d Redis nodes", o.RedisNodes),
			Do:   fmt.Sprintf("take 1, or a cluster of %d", clusterMasters),
		}
	case o.RedisReplicas < 0 || o.RedisReplicas > replicasMax || o.RedisReplicas > 0 && o.RedisNodes != clusterMasters:
		return &ConfigError{
			What: fmt.Sprintf("%d replicas of each Redis master", o.RedisReplicas),
			Do:   fmt.Sprintf("take 0, or with a cluster of %d nodes up to %d", clusterMasters, replicasMax),
		}
	case o.RedisNodeTimeout != 0 && o.RedisNodeTimeout < shortestNodeTimeout:
		return &ConfigError{
			What: fmt.Sprintf("a node timeout of %s", o.RedisNodeTimeout),
			Do:   fmt.Sprintf("take %s or more, or 0 for %s", shortestNodeTimeout, nodeTimeout),
		}
	}
	return nil
}

// newRedises returns the servers to run: those that the directory has, and in a new
// one those that are wanted. It refuses what would leave data behind.
func newRedises(dir *dataDir, o Options) ([]*redisServer, error) {
	nodes := o.RedisNodes
	if nodes > 1 {
		nodes *= 1 + o.RedisReplicas
	}
	there, single := dir.redisNodes(), exists(filepath.Join(dir.redis(), "appendonlydir"))
	switch {
	case nodes == 0:
		nodes = max(there, 1)
	case nodes > 1 && single:
		return nil, otherNodes(dir, "a single Redis", 1)
	case nodes == 1 && there > 0:
		return nil, otherNodes(dir, "a Redis Cluster", clusterMasters)
	case nodes < there:
		return nil, &ConfigError{
			What: fmt.Sprintf("%s holds a Redis Cluster with %d replicas of each master", dir.path, there/clusterMasters-1),
			Do:   "start it with as many, or take another directory",
		}
	}
	if nodes == 1 {
		return []*redisServer{newRedisServer(dir, o)}, makeDir(dir.redis())
	}
	servers := make([]*redisServer, nodes)
	for i := range servers {
		servers[i] = newRedisNode(dir, i+1, o)
		if err := makeDir(servers[i].home); err != nil {
			return nil, err
		}
	}
	return servers, nil
}

func otherNodes(dir *dataDir, what string, nodes int) error {
	return &ConfigError{
		What: fmt.Sprintf("the data in %s is that of %s", dir.path, what),
		Do:   fmt.Sprintf("start it with --redis-nodes %d, or take another directory with --data-dir", nodes),
	}
}

// redisNodes counts the nodes of the cluster that the directory holds, 0 for none. One
// that has no nodes.conf yet has begun nothing.
func (d *dataDir) redisNodes() int {
	if !exists(filepath.Join(d.redisNode(1), nodesFile)) {
		return 0
	}
	count := 1
	for exists(d.redisNode(count + 1)) {
		count++
	}
	return count
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// newRedisNode returns the n-th node of a cluster.
func newRedisNode(dir *dataDir, n int, o Options) *redisServer {
	return &redisServer{
		dir: dir, opts: o, log: o.Log,
		home: dir.redisNode(n), clustered: true, number: n,
	}
}

// clusterConfig is what a node's configuration has more.
func (r *redisServer) clusterConfig() []string {
	return []string{
		"cluster-enabled yes",
		"cluster-config-file " + nodesFile,
		fmt.Sprintf("cluster-port %d", r.bus),
		"cluster-announce-ip 127.0.0.1",
		fmt.Sprintf("cluster-node-timeout %d", r.opts.RedisNodeTimeout.Milliseconds()),
		"cluster-require-full-coverage no",   // a lost master shuts its own partitions
		"cluster-allow-replica-migration no", // each master keeps its replicas
		"masterauth " + r.password,
		"repl-diskless-sync-delay 0", // no other replica comes that would be worth waiting for
	}
}

// lastPorts are those of a node's last run, zeros where there was none. A single
// server has no peers that know its port, and takes a new one each time.
func (r *redisServer) lastPorts() []int {
	if !r.clustered {
		return []int{0}
	}
	ports := []int{0, 0}
	text, err := os.ReadFile(r.confPath())
	if err != nil {
		return ports
	}
	for line := range strings.Lines(string(text)) {
		for i, format := range []string{"port %d", "cluster-port %d"} {
			// What does not fit leaves 0: a new port.
			_, _ = fmt.Sscanf(line, format, &ports[i])
		}
	}
	return ports
}

// startRedises runs all servers, side by side, and makes one cluster of several.
func (s *Stack) startRedises(ctx, life context.Context, o Options) error {
	if err := s.prepareRedises(ctx, o); err != nil {
		return err
	}
	group, starting := errgroup.WithContext(ctx)
	for _, r := range s.redises {
		group.Go(func() error { return r.start(starting, life) })
	}
	if err := group.Wait(); err != nil || len(s.redises) == 1 {
		return err
	}
	return formCluster(ctx, s.redises)
}

// prepareRedises settles what all servers share, and ends those of an earlier run.
func (s *Stack) prepareRedises(ctx context.Context, o Options) error {
	left := territory{programs: redisPrograms}
	for _, r := range s.redises {
		left.dirs = append(left.dirs, r.home)
	}
	binary, err := o.system.redisBinary(ctx, left.dirs)
	if err != nil {
		return err
	}
	password, err := s.dir.secret("redis")
	if err != nil {
		return err
	}
	for _, r := range s.redises {
		r.binary, r.password, r.maxMemory = binary, password, o.MaxMemory
		r.program = binary.name()
		if r.clustered {
			r.program = fmt.Sprintf("%s %d", binary.name(), r.number)
		}
		if r.maxMemory == 0 {
			r.maxMemory = defaultMaxMemory(len(s.redises))
		}
	}
	return stopLeftovers(s.log, left, syscall.SIGTERM)
}

// stopRedises stops all at once: a replica that outlived its master would take over.
func (s *Stack) stopRedises(ctx context.Context) error {
	errs := make([]error, len(s.redises))
	var group errgroup.Group
	for i, r := range s.redises {
		if r.child == nil {
			continue // its start came not so far
		}
		group.Go(func() error {
			errs[i] = r.child.close(ctx)
			return nil
		})
	}
	_ = group.Wait() // all are in errs
	return errors.Join(errs...)
}

package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Move is a partition on its way to another master of its Redis Cluster.
type Move struct {
	engine    *Engine
	partition int
	slot      int
	from, to  *master
	others    []*master // all but the one that it goes to
	run       string    // run id of the one that it goes to
}

// master is a node of a cluster that has slots, or may get some.
type master struct {
	*redis.Client
	id   string
	addr string
	kin  []string // ids of itself and its replicas
}

// errNoCluster says that there is nowhere to go.
var errNoCluster = errors.New("this Redis is a single server: partitions move between the masters of a Redis Cluster")

// BeginMove finds a partition's master and the one that it is to go to, named by its address or its id. The caller
// closes the move.
func (e *Engine) BeginMove(ctx context.Context, partition int, to string) (*Move, error) {
	if !IsCluster(e.redis) {
		return nil, errNoCluster
	}
	if partition < 0 || partition >= len(e.partitions) {
		return nil, fmt.Errorf("there is no partition %d: this shop has 0 to %d", partition, len(e.partitions)-1)
	}
	node, err := e.node(ctx, partition)
	if err != nil {
		return nil, err
	}
	known := node.(*redis.Client)
	shards, err := known.ClusterShards(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("%w: CLUSTER SHARDS: %s", ErrUnavailable, explainMove(err))
	}
	m := &Move{engine: e, partition: partition, slot: slotOf(e.keys.Meta(partition))}
	owner, err := ownerOf(ctx, known, m.slot)
	if err != nil {
		return nil, fmt.Errorf("%w: CLUSTER SLOTS: %s", ErrUnavailable, explainMove(err))
	}
	if err := m.find(shards, owner, to); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	if err := m.agree(ctx); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// Close closes the connections.
func (m *Move) Close() error {
	all := m.others
	if m.to != nil {
		all = append(slices.Clip(all), m.to)
	}
	var errs []error
	for _, n := range all {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}

// From is the address of the master that has the partition, To of the one that it is to go to.
func (m *Move) From() string { return m.from.addr }

// To is the address of the master that the partition is to go to.
func (m *Move) To() string { return m.to.addr }

// Arrived reports whether the partition is where it is to go.
func (m *Move) Arrived() bool { return m.from == m.to }

// ownerOf asks a node for the id of the master that has a slot; empty if none has it. CLUSTER SHARDS cannot say: since Redis 7.2
// it lists a master that failed in one shard with the replica that took its place, and Redis 7.4 shows no slots for that shard.
func ownerOf(ctx context.Context, c *redis.Client, slot int) (string, error) {
	slots, err := c.ClusterSlots(ctx).Result() //nolint:staticcheck // deprecated in favor of CLUSTER SHARDS
	if err != nil {
		return "", err
	}
	for _, r := range slots {
		if r.Start <= slot && slot <= r.End && len(r.Nodes) > 0 {
			return r.Nodes[0].ID, nil
		}
	}
	return "", nil
}

// find connects to the masters that the cluster reaches. owner has the slot.
func (m *Move) find(shards []redis.ClusterShard, owner, to string) error {
	var names []string
	for _, shard := range shards {
		for _, n := range shard.Nodes {
			named, has := m.names(n, to), n.ID == owner
			switch {
			case n.Role != "master" && named:
				return fmt.Errorf("%s is a replica: name its master with --to", to)
			case isFailed(n) && named:
				return fmt.Errorf("%s is marked as failed by the cluster: start it, or name another master with --to", to)
			case isFailed(n) && has:
				return fmt.Errorf("%s, which has partition %d, is marked as failed by the cluster: start it, or wait until a replica takes its place",
					m.address(n), m.partition)
			case n.Role != "master", isFailed(n):
				continue
			}
			found := &master{Client: m.connect(m.address(n)), id: n.ID, addr: m.address(n), kin: kinOf(n, shard)}
			names = append(names, found.addr)
			if has {
				m.from = found
			}
			if named {
				m.to = found
			} else {
				m.others = append(m.others, found)
			}
		}
	}
	switch {
	case m.to == nil:
		return fmt.Errorf("no master of this cluster is %s: --to takes the address of one as the cluster knows it (%s), or its id",
			to, strings.Join(names, ", "))
	case owner == "":
		return fmt.Errorf("slot %d of partition %d has no master: see `redis-cli --cluster check`", m.slot, m.partition)
	case m.from == nil:
		return fmt.Errorf("%w: slot %d of partition %d changes its master: wait a moment and run the command again", ErrUnavailable, m.slot, m.partition)
	}
	return nil
}

// isFailed reports whether the cluster has given a node up: most of its masters do not reach it, or it has no address.
func isFailed(n redis.Node) bool { return n.Health == "fail" || n.Port == 0 && n.TLSPort == 0 }

// kinOf are the ids of a master and its replicas. Another master of the shard is one whose place it took.
func kinOf(n redis.Node, shard redis.ClusterShard) []string {
	kin := []string{n.ID}
	for _, other := range shard.Nodes {
		if other.Role != "master" {
			kin = append(kin, other.ID)
		}
	}
	return kin
}

// names reports whether a node is the one that is named by its id, or an address.
func (m *Move) names(n redis.Node, name string) bool {
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return n.ID == name
	}
	is := slices.Contains([]string{n.IP, n.Hostname, n.Endpoint}, host) && host != ""
	return is && (port == strconv.FormatInt(n.Port, 10) || port == strconv.FormatInt(n.TLSPort, 10))
}

// address is where a node is reached, from here and from the other nodes.
func (m *Move) address(n redis.Node) string {
	port := n.Port
	if m.options().TLSConfig != nil && n.TLSPort != 0 {
		port = n.TLSPort
	}
	return net.JoinHostPort(cmp.Or(n.Endpoint, n.IP), strconv.FormatInt(port, 10))
}

func (m *Move) options() *redis.ClusterOptions {
	return m.engine.redis.(*redis.ClusterClient).Options()
}

// connect opens a client of one node; that of the cluster knows none without slots.
func (m *Move) connect(addr string) *redis.Client {
	o := m.options()
	return redis.NewClient(&redis.Options{
		Addr: addr, PoolSize: 1, MaxRetries: -1,
		Dialer: o.Dialer, TLSConfig: o.TLSConfig, Username: o.Username, Password: o.Password, Protocol: o.Protocol,
		DialTimeout: o.DialTimeout, ReadTimeout: o.ReadTimeout, WriteTimeout: o.WriteTimeout, PoolTimeout: o.PoolTimeout,
		DialerRetries: o.DialerRetries, ContextTimeoutEnabled: o.ContextTimeoutEnabled,
		DisableIdentity: o.DisableIdentity, MaintNotificationsConfig: o.MaintNotificationsConfig,
	})
}

// agree makes sure that both masters know who has the slot: what one of them says alone may be old.
func (m *Move) agree(ctx context.Context) error {
	for _, n := range []*master{m.from, m.to} {
		owner, err := ownerOf(ctx, n.Client, m.slot)
		if err != nil {
			return n.failed("CLUSTER SLOTS", err)
		}
		if owner != m.from.id {
			return fmt.Errorf("%w: the masters of the cluster do not agree yet who has slot %d: wait a moment and run the command again", ErrUnavailable, m.slot)
		}
	}
	return nil
}

// explainMove says why a master refuses a command of a move, and what to do.
func explainMove(err error) string {
	if strings.Contains(err.Error(), "NOPERM") {
		return err.Error() + "; give its user the rights of the ACL line for `stampede move` in README.md, \"TLS and least authority\""
	}
	return err.Error() + "; see its log, and run the command again"
}

// failed says on which master what failed.
func (n *master) failed(what string, err error) error {
	return fmt.Errorf("%w: %s on %s: %s", ErrUnavailable, what, n.addr, explainMove(err))
}

// setSlot changes what a master knows of a slot.
func (n *master) setSlot(ctx context.Context, slot int, to ...any) error {
	command := append([]any{"CLUSTER", "SETSLOT", slot}, to...)
	if err := n.Do(ctx, command...).Err(); err != nil {
		return n.failed(strings.TrimSpace(fmt.Sprintln(command...)), err)
	}
	return nil
}

// asking sends commands about a slot that the master is to take over: Redis wants each to be announced.
func (n *master) asking(ctx context.Context, commands ...redis.Cmder) error {
	_, err := n.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, c := range commands {
			if err := errors.Join(p.Do(ctx, "ASKING").Err(), p.Process(ctx, c)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return n.failed(commands[0].Name(), err)
	}
	return nil
}

func words(first string, rest []string) []any {
	args := make([]any, 1, 1+len(rest))
	args[0] = first
	for _, word := range rest {
		args = append(args, word)
	}
	return args
}

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
	kin  []string // ids of its shard: itself and its replicas
	has  bool     // the slot
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
	shards, err := node.(*redis.Client).ClusterShards(ctx).Result()
	if err != nil {
		return nil, fmt.Errorf("%w: CLUSTER SHARDS: %s", ErrUnavailable, explainMove(err))
	}
	m := &Move{engine: e, partition: partition, slot: slotOf(e.keys.Meta(partition))}
	if err := m.find(shards, to); err != nil {
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

// find connects to the masters.
func (m *Move) find(shards []redis.ClusterShard, to string) error {
	var names []string
	for _, shard := range shards {
		kin := make([]string, len(shard.Nodes))
		for i, n := range shard.Nodes {
			kin[i] = n.ID
		}
		has := slices.ContainsFunc(shard.Slots, func(r redis.SlotRange) bool {
			return r.Start <= int64(m.slot) && int64(m.slot) <= r.End
		})
		for _, n := range shard.Nodes {
			named := m.names(n, to)
			switch {
			case n.Role != "master" && named:
				return fmt.Errorf("%s is a replica: name its master with --to", to)
			case n.Role != "master":
				continue
			case n.Health == "fail" && (named || has):
				return fmt.Errorf("%s does not answer the cluster: start it, or wait until a replica has taken its place", m.address(n))
			case n.Health == "fail":
				continue
			}
			found := &master{Client: m.connect(m.address(n)), id: n.ID, addr: m.address(n), kin: kin, has: has}
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
	case m.from == nil:
		return fmt.Errorf("slot %d of partition %d has no master: see `redis-cli --cluster check`", m.slot, m.partition)
	}
	return nil
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
		shards, err := n.ClusterShards(ctx).Result()
		if err != nil {
			return n.failed("CLUSTER SHARDS", err)
		}
		if !slices.ContainsFunc(shards, func(s redis.ClusterShard) bool {
			return slices.ContainsFunc(s.Nodes, func(n redis.Node) bool { return n.ID == m.from.id }) &&
				slices.ContainsFunc(s.Slots, func(r redis.SlotRange) bool { return r.Start <= int64(m.slot) && int64(m.slot) <= r.End })
		}) {
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

package stack

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	slotsMax     = 16384 // of a Redis Cluster
	formWaitMax  = time.Minute
	formPoll     = 20 * time.Millisecond
	formMeetTime = 300 * time.Millisecond // between two introductions of the same nodes; one takes about 100 ms
	formCallMax  = 2 * time.Second
)

// formation makes one cluster of nodes that run. It looks what there is and does what
// is missing, until nothing is: so it makes a new cluster, goes on where an earlier
// start was cut short, and brings nodes together again that have moved to other ports.
type formation struct {
	nodes []*formingNode
	met   time.Time // of the last introduction
}

type formingNode struct {
	server *redisServer
	client *redis.Client
	self   member
	known  map[string]member // by id: what it knows of all, itself included
}

// formCluster returns when every node knows every other, all slots are served and
// replicas follow. The n-th master and its replicas are the n-th server and every
// third one after it.
func formCluster(ctx context.Context, servers []*redisServer) (err error) {
	f := newFormation(servers)
	defer func() { err = errors.Join(err, f.close()) }()
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, formWaitMax)
	defer cancel()
	for {
		missing := f.step(ctx)
		if missing == nil {
			servers[0].log.Info("the Redis Cluster is ready", "nodes", len(servers), "after", time.Since(start).Round(time.Millisecond))
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("make one cluster of %d Redis nodes: %w: %w", len(servers), context.Cause(ctx), missing)
		case <-time.After(formPoll):
		}
	}
}

func newFormation(servers []*redisServer) *formation {
	f := &formation{}
	for _, r := range servers {
		f.nodes = append(f.nodes, &formingNode{server: r, client: redis.NewClient(r.clientOptions())})
	}
	return f
}

// clientOptions are those of a client that makes a few calls, each with a bound.
func (r *redisServer) clientOptions() *redis.Options {
	return &redis.Options{
		Addr: address(r.port), Password: r.password, PoolSize: 1, MaxRetries: -1, DisableIdentity: true,
		DialTimeout: formCallMax, ReadTimeout: formCallMax, WriteTimeout: formCallMax, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
}

func (f *formation) close() error {
	var errs []error
	for _, n := range f.nodes {
		errs = append(errs, n.client.Close())
	}
	return errors.Join(errs...)
}

// step does what can be done now, and says what is missing; nil for nothing.
func (f *formation) step(ctx context.Context) error {
	for _, do := range f.steps() {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *formation) steps() []func(context.Context) error {
	return []func(context.Context) error{f.look, f.number, f.assign, f.introduce, f.replicate, f.settled}
}

func (f *formation) look(ctx context.Context) error {
	for _, n := range f.nodes {
		text, err := n.client.ClusterNodes(ctx).Result()
		if err != nil {
			return fmt.Errorf("%s: %w", n.server.program, err)
		}
		n.known = map[string]member{}
		for line := range strings.Lines(text) {
			m, err := parseMember(line)
			if err != nil {
				return fmt.Errorf("%s: %w", n.server.program, err)
			}
			n.known[m.id] = m
			if m.is("myself") {
				n.self = m
			}
		}
	}
	return nil
}

// number gives each new node an epoch of its own, by which it is decided who serves a
// slot. Nodes with equal ones would have to notice and settle it, which takes seconds.
func (f *formation) number(ctx context.Context) error {
	for i, n := range f.nodes {
		if len(n.known) > 1 || n.self.epoch != 0 {
			continue
		}
		if err := n.do(ctx, "SET-CONFIG-EPOCH", i+1); err != nil {
			return err
		}
	}
	return nil
}

// assign gives slots that nobody serves to the master whose they were to be.
func (f *formation) assign(ctx context.Context) error {
	var served [slotsMax]bool
	for _, n := range f.nodes {
		for _, r := range n.self.slots {
			for slot := r.first; slot <= r.last; slot++ {
				served[slot] = true
			}
		}
	}
	for i, n := range f.nodes[:clusterMasters] {
		ours := slotRange{firstSlot(i), firstSlot(i+1) - 1}
		for _, r := range ours.without(served[:]) {
			if err := n.do(ctx, "ADDSLOTSRANGE", r.first, r.last); err != nil {
				return err
			}
		}
	}
	return nil
}

// firstSlot is where the slots of a master begin: an equal part for each.
func firstSlot(master int) int { return (master*slotsMax + clusterMasters/2) / clusterMasters }

// introduce has nodes meet that do not know each other, or not by their present
// addresses.
func (f *formation) introduce(ctx context.Context) error {
	if time.Since(f.met) < formMeetTime {
		return nil
	}
	for i, n := range f.nodes {
		for _, other := range f.nodes[i+1:] {
			if n.knows(other) && other.knows(n) {
				continue
			}
			f.met = time.Now()
			if err := n.do(ctx, "MEET", "127.0.0.1", other.server.port, other.server.bus); err != nil {
				return err
			}
		}
	}
	return nil
}

// replicate has each new replica follow the node that serves its slots.
func (f *formation) replicate(ctx context.Context) error {
	for i, n := range f.nodes {
		if n.self.is("slave") || len(n.self.slots) > 0 {
			continue
		}
		master := f.serving(i % clusterMasters)
		if master == nil || !n.knows(master) {
			continue
		}
		if err := n.do(ctx, "REPLICATE", master.self.id); err != nil {
			return err
		}
	}
	return nil
}

// serving is the node of a group, a master and its replicas, that has slots.
func (f *formation) serving(group int) *formingNode {
	for i := group; i < len(f.nodes); i += clusterMasters {
		if len(f.nodes[i].self.slots) > 0 {
			return f.nodes[i]
		}
	}
	return nil
}

// settled says what is missing before the cluster can be used.
func (f *formation) settled(ctx context.Context) error {
	for i, n := range f.nodes {
		for _, other := range f.nodes {
			if !n.knows(other) || !n.reaches(other) {
				return fmt.Errorf("%s does not reach %s", n.server.program, other.server.program)
			}
		}
		if err := n.wantInfo(ctx, "CLUSTER INFO", "cluster_state:ok", "cluster_slots_ok:"+strconv.Itoa(slotsMax)); err != nil {
			return err
		}
		if i < clusterMasters && !n.self.is("slave") {
			continue
		}
		if n.self.is("slave") {
			if err := n.wantInfo(ctx, "INFO replication", "master_link_status:up"); err != nil {
				return err
			}
		} else if len(n.self.slots) == 0 {
			return fmt.Errorf("%s has no master yet", n.server.program)
		}
	}
	return nil
}

func (n *formingNode) do(ctx context.Context, args ...any) error {
	if err := n.client.Do(ctx, append([]any{"CLUSTER"}, args...)...).Err(); err != nil {
		return fmt.Errorf("%s: CLUSTER %v: %w", n.server.program, args[0], err)
	}
	return nil
}

// wantInfo says which of the lines is missing in what a command answers.
func (n *formingNode) wantInfo(ctx context.Context, command string, lines ...string) error {
	var args []any
	for _, word := range strings.Fields(command) {
		args = append(args, word)
	}
	text, err := n.client.Do(ctx, args...).Text()
	if err != nil {
		return fmt.Errorf("%s: %s: %w", n.server.program, command, err)
	}
	there := strings.Split(text, "\r\n")
	for _, line := range lines {
		if !slices.Contains(there, line) {
			return fmt.Errorf("%s: %s lacks %s", n.server.program, command, line)
		}
	}
	return nil
}

// knows tells whether a node has another one at its present address.
func (n *formingNode) knows(other *formingNode) bool {
	m, ok := n.known[other.self.id]
	return ok && !m.is("handshake") && m.address == fmt.Sprintf("%s@%d", address(other.server.port), other.server.bus)
}

// reaches tells whether a node is connected to one it knows, and does not doubt it.
func (n *formingNode) reaches(other *formingNode) bool {
	m := n.known[other.self.id]
	return m.is("myself") || m.connected && !m.is("fail") && !m.is("fail?")
}

// member is a line of CLUSTER NODES: what a node knows of one, which may be itself.
type member struct {
	id        string
	address   string // host:port@bus port
	flags     []string
	epoch     int
	connected bool
	slots     []slotRange
}

type slotRange struct{ first, last int } // both inclusive

func (m member) is(flag string) bool { return slices.Contains(m.flags, flag) }

// without are the parts of a range that are not served.
func (r slotRange) without(served []bool) []slotRange {
	var parts []slotRange
	for slot := r.first; slot <= r.last; slot++ {
		switch {
		case served[slot]:
		case slot > r.first && !served[slot-1]:
			parts[len(parts)-1].last = slot
		default:
			parts = append(parts, slotRange{slot, slot})
		}
	}
	return parts
}

func parseMember(line string) (member, error) {
	// id, address, flags, master, ping sent, pong received, epoch, link, slots
	const slotsAt = 8
	fields := strings.Fields(line)
	if len(fields) < slotsAt {
		return member{}, fmt.Errorf("CLUSTER NODES answers %q", line)
	}
	address, _, _ := strings.Cut(fields[1], ",") // a host name may follow
	m := member{id: fields[0], address: address, flags: strings.Split(fields[2], ","), connected: fields[7] == "connected"}
	var err error
	if m.epoch, err = strconv.Atoi(fields[6]); err != nil {
		return m, fmt.Errorf("CLUSTER NODES answers %q", line)
	}
	for _, field := range fields[slotsAt:] {
		if strings.HasPrefix(field, "[") {
			continue // a slot that is being moved
		}
		first, last, several := strings.Cut(field, "-")
		if !several {
			last = first
		}
		from, err1 := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || from < 0 || to >= slotsMax {
			return m, fmt.Errorf("CLUSTER NODES answers %q", line)
		}
		m.slots = append(m.slots, slotRange{from, to})
	}
	return m, nil
}

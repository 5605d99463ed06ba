package engine

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/lua"
)

// A partition is one slot of Redis Cluster. It moves while its door is shut: everything is copied first, so that until then
// nothing has happened, then the note is left in meta that the partition is about to go, and only then the master that
// had it deletes its keys and the slot changes hands. What died before the note is begun anew, what died behind it goes on.

// Leaving is the note in the meta of a partition that is about to change hands.
type Leaving struct {
	Addr string // of the master that it goes to
	ID   string // of that node
	Run  string // its run id when it got the copy
}

func (l Leaving) String() string { return l.Addr + " " + l.ID + " " + l.Run }

// readLeaving reads what String wrote.
func readLeaving(note string) Leaving {
	addr, rest, _ := strings.Cut(note, " ")
	id, run, _ := strings.Cut(rest, " ")
	return Leaving{Addr: addr, ID: id, Run: run}
}

// Gone reports whether a partition is between two masters.
func (v *DoorView) Gone() bool { return v.Leaving != Leaving{} && v.Leaving.Run != v.IsRun }

const (
	moveScan     = 1000             // keys a look
	moveKeys     = 256              // a MIGRATE, which holds up the master that it copies from
	moveCopyMax  = 2 * time.Second  // a MIGRATE: both masters wait for it
	moveWaitMax  = 5 * time.Second  // for a replica of the new master
	moveAgreeMax = 10 * time.Second // until the cluster knows who has the slot
	movePause    = 20 * time.Millisecond
)

// Leave shuts the door of a partition that moves; where to is noted with the last step before it goes. It reports false where
// Redis is in another epoch. Only who holds the partition's lock may call it.
func (e *Engine) Leave(ctx context.Context, partition int, token string, epoch int64, to Leaving) (bool, error) {
	note := ""
	if to != (Leaving{}) {
		note = to.String()
	}
	reply, err := e.upkeep(ctx, lua.Leave, []string{e.keys.Meta(partition)}, epoch, token, note)
	return reply == int64(1), err
}

func (m *Move) note() Leaving { return Leaving{Addr: m.to.addr, ID: m.to.id, Run: m.run} }

// Prepare has the new master take copies: it drops what an earlier stay of the partition, or an attempt to move it, left there.
func (m *Move) Prepare(ctx context.Context, alive func() error) error {
	info, err := m.to.Info(ctx, "server").Result()
	if err != nil {
		return m.to.failed("INFO", err)
	}
	_, rest, _ := strings.Cut(info, "run_id:")
	m.run, _, _ = strings.Cut(rest, "\r\n")
	if err := m.renew(ctx); err != nil {
		return err
	}
	return m.clear(ctx, m.to, alive)
}

// renew makes sure that the new master's append-only file does not end in half a transaction; see RenewAOF. Where another
// partition lives on it, a repair has done so.
func (m *Move) renew(ctx context.Context) error {
	for p := range m.engine.keys.Partitions() {
		v, err := m.engine.Look(ctx, p)
		if err == nil && v.IsRun == m.run && v.Renewed == m.run {
			return nil
		}
	}
	return m.engine.renewAOF(ctx, m.to.Client)
}

// clear deletes the slot's keys on a master that does not have the slot.
func (m *Move) clear(ctx context.Context, on *master, alive func() error) error {
	for {
		// Refused by a master that has the slot: so nothing is ever deleted that is sold from.
		if err := on.setSlot(ctx, m.slot, "IMPORTING", m.from.id); err != nil {
			return err
		}
		keys, err := on.ClusterGetKeysInSlot(ctx, m.slot, moveScan).Result()
		if err != nil {
			return on.failed("CLUSTER GETKEYSINSLOT", err)
		}
		if len(keys) == 0 {
			return nil
		}
		if err := alive(); err != nil {
			return err
		}
		if err := on.asking(ctx, redis.NewIntCmd(ctx, words("UNLINK", keys)...)); err != nil {
			return err
		}
	}
}

// Copy copies all keys but meta. alive tells before each step that the partition's lock is still held.
func (m *Move) Copy(ctx context.Context, alive func() error, told func(copied int64)) error {
	keys, copied := m.engine.keys, int64(0)
	if slotOf(DeploymentKey) == m.slot {
		if err := m.migrate(ctx, []string{DeploymentKey}); err != nil {
			return err
		}
	}
	for cursor := uint64(0); ; {
		found, next, err := m.from.Scan(ctx, cursor, keys.tags[m.partition]+"*", moveScan).Result()
		if err != nil {
			return m.from.failed("SCAN", err)
		}
		for len(found) > 0 {
			n := min(len(found), moveKeys)
			if err := alive(); err != nil {
				return err
			}
			if err := m.migrate(ctx, without(found[:n], keys.Meta(m.partition))); err != nil {
				return err
			}
			copied += int64(n)
			told(copied)
			found = found[n:]
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

func without(keys []string, key string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return k == key })
}

// migrate copies keys, or copies them again.
func (m *Move) migrate(ctx context.Context, keys []string) error {
	if len(keys) == 0 {
		return nil
	}
	host, port, err := net.SplitHostPort(m.to.addr)
	if err != nil {
		return err
	}
	args := []any{"MIGRATE", host, port, "", 0, moveCopyMax.Milliseconds(), "COPY", "REPLACE"}
	switch o := m.to.Options(); {
	case o.Username != "":
		args = append(args, "AUTH2", o.Username, o.Password)
	case o.Password != "":
		args = append(args, "AUTH", o.Password)
	}
	if err := m.from.Do(ctx, append(args, words("KEYS", keys)...)...).Err(); err != nil {
		return m.from.failed("MIGRATE", err)
	}
	return nil
}

// Note leaves the note that the partition is about to go: everything but meta has been copied, to the same process. false:
// Redis is in another epoch.
func (m *Move) Note(ctx context.Context, token string, epoch int64) (bool, error) {
	info, err := m.to.Info(ctx, "server").Result()
	if err != nil {
		return false, m.to.failed("INFO", err)
	}
	if !strings.Contains(info, "run_id:"+m.run) {
		return false, fmt.Errorf("%w: %s was started again and may have lost a part of the copy: run the command again", ErrUnavailable, m.to.addr)
	}
	return m.engine.Leave(ctx, m.partition, token, epoch, m.note())
}

// HandOver gives the slot away, once the note stands. It is safe to repeat.
func (m *Move) HandOver(ctx context.Context, alive func() error) error {
	if err := m.to.setSlot(ctx, m.slot, "IMPORTING", m.from.id); err != nil {
		return err
	}
	// What is missing here from now on is on its way, and not gone: Redis says so itself.
	if err := m.from.setSlot(ctx, m.slot, "MIGRATING", m.to.id); err != nil {
		return err
	}
	left, err := m.from.ClusterCountKeysInSlot(ctx, m.slot).Result()
	if err != nil {
		return m.from.failed("CLUSTER COUNTKEYSINSLOT", err)
	}
	if left > 0 {
		if err := m.migrate(ctx, []string{m.engine.keys.Meta(m.partition)}); err != nil {
			return err
		}
		if err := m.kept(ctx); err != nil {
			return err
		}
		if err := m.empty(ctx, alive); err != nil {
			return err
		}
	}
	if err := m.to.setSlot(ctx, m.slot, "NODE", m.to.id); err != nil {
		return err
	}
	return m.Announce(ctx)
}

// kept makes sure that a replica of the new master has the copy, where there is one. A command waits for what its own
// connection wrote: so it notes that this server's append-only file need not be begun anew.
func (m *Move) kept(ctx context.Context) error {
	info, err := m.to.Info(ctx, "replication").Result()
	if err != nil {
		return m.to.failed("INFO", err)
	}
	renewed := redis.NewIntCmd(ctx, "HSET", m.engine.keys.Meta(m.partition), "renewed", m.run)
	if strings.Contains(info, "connected_slaves:0") {
		return m.to.asking(ctx, renewed)
	}
	replicas := redis.NewIntCmd(ctx, "WAIT", 1, moveWaitMax.Milliseconds())
	if err := m.to.asking(ctx, renewed, replicas); err != nil {
		return err
	}
	if replicas.Val() == 0 {
		return fmt.Errorf("%w: no replica of %s has the copy yet: see to its replicas and run the command again", ErrUnavailable, m.to.addr)
	}
	return nil
}

// empty deletes the keys of the master that had the slot, meta last: as long as it is there, it says where the others are.
func (m *Move) empty(ctx context.Context, alive func() error) error {
	meta := m.engine.keys.Meta(m.partition)
	for ctx.Err() == nil {
		keys, err := m.from.ClusterGetKeysInSlot(ctx, m.slot, moveScan).Result()
		if err != nil {
			return m.from.failed("CLUSTER GETKEYSINSLOT", err)
		}
		if len(keys) == 0 {
			return nil
		}
		if err := alive(); err != nil {
			return err
		}
		if len(keys) > 1 {
			keys = without(keys, meta)
		}
		err = m.from.Unlink(ctx, keys...).Err()
		// A key whose time has come in between counts as gone ahead.
		if err != nil && !redis.HasErrorPrefix(err, "TRYAGAIN") && !redis.HasErrorPrefix(err, "ASK") {
			return m.from.failed("UNLINK", err)
		}
	}
	return ctx.Err()
}

// Announce tells the other masters who has the slot, and waits until this client finds it there. Those that do not take it
// now learn it from the new master.
func (m *Move) Announce(ctx context.Context) error {
	for _, other := range m.others {
		_ = other.setSlot(ctx, m.slot, "NODE", m.to.id)
	}
	ctx, cancel := context.WithTimeout(ctx, moveAgreeMax)
	defer cancel()
	for {
		m.engine.redis.(*redis.ClusterClient).ReloadState(ctx) // in the background
		node, err := m.engine.node(ctx, m.partition)
		if at, is := node.(*redis.Client); err == nil && is && at.Options().Addr == m.to.addr {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the cluster does not know yet that %s has slot %d: run the command again", ErrUnavailable, m.to.addr, m.slot)
		case <-time.After(movePause):
		}
	}
}

// Handed reports whether a move died behind its last deletion: the master that has the slot has no key of it any more, and
// the new one has all.
func (m *Move) Handed(ctx context.Context) (bool, error) {
	left, err := m.from.ClusterCountKeysInSlot(ctx, m.slot).Result()
	if err != nil || left > 0 {
		return false, err
	}
	if err := m.to.setSlot(ctx, m.slot, "IMPORTING", m.from.id); err != nil {
		return false, err
	}
	note := redis.NewStringCmd(ctx, "HGET", m.engine.keys.Meta(m.partition), "leaving")
	if err := m.to.asking(ctx, note); err != nil {
		return false, err
	}
	return m.Meant(readLeaving(note.Val())), nil
}

// Meant reports whether a note is about this move: its master is the one, or has become a replica of it.
func (m *Move) Meant(l Leaving) bool { return slices.Contains(m.to.kin, l.ID) }

// Tidy drops from all other masters what a partition left there that has arrived.
func (m *Move) Tidy(ctx context.Context, alive func() error) error {
	for _, other := range m.others {
		n, err := other.ClusterCountKeysInSlot(ctx, m.slot).Result()
		if err != nil {
			return other.failed("CLUSTER COUNTKEYSINSLOT", err)
		}
		if n > 0 {
			if err := m.clear(ctx, other, alive); err != nil {
				return err
			}
		}
		if err := other.setSlot(ctx, m.slot, "STABLE"); err != nil {
			return err
		}
	}
	return nil
}

// Slot is the partition's.
func (m *Move) Slot() int { return m.slot }

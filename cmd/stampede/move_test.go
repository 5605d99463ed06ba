package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

//servers:redis
func TestMove_OfAStack(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir, "--redis-nodes", "3")
	bought := s.buy("first@example.com")
	const partition = 7
	to := otherMaster(t, dir, partition)
	move := []string{"move", "--data-dir", dir, "--partition", strconv.Itoa(partition), "--to"}
	code, out, text := finish(t, append(move, to)...)
	if code != exitDone || !strings.Contains(out, "Partition 7 moved from ") || !strings.Contains(out, "partition 7: handing its slot over") {
		t.Fatalf("move: %d\n%s%s", code, out, text)
	}
	if code, out, text = finish(t, append(move, to)...); code != exitDone || !strings.Contains(out, "Partition 7 is on "+to) {
		t.Errorf("move again: %d\n%s%s", code, out, text)
	}
	s.awaitWritten()
	s.wantKept(bought)
	s.buy("second@example.com")
	s.awaitWritten()
	wantAuditHolds(t, dir)
	wantRefused(t, "--to takes the address", append(move, "127.0.0.1:1")...)
	wantRefused(t, "this shop has 0 to 11", "move", "--data-dir", dir, "--partition", "12", "--to", to)
	s.signal(syscall.SIGKILL)
	s.code()
	again := up(t, dir, "--redis-nodes", "3")
	again.wantKept(bought)
	again.awaitWritten()
	wantAuditHolds(t, dir)
	again.stop()
}

func TestMove_OfASingleRedis(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	wantRefused(t, "partitions move between the masters of a Redis Cluster", "move", "--data-dir", dir, "--partition", "0", "--to", "127.0.0.1:1")
	s.stop()
}

// otherMaster is the address of a master that does not have the partition.
func otherMaster(t *testing.T, dir string, partition int) (other string) {
	t.Helper()
	withRedis(t, dir, func(client redis.UniversalClient) error {
		keys, err := engine.NewKeys(12)
		if err != nil {
			return err
		}
		slot, err := client.ClusterKeySlot(within(t), keys.Meta(partition)).Result()
		if err != nil {
			return err
		}
		ranges, err := client.ClusterSlots(within(t)).Result()
		for _, of := range ranges {
			if int(slot) < of.Start || of.End < int(slot) {
				other = of.Nodes[0].Addr
			}
		}
		return err
	})
	return other
}

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack/stacktest"
)

// A cluster outlives the kill of a node and of everything, keeps its number of nodes, and can be built anew with
// another.
//
//servers:redis
func TestUp_ClusterCarriesOn(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	first := up(t, dir, "--redis-nodes", "3")
	bought := first.buy("first@example.com")
	if err := syscall.Kill(childOf(t, first.cmd.Process.Pid, redisServer(t)), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	first.awaitSelling(bought)
	first.awaitReady()
	first.buy("second@example.com")
	first.signal(syscall.SIGKILL)
	first.code()
	wantRefused(t, "--redis-nodes 3", "up", "--addr", "127.0.0.1:0", "--data-dir", dir)

	second := up(t, dir, "--redis-nodes", "3")
	second.wantKept(bought)
	second.awaitWritten()
	withPostgres(t, dir, func(conn *pgx.Conn) error {
		var partitions int
		err := conn.QueryRow(within(t), "SELECT partitions FROM deployment").Scan(&partitions)
		if partitions != 12 {
			t.Errorf("%d partitions, want 12", partitions)
		}
		return err
	})
	second.stop()
	wantNothingLeft(t, dir)

	for n := range 3 {
		if err := os.RemoveAll(filepath.Join(dir, "redis-"+strconv.Itoa(n+1))); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, log := finish(t, "restore", "--data-dir", dir, "--redis-nodes", "1", "--partitions", "1"); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, log)
	}
	wantNothingLeft(t, dir)
	third := up(t, dir)
	third.wantKept(bought)
	third.buy("third@example.com")
	third.stop()
}

package main

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/persist"
)

const (
	// Of what Redis was handed in this time before it died a power cut takes a part. It syncs once a second; the rest of
	// the promised window is left to a machine that is slow.
	cutMax = 500 * time.Millisecond
	// everysecWindow is what everysec may cost.
	everysecWindow = 2 * time.Second
)

// A power cut under everysec, again and again, with orders before and after: the last writes of Redis are gone from its
// AOF, mostly while Postgres lacks them too. Nothing is lost that was acknowledged before the window, what is lost is
// named, no unit is sold twice, and every key has one outcome.
//
//servers:redis
func TestDoor_AOFCutUnderEverysec(t *testing.T) {
	t.Parallel()
	rounds := 3
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		rounds = 50
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d rounds", seed, rounds)
	random := rand.New(rand.NewPCG(seed, 0))
	servers := stacktest.Start(t, stack.Options{Durability: stack.DurabilityEverySec})
	s := serveAt(t, servers.RedisURL(), servers)
	q := lineUp(s, 6, 1_000_000)
	stop := q.shop(s)
	var cuts []cut
	for n := range rounds {
		sizes := watchAOF(servers.RedisDir())
		q.await(50)
		open := time.Now()
		release := func() {}
		if n%3 != 1 { // else nothing is lost but what is on its way to Postgres
			release = holdWriter(t, servers)
		}
		q.await(50 + random.Int64N(500))
		time.Sleep(time.Until(open.Add(cutMax))) // a cut does not reach into the epoch before
		c := cut{epoch: fence(t, servers)}
		if err := servers.Redis().HaltNow(within(t)); err != nil {
			t.Fatal(err)
		}
		c.at = time.Now()
		c.bytes = sizes.cut(t, c.at.Add(-cutMax), random)
		if err := servers.Redis().Resume(within(t)); err != nil {
			t.Fatal(err)
		}
		c.up = time.Now()
		q.await(50) // without the writer, too
		release()
		cuts = append(cuts, c)
	}
	stop()
	s.awaitWritten()
	gone := q.settle(s)
	s.awaitWritten()
	for _, r := range gone {
		q.blame(r, cuts)
	}
	q.wantNamed(cuts, audited(t, servers.RedisURL(), servers))
	if len(gone) == 0 {
		t.Error("the cuts took nothing")
	}
	s.awaitLogged("acknowledged events are lost")
	code, out, _ := finish(t, append(joining(servers.RedisURL(), servers), "audit")...)
	if code != exitDone || !strings.Contains(out, "\nlost: partition 0, epoch ") || !strings.Contains(out, "all holds") {
		t.Errorf("audit: %d\n%s", code, out)
	}
	s.stop()
}

// cut is a power cut.
type cut struct {
	epoch int64 // that it ended
	at    time.Time
	up    time.Time // from when on something was acknowledged again: a busy machine notes late what came before
	bytes int64
	gone  int // acknowledged orders that it took
}

// blame finds the cut that took an order, which must have been acknowledged shortly before.
func (q *queue) blame(r *receipt, cuts []cut) {
	for i := range cuts {
		if c := &cuts[i]; r.at.Before(c.up) {
			if age := c.at.Sub(r.at); age > everysecWindow {
				q.t.Errorf("order %s is gone, acknowledged %v before the cut that ended epoch %d", r.order, age, c.epoch)
			}
			c.gone++
			return
		}
	}
	q.t.Errorf("order %s is gone, acknowledged after the last cut", r.order)
}

// wantNamed holds what is gone against what the books say is lost: every order, and no more than what buyers were not told
// in time besides.
func (q *queue) wantNamed(cuts []cut, lost map[int64]persist.Loss) {
	unknown := int64(q.count(0, nil) + q.count(504, nil))
	for _, c := range cuts {
		l := lost[c.epoch]
		q.t.Logf("epoch %d: %d bytes cut off, %d acknowledged orders gone, %d events named", c.epoch, c.bytes, c.gone, l.Events)
		if l.Events < int64(c.gone) || l.Events > int64(c.gone)+unknown {
			q.t.Errorf("epoch %d lost %d acknowledged orders, the books name %d events; %d answers never came", c.epoch, c.gone, l.Events, unknown)
		}
		if l.Events > 0 && (l.Beyond != 0 || l.Durability != stack.DurabilityEverySec) {
			q.t.Errorf("the loss is told as %+v", l)
		}
		delete(lost, c.epoch)
	}
	if len(lost) > 0 {
		q.t.Errorf("losses that nobody met: %v", lost)
	}
}

// aofSizes is how large the AOF was, and when.
type aofSizes struct {
	dir  string
	stop func()
	seen []aofSize
}

type aofSize struct {
	at   time.Time
	path string
	size int64
}

// watchAOF looks at the AOF that is written until cut is called.
func watchAOF(redisDir string) *aofSizes {
	ctx, cancel := context.WithCancel(context.Background())
	a := &aofSizes{dir: filepath.Join(redisDir, "appendonlydir")}
	var watch sync.WaitGroup
	watch.Go(func() {
		for ctx.Err() == nil {
			now := time.Now() // before: what was there then may have grown since, and stays
			if path, size, err := newestAOF(a.dir); err == nil {
				a.seen = append(a.seen, aofSize{now, path, size})
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
	a.stop = func() {
		cancel()
		watch.Wait()
	}
	return a
}

// cut takes a random part off the end, of what was not there yet at a time, and returns how much.
func (a *aofSizes) cut(t *testing.T, since time.Time, random *rand.Rand) int64 {
	t.Helper()
	a.stop()
	path, size, err := newestAOF(a.dir)
	if err != nil {
		t.Fatal(err)
	}
	keep := int64(0)
	for _, s := range a.seen {
		if s.path == path && s.at.Before(since) {
			keep = s.size
		}
	}
	bytes := random.Int64N(size - keep + 1)
	if err := os.Truncate(path, size-bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// newestAOF is the file that Redis appends to.
func newestAOF(dir string) (path string, size int64, err error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.incr.aof"))
	if err != nil || len(files) == 0 {
		return "", 0, os.ErrNotExist
	}
	path = files[0]
	for _, file := range files[1:] {
		if len(file) > len(path) || (len(file) == len(path) && file > path) { // 10 comes after 9
			path = file
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", 0, err
	}
	return path, info.Size(), nil
}

// holdWriter takes the lead of partition 0 from its writer until release is called.
func holdWriter(t *testing.T, books *stack.Stack) (release func()) {
	t.Helper()
	const class = 0x53540002
	conn, err := pgx.Connect(within(t), books.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	for held, deadline := false, time.Now().Add(patience); !held; {
		_, err = conn.Exec(within(t), `SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND granted AND pid <> pg_backend_pid()`, int64(class))
		if err == nil {
			err = conn.QueryRow(within(t), "SELECT pg_try_advisory_lock($1, 0)", class).Scan(&held)
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("the writer keeps its lead: %v", err)
		}
	}
	return func() { _ = conn.Close(context.Background()) }
}

// fence is the epoch that sells in the books.
func fence(t *testing.T, books *stack.Stack) (epoch int64) {
	t.Helper()
	conn, err := pgx.Connect(within(t), books.PostgresURL())
	if err == nil {
		err = conn.QueryRow(within(t), "SELECT fence FROM checkpoints").Scan(&epoch)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close(within(t))
	return epoch
}

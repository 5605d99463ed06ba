package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

//servers:redis,postgres
func TestRestore_BesideARunningShop(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	deployment := flushRedis(t, dir)
	e := env(t, dir)
	elsewhere := strings.Replace(e.postgresURL, "/stampede?", "/postgres?", 1)
	wantRefused(t, "no books", "STAMPEDE_REDIS_URL="+e.redisURL, "STAMPEDE_POSTGRES_URL="+elsewhere, "restore")
	claimRedis(t, dir, deployment) // as a restore that got no further
	code, out, text := finish(t, "restore", "--data-dir", dir)
	if code != exitDone || !strings.Contains(out, "rebuilt") {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	s.awaitSelling(bought) // the doors of the running shop open by themselves
	s.wantKept(bought)
	s.buy("second@example.com")
	wantAuditHolds(t, dir)
	s.stop()
}

func TestRestore_OfAStoppedShop(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	flushRedis(t, dir)
	s.stop()
	wantRefused(t, "stampede restore", "up", "--addr", "127.0.0.1:0", "--data-dir", dir)
	wantNothingLeft(t, dir)
	if code, out, text := finish(t, "restore", "--data-dir", dir); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	wantNothingLeft(t, dir)
	wantRefused(t, "not empty", "restore", "--data-dir", dir)

	again := up(t, dir)
	again.wantKept(bought)
	wantAuditHolds(t, dir)
	again.stop()
}

// Whenever a restore dies, the next one takes up what it left, and until one has ended nothing sells.
func TestRestore_KilledAgainAndAgain(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	// Enough to be killed in the middle of.
	tamper(t, dir, `INSERT INTO users (name, email, in_redis)
		SELECT 'Many', 'many' || n || '@example.com', true FROM generate_series(1, 30000) AS n`)
	flushRedis(t, dir)
	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 0))
	attempts := 1
	for bound := 300; ; attempts, bound = attempts+1, bound+150 {
		p := launch(t, "restore", "--data-dir", dir)
		select {
		case <-p.exited:
		case <-time.After(time.Duration(random.IntN(bound)) * time.Millisecond):
			_ = p.cmd.Process.Kill() // it may just have ended
			<-p.exited
		}
		if p.cmd.ProcessState.ExitCode() == exitDone {
			break
		}
		if code := p.cmd.ProcessState.ExitCode(); code != -1 {
			t.Fatalf("restore: %d\n%s", code, p.err)
		}
		// A key that was used is no reason to answer from half a Redis.
		if status := s.order(bought, nil); attempts == 1 && status != 503 {
			t.Errorf("half a Redis answers an order with %d", status)
		}
	}
	t.Logf("restored at attempt %d", attempts)
	s.awaitSelling(bought)
	s.wantKept(bought)
	wantAuditHolds(t, dir)
	wantRefused(t, "not empty", "restore", "--data-dir", dir)
	s.stop()
}

func TestRestore_InterruptedSaysSo(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	flushRedis(t, dir)
	// Something holds the books, so that a restore waits.
	withPostgres(t, dir, func(conn *pgx.Conn) error {
		tx, err := conn.Begin(within(t))
		if err != nil {
			return err
		}
		if _, err = tx.Exec(within(t), "SELECT FROM checkpoints FOR UPDATE"); err != nil {
			return err
		}
		p := launch(t, "restore", "--data-dir", dir)
		withRedis(t, dir, func(client redis.UniversalClient) error {
			for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
				d, _, err := engine.FindDeployment(within(t), client)
				if d.Restoring || err != nil || time.Now().After(deadline) {
					return err
				}
			}
		})
		p.signal(syscall.SIGINT)
		<-p.exited
		if code := p.cmd.ProcessState.ExitCode(); code != exitFailed || !strings.Contains(p.err.String(), "run it again") {
			t.Errorf("an interrupted restore ends with %d: %s", code, p.err)
		}
		return tx.Rollback(within(t))
	})
	if code, out, text := finish(t, "restore", "--data-dir", dir); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	s.awaitSelling(bought)
	wantAuditHolds(t, dir)
	s.stop()
}

func TestAudit_TellsWhatItFinds(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	wantAuditHolds(t, dir)
	tamper(t, dir, "UPDATE users SET balance = balance + 1 WHERE id = $1", bought.user)
	code, out, _ := finish(t, "audit", "--data-dir", dir)
	if code != exitViolations || !strings.Contains(out, "users") {
		t.Errorf("audit of a changed balance: %d\n%s", code, out)
	}
	code, out, _ = finish(t, "audit", "--json", "--data-dir", dir)
	if code != exitViolations || !strings.HasPrefix(out, `{"ok":false,`) || !strings.Contains(out, `"check":`) {
		t.Errorf("audit --json of a changed balance: %d\n%s", code, out)
	}
	s.stop()
}

//servers:postgres
func TestRestore_WithAnotherNumberOfPartitions(t *testing.T) {
	if os.Getenv("STAMPEDE_TEST_LONG") == "" {
		t.Skip("the way into a cluster, which is tested each time, has another number of partitions as well")
	}
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	wantRefused(t, "--partitions must be 1 to 240", "restore", "--data-dir", dir, "--partitions", "241")
	wantRefused(t, "not empty", "restore", "--data-dir", dir, "--partitions", "4")
	flushRedis(t, dir)
	if code, out, text := finish(t, "restore", "--data-dir", dir, "--partitions", "4"); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	s.awaitProblem("restart this process: the shop has 4 partition(s) now")
	if status := s.order(bought, nil); status != 503 {
		t.Errorf("a process of before answers an order with %d", status)
	}
	s.stop()
	wantRefused(t, "these books have 4 partitions, not 1", "up", "--addr", "127.0.0.1:0", "--data-dir", dir, "--partitions", "1")
	again := up(t, dir)
	again.wantKept(bought)
	again.buy("second@example.com")
	again.awaitWritten()
	wantAuditHolds(t, dir)
	flushRedis(t, dir)
	again.stop()
	// By the stopped stack, and back.
	if code, out, text := finish(t, "restore", "--data-dir", dir, "--partitions", "1"); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	last := up(t, dir)
	last.wantKept(bought)
	last.buy("third@example.com")
	last.awaitWritten()
	wantAuditHolds(t, dir)
	last.stop()
}

// A shop that outgrows one Redis moves to a cluster of three, and to more partitions.
//
//servers:redis
func TestRestore_FromOneRedisIntoACluster(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	s.stop()
	if err := os.RemoveAll(filepath.Join(dir, "redis")); err != nil {
		t.Fatal(err)
	}
	code, out, text := finish(t, "restore", "--data-dir", dir, "--redis-nodes", "3", "--partitions", "12")
	if code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	again := up(t, dir, "--redis-nodes", "3")
	again.wantKept(bought)
	again.buy("second@example.com")
	again.awaitWritten()
	wantAuditHolds(t, dir)
	again.stop()
}

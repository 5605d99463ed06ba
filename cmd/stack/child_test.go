package stack_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

//servers:redis,postgres
func TestChild_KilledComesBackOnTheSamePort(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{})
	remember(t, s, "through the kill")
	for range 3 {
		for _, child := range []*stack.Child{s.Redis(), s.Postgres()} {
			killed := child.Pid()
			if err := child.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "another process", func() bool { return child.Pid() != 0 && child.Pid() != killed })
			if err := child.Ready(within(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantRemembered(t, s, "through the kill")
}

// A backend in the middle of a long query does not notice that its postmaster is
// gone, and a new postmaster refuses to start beside it.
//
//servers:postgres
func TestChild_BusyBackendDoesNotKeepPostgresDown(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoRedis: true})
	busy := make(chan error, 1)
	withPostgres(t, s, func(conn *pgx.Conn) {
		go func() {
			_, err := conn.Exec(within(t), "select count(*) from generate_series(1, 100000000000) a")
			busy <- err
		}()
		eventually(t, "the query runs", func() bool {
			var running int
			withPostgres(t, s, func(other *pgx.Conn) {
				err := other.QueryRow(within(t), "select count(*) from pg_stat_activity "+
					"where state = 'active' and pid <> pg_backend_pid()").Scan(&running)
				if err != nil {
					t.Fatal(err)
				}
			})
			return running == 1
		})
		killed := s.Postgres().Pid()
		if err := s.Postgres().Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another process", func() bool { return s.Postgres().Pid() != killed })
		if err := s.Postgres().Ready(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := <-busy; err == nil {
			t.Error("the query outlived its server")
		}
	})
}

func TestChild_HaltedStaysDownUntilResumed(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{})
	remember(t, s, "through the halt")
	for _, child := range []*stack.Child{s.Redis(), s.Postgres()} {
		for name, halt := range map[string]func(context.Context) error{"Halt": child.Halt, "HaltNow": child.HaltNow} {
			for range 2 { // of a halted one too
				if err := halt(within(t)); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
			time.Sleep(300 * time.Millisecond) // longer than the first restart would take
			if child.Pid() != 0 {
				t.Fatalf("%s: it runs as %d", name, child.Pid())
			}
			if err := child.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
				t.Errorf("%s: a signal to a halted server: %v", name, err)
			}
			for range 2 { // of a running one too
				if err := child.Resume(within(t)); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		}
	}
	wantRemembered(t, s, "through the halt")
}

func TestChild_HaltedWhileDeadStaysDown(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	if err := s.Redis().Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is down", func() bool { return s.Redis().Pid() == 0 })
	if err := s.Redis().Halt(within(t)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if pid := s.Redis().Pid(); pid != 0 {
		t.Errorf("it runs as %d", pid)
	}
}

//servers:redis
func TestChild_TailOfTheLogOfWritesCanBeCut(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	withRedis(t, s, func(client *redis.Client) {
		for _, key := range []string{"first", "last"} {
			if err := client.Set(within(t), key, "value", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
	if err := s.Redis().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	parts, err := filepath.Glob(filepath.Join(s.RedisDir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("parts of the AOF: %v, %v", parts, err)
	}
	info, err := os.Stat(parts[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(parts[0], info.Size()-3); err != nil {
		t.Fatal(err)
	}
	if err := s.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	withRedis(t, s, func(client *redis.Client) {
		if n := client.Exists(within(t), "first").Val(); n != 1 {
			t.Error("what stood before the cut is lost")
		}
		if n := client.Exists(within(t), "last").Val(); n != 0 {
			t.Error("what was cut is there")
		}
	})
}

func TestChild_ResumeThatFailsStaysDownAndSaysWhy(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	if err := s.Redis().Halt(within(t)); err != nil {
		t.Fatal(err)
	}
	manifest := filepath.Join(s.RedisDir(), "appendonlydir", "appendonly.aof.manifest")
	whole, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, manifest, "nonsense\n")
	wantConfigError(t, s.Redis().Resume(within(t)), "AOF manifest")
	if s.Redis().Pid() != 0 {
		t.Error("it runs")
	}
	writeText(t, manifest, string(whole))
	if err := s.Redis().Resume(within(t)); err != nil {
		t.Error(err)
	}
}

func TestChild_FrozenServerCanBeStopped(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{})
	for _, child := range []*stack.Child{s.Redis(), s.Postgres()} {
		if err := child.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stop(within(t)); err != nil {
		t.Error(err)
	}
}

func TestChild_RefusesAfterStop(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	if err := s.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(context.Context) error{
		"Halt": s.Redis().Halt, "HaltNow": s.Redis().HaltNow, "Resume": s.Redis().Resume, "Ready": s.Redis().Ready,
	} {
		if err := do(within(t)); !errors.Is(err, stack.ErrStopped) {
			t.Errorf("%s: %v, want ErrStopped", name, err)
		}
	}
}

func TestChild_StopEndsAResume(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	if err := s.Redis().Halt(within(t)); err != nil {
		t.Fatal(err)
	}
	// A named pipe in place of the AOF: Redis hangs while it loads.
	parts, err := filepath.Glob(filepath.Join(s.RedisDir(), "appendonlydir", "*.incr.aof"))
	if err != nil || len(parts) != 1 {
		t.Fatalf("parts of the AOF: %v, %v", parts, err)
	}
	if err := os.Remove(parts[0]); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(parts[0], 0o600); err != nil {
		t.Fatal(err)
	}
	resumed := make(chan error, 1)
	go func() { resumed <- s.Redis().Resume(within(t)) }()
	eventually(t, "it starts", func() bool { return s.Redis().Pid() != 0 })
	stopping, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := s.Stop(stopping); err != nil {
		t.Error(err)
	}
	if err := <-resumed; !errors.Is(err, stack.ErrStopped) {
		t.Errorf("Resume: %v, want ErrStopped", err)
	}
	if s.Redis().Pid() != 0 {
		t.Error("it runs")
	}
}

//servers:redis
func TestChild_RewriteOfAKilledRedisLeavesNoFiles(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	withRedis(t, s, func(client *redis.Client) {
		// Each key delays the rewrite, so that the kill surely falls into it.
		if err := client.ConfigSet(within(t), "rdb-key-save-delay", "1000000").Err(); err != nil {
			t.Fatal(err)
		}
		for _, key := range strings.Split("abcdefghijklmnop", "") {
			client.Set(within(t), key, "value", 0)
		}
		if err := client.BgRewriteAOF(within(t)).Err(); err != nil {
			t.Fatal(err)
		}
	})
	temps := func() []string {
		found, err := filepath.Glob(filepath.Join(s.RedisDir(), "temp-*"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	eventually(t, "the rewrite runs", func() bool { return len(temps()) > 0 })
	if err := s.Redis().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	if left := processesBelow(t, s.RedisDir()); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
	if err := s.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	if left := temps(); len(left) > 0 {
		t.Errorf("left lying: %v", left)
	}
}

// A machine that kills both servers time and again, which had been well, has them back within a second each time.
func TestChild_KilledTogetherTimeAndAgainComesBackSoon(t *testing.T) {
	t.Parallel()
	const (
		kills    = 5
		pauseMax = time.Second
	)
	var log transcript
	s := stacktest.Start(t, stack.Options{DataDir: stacktest.Initialised(t), Log: log.logger()})
	children := []*stack.Child{s.Redis(), s.Postgres()}
	for range kills {
		var killed []int
		for _, child := range children {
			killed = append(killed, child.Pid())
			if err := child.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		for i, child := range children {
			eventually(t, "another process", func() bool { return child.Pid() != 0 && child.Pid() != killed[i] })
			if err := child.Ready(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the supervisor knows", func() bool {
			for _, child := range children {
				if !strings.Contains(log.String(), "pid="+itoa(child.Pid())+" after=") {
					return false
				}
			}
			return true
		})
	}
	deaths := 0
	for line := range strings.Lines(log.String()) {
		_, pause, found := strings.Cut(line, " pause=")
		if !found {
			continue
		}
		pause, _, _ = strings.Cut(pause, " ")
		if took, err := time.ParseDuration(pause); err != nil || took > pauseMax {
			t.Errorf("%s (%v) before a restart, want %s at most", pause, err, pauseMax)
		}
		deaths++
	}
	if deaths != 2*kills {
		t.Errorf("%d deaths were logged, want %d", deaths, 2*kills)
	}
}

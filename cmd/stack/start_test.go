package stack_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

//servers:redis,postgres
func TestStart_DataOutlivesTheStack(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := stacktest.Start(t, stack.Options{DataDir: dir})
	remember(t, first, "from the first start")
	for range 2 { // the second one is to change nothing
		if err := first.Stop(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	second := stacktest.Start(t, stack.Options{DataDir: dir})
	wantRemembered(t, second, "from the first start")
}

//servers:redis,postgres
func TestStart_ServersAreSetUpAsPromised(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{})
	withRedis(t, s, func(client *redis.Client) {
		for name, want := range map[string]string{
			"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "save": "", "bind": "127.0.0.1",
		} {
			if got := client.ConfigGet(within(t), name).Val()[name]; got != want {
				t.Errorf("Redis: %s is %q, want %q", name, got, want)
			}
		}
	})
	withPostgres(t, s, func(conn *pgx.Conn) {
		for name, want := range map[string]string{
			"fsync": "on", "synchronous_commit": "on", "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
			"shared_buffers": "256MB", "max_wal_size": "2GB", "max_connections": "300", "server_encoding": "UTF8",
			"password_encryption": "scram-sha-256", "data_checksums": "off", "lc_collate": "C",
		} {
			var got string
			err := conn.QueryRow(within(t), "select current_setting($1)", name).Scan(&got)
			if err != nil && name != "lc_collate" { // gone since PostgreSQL 16
				t.Errorf("PostgreSQL: %s: %v", name, err)
			}
			if err == nil && got != want {
				t.Errorf("PostgreSQL: %s is %q, want %q", name, got, want)
			}
		}
	})
}

func TestStart_EverySecAndMemoryLimitReachRedis(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{
		Durability: stack.DurabilityEverySec, MaxMemory: 123 << 20, NoPostgres: true,
	})
	withRedis(t, s, func(client *redis.Client) {
		for name, want := range map[string]string{"appendfsync": "everysec", "maxmemory": "128974848"} {
			if got := client.ConfigGet(within(t), name).Val()[name]; got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
	if s.Postgres() != nil || s.PostgresURL() != "" || s.PostgresDir() != "" {
		t.Error("a PostgreSQL that was not asked for")
	}
}

func TestStart_PostgresAlone(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoRedis: true})
	withPostgres(t, s, func(conn *pgx.Conn) {
		if err := conn.Ping(within(t)); err != nil {
			t.Error(err)
		}
	})
	if s.Redis() != nil || s.RedisURL() != "" || s.RedisSocket() != "" {
		t.Error("a Redis that was not asked for")
	}
}

func TestStart_OddCharactersInThePath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(stacktest.Dir(t), `a "b" \c [d]* ü, é`)
	s := stacktest.Start(t, stack.Options{DataDir: dir})
	remember(t, s, "odd")
	if err := s.Redis().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := s.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	wantRemembered(t, s, "odd")
}

func TestStart_SocketWhereThePathIsShort(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	client := redis.NewClient(&redis.Options{Network: "unix", Addr: s.RedisSocket(), Password: password(t, s.RedisURL())})
	defer func() { _ = client.Close() }()
	if err := client.Ping(within(t)).Err(); err != nil {
		t.Error(err)
	}

	long := filepath.Join(stacktest.Dir(t), strings.Repeat("x", 90))
	s = stacktest.Start(t, stack.Options{NoPostgres: true, DataDir: long})
	if s.RedisSocket() != "" {
		t.Errorf("a socket at %s, which is too long", s.RedisSocket())
	}
}

func TestStart_HeldDirNamesTheHolder(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true})
	_, err := stack.Start(within(t), stack.Options{DataDir: dir})
	var held *stack.HeldError
	if !errors.As(err, &held) || held.Pid != os.Getpid() || held.Dir != dir {
		t.Errorf("got %v, want a HeldError of %s by us", err, dir)
	}
	if !errors.Is(err, stack.ErrConfig) {
		t.Error("not of the kind that the operator can mend")
	}
	if err := stack.Remove(dir); !errors.As(err, &held) {
		t.Errorf("Remove of a live directory: %v, want a HeldError", err)
	}
}

func TestStart_LockOfADeadProcessIsNoObstacle(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	// Our parent lives, but holds no flock: a recycled pid.
	writeText(t, filepath.Join(dir, "lock"), "1\n")
	stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true})
}

func TestStart_CancelledLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	// Early in the look for the programs, within initdb, and late.
	for _, after := range []time.Duration{time.Millisecond, 150 * time.Millisecond, 400 * time.Millisecond} {
		dir := stacktest.Dir(t)
		ctx, cancel := context.WithTimeout(t.Context(), after)
		s, err := stack.Start(ctx, stack.Options{DataDir: dir, Log: slog.New(slog.DiscardHandler)})
		cancel()
		switch {
		case err == nil: // a quick machine
			if err := s.Stop(within(t)); err != nil {
				t.Error(err)
			}
		case !errors.Is(err, context.DeadlineExceeded):
			t.Errorf("after %s: %v", after, err)
		}
		if left := processesBelow(t, dir); len(left) > 0 {
			t.Errorf("after %s: left running: %v", after, left)
		}
		s = stacktest.Start(t, stack.Options{DataDir: dir})
		remember(t, s, "whole")
		if err := s.Stop(within(t)); err != nil {
			t.Error(err)
		}
	}
}

//servers:postgres
func TestStart_InterruptedInitdbStartsOver(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	draft := filepath.Join(dir, "postgres.new", "data")
	if err := os.MkdirAll(draft, 0o711); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(draft, "PG_VERSION"), "15\n")
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoRedis: true})
	if _, err := os.Stat(filepath.Dir(draft)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the draft is still there: %v", err)
	}
	withPostgres(t, s, func(*pgx.Conn) {})
}

func TestFreePort_LiesBelowOutgoingConnections(t *testing.T) {
	t.Parallel()
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	var low int
	if _, err := fmt.Sscan(string(text), &low); err != nil {
		t.Fatal(err)
	}
	if low > 11_000 && (port < 10_000 || port >= low) {
		t.Errorf("port %d, want one from 10000 to below %d", port, low)
	}
}

func TestOnFreePort_TakesAnotherWhenOneWasTaken(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		taken int // so many starts lose the race
		calls int
		fails bool
	}{
		{"once", 1, 2, false},
		{"always", 99, stack.StartTriesMax, true},
		{"never", 0, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			calls := 0
			err := stack.OnFreePort(func(port int) error {
				if calls++; calls > c.taken {
					return nil
				}
				listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", itoa(port)))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = listener.Close() })
				return &stack.ExitError{Name: "server"}
			})
			if calls != c.calls || (err != nil) != c.fails {
				t.Errorf("%d starts and %v, want %d", calls, err, c.calls)
			}
		})
	}
}

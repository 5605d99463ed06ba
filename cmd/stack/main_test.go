package stack_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/goleak"

	"stampede/cmd/stack"
)

// ownerEnv makes the test binary an owner of the data directory it names, to be
// killed by the test.
const (
	ownerEnv      = "STACK_TEST_OWNER"
	ownerNodesEnv = "STACK_TEST_OWNER_NODES" // of Redis
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerEnv); dir != "" {
		os.Exit(own(dir))
	}
	goleak.VerifyTestMain(m)
}

// own runs a stack, prints the pids of its servers, and waits to be killed.
func own(dir string) int {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	nodes, err := strconv.Atoi(os.Getenv(ownerNodesEnv))
	if err != nil {
		log.Error("read "+ownerNodesEnv, "error", err)
		return 1
	}
	s, err := stack.Start(context.Background(), stack.Options{DataDir: dir, RedisNodes: nodes, Log: log})
	if err != nil {
		log.Error("start", "error", err)
		return 1
	}
	fmt.Println(s.Redises()[0].Pid(), s.Postgres().Pid())
	_, _ = io.Copy(io.Discard, os.Stdin) // the test holds the other end
	return 0
}

// within is the context of one step of a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// withRedis runs f on a connection to the stack's Redis.
func withRedis(t *testing.T, s *stack.Stack, f func(*redis.Client)) {
	t.Helper()
	opts, err := redis.ParseURL(s.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(opts)
	f(client)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

// withPostgres runs f on a connection to the stack's PostgreSQL.
func withPostgres(t *testing.T, s *stack.Stack, f func(*pgx.Conn)) {
	t.Helper()
	conn, err := pgx.Connect(within(t), s.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	f(conn)
	if err := conn.Close(within(t)); err != nil {
		t.Error(err)
	}
}

// remember writes one value into both servers.
func remember(t *testing.T, s *stack.Stack, value string) {
	t.Helper()
	withRedis(t, s, func(client *redis.Client) {
		if err := client.Set(within(t), "kept", value, 0).Err(); err != nil {
			t.Fatal(err)
		}
	})
	withPostgres(t, s, func(conn *pgx.Conn) {
		_, err := conn.Exec(within(t), "create table kept as select $1::text as value", value)
		if err != nil {
			t.Fatal(err)
		}
	})
}

// wantRemembered fails unless both servers hold the value.
func wantRemembered(t *testing.T, s *stack.Stack, want string) {
	t.Helper()
	withRedis(t, s, func(client *redis.Client) {
		if got, err := client.Get(within(t), "kept").Result(); err != nil || got != want {
			t.Errorf("Redis holds %q (%v), want %q", got, err, want)
		}
	})
	withPostgres(t, s, func(conn *pgx.Conn) {
		var got string
		if err := conn.QueryRow(within(t), "select value from kept").Scan(&got); err != nil || got != want {
			t.Errorf("PostgreSQL holds %q (%v), want %q", got, err, want)
		}
	})
}

// eventually polls until ok, for things that happen in other processes.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// transcript is a log that a test reads while it is written.
type transcript struct {
	mu   sync.Mutex
	text strings.Builder
}

func (t *transcript) Write(line []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(line)
}

func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (t *transcript) logger() *slog.Logger { return slog.New(slog.NewTextHandler(t, nil)) }

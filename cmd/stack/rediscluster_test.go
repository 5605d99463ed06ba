package stack_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// withCluster runs f on a client of the stack's Redis Cluster.
func withCluster(t *testing.T, s *stack.Stack, f func(*redis.ClusterClient)) {
	t.Helper()
	opts := &redis.ClusterOptions{
		Password:                 password(t, s.RedisURL()),
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	for _, node := range s.Redises() {
		opts.Addrs = append(opts.Addrs, node.Addr)
	}
	client := redis.NewClusterClient(opts)
	f(client)
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}

// withNode runs f on a connection to one node.
func withNode(t *testing.T, node stack.RedisNode, f func(*redis.Client)) {
	t.Helper()
	opts, err := redis.ParseURL(node.URL)
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

// keysOfAll lie on all masters.
const keysOfAll = 30

func spread(t *testing.T, s *stack.Stack) {
	t.Helper()
	withCluster(t, s, func(client *redis.ClusterClient) {
		for n := range keysOfAll {
			if err := client.Set(within(t), fmt.Sprint("key", n), n, 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// wantSpread fails unless each node serves, and all keys are there.
func wantSpread(t *testing.T, s *stack.Stack) {
	t.Helper()
	withCluster(t, s, func(client *redis.ClusterClient) {
		for n := range keysOfAll {
			if got, err := client.Get(within(t), fmt.Sprint("key", n)).Int(); err != nil || got != n {
				t.Errorf("key%d is %d (%v)", n, got, err)
			}
		}
	})
	for _, node := range stacktest.Masters(t, s) {
		withNode(t, node, func(client *redis.Client) {
			if n := client.DBSize(within(t)).Val(); n == 0 || n == keysOfAll {
				t.Errorf("%s has %d keys of %d", node.Addr, n, keysOfAll)
			}
		})
	}
}

//servers:redis
func TestCluster_IsSetUpAsPromised(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true, RedisNodes: 3, MaxMemory: 123 << 20})
	if n := len(stacktest.Masters(t, s)); n != 3 {
		t.Fatalf("%d masters", n)
	}
	if s.Redis() != nil || s.RedisSocket() != "" {
		t.Error("a single Redis of a cluster")
	}
	for _, node := range s.Redises() {
		withNode(t, node, func(client *redis.Client) {
			for name, want := range map[string]string{
				"appendonly": "yes", "appendfsync": "always", "maxmemory": "128974848", "maxmemory-policy": "noeviction", "save": "",
				"bind": "127.0.0.1", "dir": node.Dir, "cluster-enabled": "yes", "cluster-node-timeout": "2500",
				"cluster-require-full-coverage": "no", "cluster-allow-replica-migration": "no",
				"masterauth": password(t, s.RedisURL()), "requirepass": password(t, s.RedisURL()),
			} {
				if got := client.ConfigGet(within(t), name).Val()[name]; got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		})
	}
	spread(t, s)
	wantSpread(t, s)
}

//servers:redis
func TestCluster_OutlivesKillsAndMovesToOtherPorts(t *testing.T) {
	t.Parallel()
	opts := stack.Options{DataDir: stacktest.Dir(t), NoPostgres: true, RedisNodes: 3}
	s := stacktest.Start(t, opts)
	spread(t, s)
	node := s.Redises()[1]
	killed := node.Pid()
	if err := node.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another process", func() bool { return node.Pid() != 0 && node.Pid() != killed })
	eventually(t, "it serves again", func() (ok bool) {
		withNode(t, node, func(client *redis.Client) {
			ok = strings.Contains(client.ClusterInfo(within(t)).Val(), "cluster_state:ok")
		})
		return ok
	})
	wantSpread(t, s)
	before := addresses(s)
	// Nobody in the way, then one port taken, then all of them: whoever moves is found again.
	held := 0
	for _, moves := range []int{0, 1, 3} {
		if err := s.Stop(within(t)); err != nil {
			t.Fatal(err)
		}
		for ; held < moves; held++ {
			addr := before[held]
			listener, err := net.Listen("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
		}
		opts.RedisNodes = 0 // as the directory has it
		s = stacktest.Start(t, opts)
		now := addresses(s)
		for i := range before {
			if moved := now[i] != before[i]; moved != (i < moves) {
				t.Errorf("with %d ports taken node %d went from %s to %s", moves, i+1, before[i], now[i])
			}
		}
		wantSpread(t, s)
	}
}

func addresses(s *stack.Stack) (all []string) {
	for _, node := range s.Redises() {
		all = append(all, node.Addr)
	}
	return all
}

//servers:redis
func TestCluster_ReplicaTakesOver(t *testing.T) {
	t.Parallel()
	opts := stack.Options{
		DataDir: stacktest.Dir(t), NoPostgres: true, RedisNodes: 3, RedisReplicas: 1, RedisNodeTimeout: 500 * time.Millisecond,
	}
	s := stacktest.Start(t, opts)
	spread(t, s)
	old := stacktest.Masters(t, s)[0]
	withNode(t, old, func(client *redis.Client) {
		if err := client.Wait(within(t), 1, 10*time.Second).Err(); err != nil {
			t.Fatal(err)
		}
	})
	if err := old.HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	promoted := stacktest.AwaitPromotion(t, s, old)
	if promoted.Addr != s.Redises()[3].Addr {
		t.Errorf("%s took over from %s, want its own replica", promoted.Addr, old.Addr)
	}
	wantSpread(t, s)
	if err := old.Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the old master follows", func() (ok bool) {
		withNode(t, old, func(client *redis.Client) {
			ok = strings.Contains(client.Info(within(t), "replication").Val(), "master_link_status:up")
		})
		return ok
	})
	if now := stacktest.Masters(t, s); now[0].Addr != promoted.Addr || len(now) != 3 {
		t.Errorf("%v serve, want %s and two more", now, promoted.Addr)
	}
	if err := s.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	// Its data may be the replica's by now.
	_, err := stack.Start(within(t), stack.Options{DataDir: opts.DataDir, NoPostgres: true, RedisNodes: 3})
	wantConfigError(t, err, "1 replicas")
	s = stacktest.Start(t, opts)
	wantSpread(t, s)
}

func TestCluster_OtherNumberOfNodesIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		holds string
		nodes int
		word  string
	}{
		{"redis/appendonlydir", 3, "--redis-nodes 1"},
		{"redis-1/nodes.conf", 1, "--redis-nodes 3"},
	} {
		dir := stacktest.Dir(t)
		if err := os.MkdirAll(filepath.Join(dir, c.holds), 0o700); err != nil {
			t.Fatal(err)
		}
		_, err := stack.Start(within(t), stack.Options{DataDir: dir, RedisNodes: c.nodes})
		wantConfigError(t, err, dir, c.word, "--data-dir")
	}
}

// What a start that is killed on its way leaves, the next one finishes.
func TestCluster_HalfMadeIsFinished(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                   string
		replicas, nodes, steps int
	}{
		{"one node has an epoch", 0, 1, 2},
		{"slots are given away, nobody has met", 1, 3, 3},
		{"a replica meets the masters, another is new", 1, 4, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := stack.Options{DataDir: stacktest.Dir(t), NoPostgres: true, RedisNodes: 3, RedisReplicas: c.replicas}
			if err := stack.FormPart(t.Context(), opts, c.nodes, c.steps); err != nil {
				t.Fatal(err)
			}
			s := stacktest.Start(t, opts)
			spread(t, s)
			wantSpread(t, s)
		})
	}
}

func TestCluster_CancelledLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	opts := stack.Options{DataDir: stacktest.Dir(t), NoPostgres: true, RedisNodes: 3, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second) // Redis itself needs two
	defer cancel()
	if _, err := stack.Start(ctx, opts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want to hear that the time was up", err)
	}
	if left := processesBelow(t, opts.DataDir); len(left) > 0 {
		t.Errorf("left running: %v", left)
	}
}

func TestCluster_StopsWhatAKilledOwnerLeft(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := startOwner(t, dir, 3)
	first.kill(t)
	left := processesBelow(t, filepath.Join(dir, "redis-"))
	if len(left) != 3 {
		t.Fatalf("%d nodes outlived their owner: nothing to test", len(left))
	}
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true})
	spread(t, s)
	wantSpread(t, s)
	for _, link := range left {
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err != nil || alive(pid) {
			t.Errorf("process %d still runs (%v)", pid, err)
		}
	}
}

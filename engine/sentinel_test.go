package engine_test

import (
	"errors"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

// startSentinel runs a sentinel that watches a Redis, given by its URL, as "shop".
func startSentinel(t *testing.T, watched *url.URL) (addr string) {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr = free.Addr().String()
	host, port, _ := net.SplitHostPort(addr)
	_ = free.Close()
	password, _ := watched.User.Password()
	config := []string{
		"bind " + host, "port " + port, "protected-mode no",
		"sentinel monitor shop " + watched.Hostname() + " " + watched.Port() + " 1", "sentinel auth-pass shop " + password,
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "sentinel.conf")
	if err := os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := exec.Command(stacktest.RedisProgram(t, "server"), file, "--sentinel")
	sentinel.Dir = dir
	if err := sentinel.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = sentinel.Process.Kill()
		_ = sentinel.Wait()
	})
	await(t, "the sentinel", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return addr
}

//servers:redis
func TestConnect_FindsTheMasterThatSentinelsWatch(t *testing.T) {
	l := lab.open(t)
	watched, err := url.Parse(l.url(0))
	if err != nil {
		t.Fatal(err)
	}
	sentinel := startSentinel(t, watched)
	before := "redis+sentinel://" + watched.User.String() + "@127.0.0.1:1," + sentinel

	client, err := engine.Connect(engine.Redis{URL: before + "/shop"}, 2, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // nothing is pending
	info, err := client.Info(within(t, patience), "server").Result()
	if err != nil || !strings.Contains(info, "tcp_port:"+watched.Port()+"\r\n") {
		t.Errorf("found another server than the one watched: %v", err)
	}

	unknown, err := engine.Connect(engine.Redis{URL: before + "/another"}, 2, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer unknown.Close() //nolint:errcheck // nothing is pending
	err = unknown.Ping(within(t, patience)).Err()
	var dial *net.OpError
	if !errors.As(err, &dial) || dial.Op != "dial" {
		t.Errorf("a master that nobody watches: %v", err)
	}
	if text := engine.Explain(err); !strings.Contains(text, "do they watch a master of that name") {
		t.Errorf("explained as %q", text)
	}
	if _, is := client.(*redis.Client); !is || engine.IsCluster(client) {
		t.Error("a watched master is no cluster")
	}
}

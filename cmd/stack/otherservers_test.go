package stack_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

//servers:redis
func TestStart_RecordsWhichServerWroteTheData(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	var want string
	withRedis(t, s, func(client *redis.Client) {
		server := client.InfoMap(within(t), "server").Val()["Server"]
		want = "Redis " + server["redis_version"]
		if server["server_name"] == "valkey" {
			want = "Valkey " + server["valkey_version"]
		}
	})
	path := filepath.Join(s.RedisDir(), "server.version")
	if got, err := os.ReadFile(path); err != nil || string(got) != want+"\n" {
		t.Errorf("%s holds %q (%v), want %q", path, got, err, want)
	}
}

// A run with another Redis or Valkey goes on with the data of the usual one, and never the other way round once the
// other has written its own format.
//
//servers:redis
func TestStart_AnotherServerGoesOnAndNoOlderOneAfterIt(t *testing.T) {
	t.Parallel()
	other := os.Getenv(stacktest.RedisBinEnv)
	if other == "" {
		t.Skipf("%s names no other server", stacktest.RedisBinEnv)
	}
	var rest []string
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir != other {
			rest = append(rest, dir)
		}
	}
	path := func(dirs ...string) string { return strings.Join(dirs, string(filepath.ListSeparator)) }
	dir := stacktest.Dir(t)
	usual := stack.WithSystem(stack.Options{DataDir: dir, NoPostgres: true}, path(rest...), "", "")
	changed := stack.WithSystem(stack.Options{DataDir: dir, NoPostgres: true}, path(other), "", "")
	written := func(s *stack.Stack) string {
		text, err := os.ReadFile(filepath.Join(s.RedisDir(), "server.version"))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(text))
	}
	first := stacktest.Start(t, usual)
	before := written(first)
	withRedis(t, first, func(client *redis.Client) {
		if err := client.Set(within(t), "kept", "from the usual one", 0).Err(); err != nil {
			t.Fatal(err)
		}
	})
	if err := first.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	second := stacktest.Start(t, changed)
	after := written(second)
	if after == before {
		t.Skipf("both are %s", after)
	}
	withRedis(t, second, func(client *redis.Client) {
		if got := client.Get(within(t), "kept").Val(); got != "from the usual one" {
			t.Errorf("kept is %q", got)
		}
		if err := client.BgRewriteAOF(within(t)).Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a new base", func() bool {
			return strings.Contains(client.Info(within(t), "persistence").Val(), "aof_rewrite_in_progress:0")
		})
	})
	if err := second.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	_, err := stack.Start(within(t), usual)
	wantConfigError(t, err, "was written by "+after, before, "in PATH")
	wantConfigError(t, err, "nothing was changed")
	third := stacktest.Start(t, changed)
	withRedis(t, third, func(client *redis.Client) {
		if got := client.Get(within(t), "kept").Val(); got != "from the usual one" {
			t.Errorf("kept is %q", got)
		}
	})
}

// A Valkey runs under a name of its own, also when it is all that a killed owner left.
//
//servers:redis
func TestStart_StopsALeftoverThatIsCalledValkey(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	if err := os.Symlink(stacktest.RedisProgram(t, "server"), filepath.Join(bin, "valkey-server")); err != nil {
		t.Fatal(err)
	}
	dir := stacktest.Dir(t)
	first := startOwner(t, dir, 1, stacktest.RedisBinEnv+"=", "PATH="+bin+string(filepath.ListSeparator)+os.Getenv("PATH"))
	first.kill(t)
	name, err := os.ReadFile(filepath.Join("/proc", itoa(first.redis), "comm"))
	if err != nil || strings.TrimSpace(string(name)) != "valkey-server" {
		t.Fatalf("the leftover is called %q (%v)", name, err)
	}
	stacktest.Start(t, stack.Options{DataDir: dir})
	if alive(first.redis) {
		t.Error("the server of the killed owner still runs")
	}
}

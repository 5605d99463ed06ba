package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"stampede/cmd/stack/stacktest"
)

const secret = "hunter2secret"

// wantRefused runs the command and wants one helpful line, exit code 2, and no secret.
func wantRefused(t *testing.T, want string, args ...string) {
	t.Helper()
	code, out, text := finish(t, args...)
	line := lastLine(text)
	if code != exitFailed {
		t.Errorf("%v: exit code %d, want 2", args, code)
	}
	if !strings.HasPrefix(line, "stampede: ") || !strings.Contains(line, want) {
		t.Errorf("%v: %q, want something about %q", args, line, want)
	}
	if strings.Contains(out+text, secret) {
		t.Errorf("%v: tells a secret:\n%s%s", args, out, text)
	}
	if strings.Contains(text, "goroutine ") {
		t.Errorf("%v: a stack trace:\n%s", args, text)
	}
}

// lastLine is the message; log lines may stand before it.
func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndex(text, "\n")+1:]
}

func TestRefused_BeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	parent := t.TempDir()
	dir := filepath.Join(parent, "data")
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := taken.Addr().String()
	servers := []string{
		"STAMPEDE_REDIS_URL=redis://default:" + secret + "@127.0.0.1:1/0",
		"STAMPEDE_POSTGRES_URL=postgres://u:" + secret + "@127.0.0.1:1/d",
		"STAMPEDE_ADMIN_TOKEN=" + secret,
	}
	serve := func(args ...string) []string {
		return append(append([]string{}, servers...), append([]string{"serve"}, args...)...)
	}
	up := func(args ...string) []string { return append([]string{"up", "--data-dir", dir}, args...) }
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"nothing to do", "see stampede --help", nil},
		{"unknown command", "see stampede --help", []string{"upp"}},
		{"unknown flag", "unknown flag --demoo", up("--demoo")},
		{"bad number", "--partitions", up("--partitions", "many")},
		{"too many partitions", "1 to 240", up("--partitions", "241")},
		{"bad durability", "--durability", up("--durability", "never")},
		{"replicas", "needs replicas", up("--durability", "replica")},
		{"two nodes", "--redis-nodes", up("--redis-nodes", "2")},
		{"token that no client can send", "Bearer token", up("--admin-token", "a b")},
		{"jwt", "--auth", up("--auth", "jwt")},
		{"hold of no time", "--hold must be 1s to 24h", up("--hold", "0")},
		{"hold too short", "--hold must be 1s to 24h", up("--hold", "999ms")},
		{"hold too long", "--hold must be 1s to 24h", up("--hold", "24h1s")},
		{"hold before now", "--hold must be 1s to 24h", up("--hold=-5m")},
		{"hold without a unit", "--hold", up("--hold", "300")},
		{"hold of the environment", "--hold must be 1s to 24h", append([]string{"STAMPEDE_HOLD=5ms"}, up()...)},
		{"refund window before now", "--refund-window must be 0 to 87600h", up("--refund-window=-1s")},
		{"refund window without end", "--refund-window must be 0 to 87600h", up("--refund-window", "87601h")},
		{"serve, hold too short", "--hold must be 1s to 24h", serve("--hold", "5ms")},
		{"serve, refund window before now", "--refund-window must be 0", serve("--refund-window=-1s")},
		{"port in use", "in use", up("--addr", inUse)},
		{"no port", "host:port", up("--addr", "localhost")},
		{"address of another machine", "does not have the address", up("--addr", "192.0.2.1:80", "--auth", "trusted")},
		{"open to others", "--auth trusted", up("--addr", "0.0.0.0:0")},
		{"serve open to others", "--auth trusted", serve("--addr", ":0")},
		{"serve, port in use", "in use", serve("--addr", inUse)},
		{"serve without Redis", "STAMPEDE_REDIS_URL", []string{"serve"}},
		{"serve without PostgreSQL", "STAMPEDE_POSTGRES_URL", []string{servers[0], "serve"}},
		{"serve without a token", "STAMPEDE_ADMIN_TOKEN", []string{servers[0], servers[1], "serve"}},
		{"serve with empty variables", "STAMPEDE_REDIS_URL", []string{"STAMPEDE_REDIS_URL=", "STAMPEDE_ADDR=", "serve"}},
		{"nobody at the URL", "is it running", serve("--addr", "127.0.0.1:0")},
		{"a cluster's URL with a database", "database 0", []string{"STAMPEDE_REDIS_URL=redis://u:" + secret + "@127.0.0.1:1,127.0.0.1:2/3", servers[1], "audit"}},
		{"a cluster of nobody", "is it running", []string{"STAMPEDE_REDIS_URL=redis://u:" + secret + "@127.0.0.1:1,127.0.0.1:2", servers[1], "audit"}},
		{"no sentinel", "are they running", []string{"STAMPEDE_REDIS_URL=redis+sentinel://u:" + secret + "@127.0.0.1:1/m", servers[1], "audit"}},
		{"a Redis URL that is none", "redis+sentinel://", []string{"STAMPEDE_REDIS_URL=redis//" + secret, servers[1], "audit"}},
		{"serve, a durability of Redis' own", "--durability", serve("--durability", "fsync")},
		{"a URL that is none", "cannot be read", []string{servers[0], "STAMPEDE_POSTGRES_URL=" + secret + "%zz://", servers[2], "serve", "--addr", "127.0.0.1:0"}},
		{"audit without a stack", "stampede up", []string{"audit", "--data-dir", dir}},
		{"audit with one URL", "both", []string{servers[0], "audit"}},
		{"audit of nobody", "is it running", []string{servers[0], servers[1], "audit"}},
		{"restore without a stack", "stampede up", []string{"restore", "--data-dir", dir}},
		{"restore of nobody", "is it running", []string{servers[0], servers[1], "restore"}},
	} {
		t.Run(c.name, func(t *testing.T) { wantRefused(t, c.want, c.args...) })
	}
	if entries, err := os.ReadDir(parent); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}

func TestRefused_DataDirThatIsAFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, path, "up", "--addr", "127.0.0.1:0", "--data-dir", filepath.Join(path, "data"))
}

func TestRefused_BesideARunningStack(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	e := env(t, dir)
	redisURL, postgresURL := "STAMPEDE_REDIS_URL="+e.redisURL, "STAMPEDE_POSTGRES_URL="+e.postgresURL
	token, addr := "STAMPEDE_ADMIN_TOKEN="+secret, "STAMPEDE_ADDR=127.0.0.1:0"

	wantRefused(t, "in use by process", "up", "--addr", "127.0.0.1:0", "--data-dir", dir)
	wantRefused(t, "password", redisURL, "STAMPEDE_POSTGRES_URL="+withPassword(t, e.postgresURL), token, addr, "serve")
	wantRefused(t, "password", "STAMPEDE_REDIS_URL="+withPassword(t, e.redisURL), postgresURL, token, addr, "serve")
	wantRefused(t, "partitions", redisURL, postgresURL, token, addr, "serve", "--partitions", "4")
	wantRefused(t, "--durability replica needs replicas", redisURL, postgresURL, token, addr, "serve", "--durability", "replica")
	alone := strings.TrimSuffix(e.redisURL, "/0")
	wantRefused(t, "several servers", "STAMPEDE_REDIS_URL="+alone+",localhost:"+alone[strings.LastIndex(alone, ":")+1:], postgresURL, token, addr, "serve")
	wantRefused(t, "not empty", "restore", "--data-dir", dir)
	wantRefused(t, "not empty", redisURL, postgresURL, "restore")

	// All of that cost the shop nothing; and a flag wins over its variable.
	beside := launch(t, redisURL, postgresURL, token, "STAMPEDE_ADDR=127.0.0.1:1", "serve", "--addr", "127.0.0.1:0").ready(secret)
	bought := beside.buy("beside@example.com")
	beside.stop()
	s.wantKept(bought)
	s.stop()
	wantRefused(t, "stampede up", "audit", "--data-dir", dir)
}

func TestHelp_TellsNoSecret(t *testing.T) {
	t.Parallel()
	for _, command := range []string{"up", "serve", "audit", "restore"} {
		code, out, text := finish(t, "STAMPEDE_ADMIN_TOKEN="+secret, "STAMPEDE_REDIS_URL=redis://:"+secret+"@h:1",
			"STAMPEDE_POSTGRES_URL=postgres://u:"+secret+"@h:1/d", command, "--help")
		if code != exitDone || strings.Contains(out+text, secret) {
			t.Errorf("%s --help: exit code %d\n%s%s", command, code, out, text)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	code, out, _ := finish(t, "STAMPEDE_PARTITIONS=nonsense-of-another-command", "version")
	if code != exitDone || !strings.HasPrefix(out, "stampede v0-test, commit abc123, go1.") {
		t.Errorf("%d %q", code, out)
	}
}

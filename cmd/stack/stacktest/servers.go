package stacktest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A run of the tests on other servers than those in PATH names their directories.
const (
	RedisBinEnv    = "STAMPEDE_TEST_REDIS_BIN"    // holds redis-server or valkey-server, its check-aof and its cli
	PostgresBinEnv = "STAMPEDE_TEST_POSTGRES_BIN" // holds postgres, initdb and what they need
)

// The directories come first in PATH, where cmd/stack looks, and every program that a test starts. It happens before
// the first test, for all of them and for what they run beside each other.
var errPath = prependToPath(os.Getenv(RedisBinEnv), os.Getenv(PostgresBinEnv))

func prependToPath(dirs ...string) error {
	path := os.Getenv("PATH")
	for _, dir := range dirs {
		if dir != "" {
			path = dir + string(filepath.ListSeparator) + path
		}
	}
	return os.Setenv("PATH", path)
}

// RedisProgram is the path of a program of the Redis or Valkey under test: "server", "cli", "benchmark". A directory
// may lack a client; any will do then.
func RedisProgram(t testing.TB, name string) string {
	t.Helper()
	if errPath != nil {
		t.Fatalf("set PATH: %v", errPath)
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		for _, product := range []string{"redis-", "valkey-"} {
			if path, err := exec.LookPath(filepath.Join(dir, product+name)); err == nil {
				return path
			}
		}
	}
	t.Fatalf("no redis-%s or valkey-%s in PATH", name, name)
	return ""
}

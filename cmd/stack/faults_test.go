package stack_test

import (
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// wantConfigError fails unless the operator can mend err, and its text holds all
// the words.
func wantConfigError(t *testing.T, err error, words ...string) {
	t.Helper()
	if !errors.Is(err, stack.ErrConfig) {
		t.Fatalf("got %v, want an error that the operator can mend", err)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

func TestStart_BadOptions(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	for _, c := range []struct {
		name string
		opts stack.Options
		word string
	}{
		{"no directory", stack.Options{}, "--data-dir"},
		{"durability", stack.Options{DataDir: dir, Durability: "sometimes"}, `"sometimes"`},
		{"memory", stack.Options{DataDir: dir, MaxMemory: -1}, "-1 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := stack.Start(within(t), c.opts)
			wantConfigError(t, err, c.word)
		})
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a refused start made %s: %v", dir, err)
	}
}

func TestStart_UnwritableDirNamesThePath(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	writeText(t, file, "in the way")
	for _, dir := range []string{file, filepath.Join(file, "below"), filepath.Join(file, "far", "below")} {
		_, err := stack.Start(within(t), stack.Options{DataDir: dir})
		wantConfigError(t, err, file, "not a directory", "--data-dir")
	}
	_, err := stack.Start(within(t), stack.Options{DataDir: "/proc/stampede"})
	wantConfigError(t, err, "/proc/stampede", "--data-dir")
}

func TestStart_MissingProgramsSayWhatToInstall(t *testing.T) {
	t.Parallel()
	empty := t.TempDir()
	nowhere := func(o stack.Options) stack.Options {
		o.DataDir = stacktest.Dir(t)
		return stack.WithSystem(o, empty, filepath.Join(empty, "*", "bin"), "")
	}
	_, err := stack.Start(within(t), nowhere(stack.Options{NoPostgres: true}))
	wantConfigError(t, err, "redis-server", "apt-get install redis-server", "make setup")
	_, err = stack.Start(within(t), nowhere(stack.Options{NoRedis: true}))
	wantConfigError(t, err, "postgres", "apt-get install postgresql", "make setup")
}

func TestStart_OldProgramsSayWhichVersion(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	writeScript(t, filepath.Join(bin, "redis-server"), `echo "Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64"`)
	writeScript(t, filepath.Join(bin, "postgres"), `echo "postgres (PostgreSQL) 13.20 (Debian 13.20-1)"`)
	writeScript(t, filepath.Join(bin, "initdb"), "exit 1")
	old := func(o stack.Options) stack.Options {
		o.DataDir = stacktest.Dir(t)
		return stack.WithSystem(o, bin, filepath.Join(bin, "*", "bin"), "")
	}
	_, err := stack.Start(within(t), old(stack.Options{NoPostgres: true}))
	wantConfigError(t, err, "Redis 6.2.14", "Redis 7")
	_, err = stack.Start(within(t), old(stack.Options{NoRedis: true}))
	wantConfigError(t, err, "PostgreSQL 13.20", "PostgreSQL 14")
}

func TestStart_DataOfAnotherPostgresSaysWhichVersion(t *testing.T) {
	t.Parallel()
	s := stacktest.Start(t, stack.Options{NoRedis: true})
	dir := filepath.Dir(s.PostgresDir())
	if err := s.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(s.PostgresDir(), "PG_VERSION"), "9\n")
	_, err := stack.Start(within(t), stack.Options{DataDir: dir, NoRedis: true})
	wantConfigError(t, err, "PostgreSQL 9", "pg_upgrade")
}

func TestStart_LostPasswordIsToldAtOnce(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoRedis: true})
	if err := s.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "postgres.password")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	_, err := stack.Start(within(t), stack.Options{DataDir: dir, NoRedis: true})
	wantConfigError(t, err, path, "put the file back")
}

func TestStart_ServerThatEndsTellsItsLog(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true})
	if err := s.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(s.RedisDir(), "appendonlydir", "appendonly.aof.manifest"), "nonsense\n")
	_, err := stack.Start(within(t), stack.Options{DataDir: dir, NoPostgres: true})
	var exit *stack.ExitError
	if !errors.As(err, &exit) {
		t.Fatalf("got %v, want an ExitError", err)
	}
	wantConfigError(t, err, "redis-server ended", "exit status 1", filepath.Join(dir, "log", "redis.log"), "AOF manifest")
}

func TestStart_NoSecretIsReadable(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	s := stacktest.Start(t, stack.Options{DataDir: dir})
	secrets := []string{password(t, s.RedisURL()), password(t, s.PostgresURL())}
	for _, secret := range secrets {
		if len(secret) < 32 {
			t.Errorf("a password of only %d characters", len(secret))
		}
	}
	if secrets[0] == secrets[1] {
		t.Error("both servers share one password")
	}
	cmdlines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(cmdlines, filepath.Join(dir, "log", "redis.log"), filepath.Join(dir, "log", "postgres.log")) {
		text, err := os.ReadFile(path)
		if err != nil && !strings.HasPrefix(path, "/proc/") {
			t.Error(err)
		}
		for _, secret := range secrets {
			if strings.Contains(string(text), secret) {
				t.Errorf("%s shows a password", path)
			}
		}
	}
	for _, name := range []string{"redis.password", "postgres.password", "redis/redis.conf", "lock", "log/redis.log"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, info.Mode().Perm())
		}
	}
}

func password(t *testing.T, text string) string {
	t.Helper()
	parsed, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := parsed.User.Password()
	return secret
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func writeScript(t *testing.T, path, body string) {
	t.Helper()
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

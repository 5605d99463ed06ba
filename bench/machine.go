package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sys/unix"
)

// machine is where and on what a run was measured.
type machine struct {
	Cores      int    `json:"cores"`
	GoMaxProcs int    `json:"gomaxprocs"` // here and, in the same environment, in the servers
	Kernel     string `json:"kernel"`
	Filesystem string `json:"filesystem"` // below Redis' append-only file
	Go         string `json:"go"`
	Stampede   string `json:"stampede"` // the binary's own words
	Binary     string `json:"binary"`
	Redis      string `json:"redis"` // "Redis 7.0.15", "Valkey 9.1.2"
	Postgres   string `json:"postgres"`
	Durability string `json:"durability"`
}

const inspectMax = 10 * time.Second

// inspect asks the running servers what they are. It takes no flag's word for the durability: a server that does not
// sync before it answers is an error, for its numbers would be compared with those of servers that do.
func (s *shop) inspect(ctx context.Context) (machine, error) {
	ctx, cancel := context.WithTimeout(ctx, inspectMax)
	defer cancel()
	m := machine{
		Cores: runtime.NumCPU(), GoMaxProcs: runtime.GOMAXPROCS(0), Go: runtime.Version(), Binary: s.binary,
	}
	settings, err := s.settings()
	if err != nil {
		return m, err
	}
	version, err := exec.CommandContext(ctx, s.binary, "version").Output()
	if err != nil {
		return m, fmt.Errorf("%s version: %w", s.binary, err)
	}
	m.Stampede = strings.Join(strings.Fields(string(version)), " ")
	if m.Redis, err = inspectRedis(ctx, settings["STAMPEDE_REDIS_URL"]); err != nil {
		return m, fmt.Errorf("ask Redis: %w", err)
	}
	if m.Postgres, err = inspectPostgres(ctx, settings["STAMPEDE_POSTGRES_URL"]); err != nil {
		return m, fmt.Errorf("ask PostgreSQL: %w", err)
	}
	m.Durability = "fsync"
	if m.Kernel, err = kernel(); err != nil {
		return m, err
	}
	m.Filesystem, err = filesystem(s.data)
	return m, err
}

func inspectRedis(ctx context.Context, url string) (version string, err error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return "", err
	}
	client := redis.NewClient(options)
	defer func() { err = errors.Join(err, client.Close()) }()
	info, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return "", err
	}
	config, err := client.ConfigGet(ctx, "append*").Result()
	if err != nil {
		return "", err
	}
	if config["appendonly"] != "yes" || config["appendfsync"] != "always" {
		return "", fmt.Errorf("appendonly is %s and appendfsync %s: that is not the durability fsync",
			config["appendonly"], config["appendfsync"])
	}
	return redisRelease(info["Server"]), nil
}

// redisRelease names the server, and not the Redis with which a Valkey is compatible.
func redisRelease(server map[string]string) string {
	if version := server["valkey_version"]; version != "" {
		return "Valkey " + version
	}
	return "Redis " + server["redis_version"]
}

func inspectPostgres(ctx context.Context, url string) (version string, err error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	var fsync, commit string
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version'), current_setting('fsync'),
		current_setting('synchronous_commit')`).Scan(&version, &fsync, &commit)
	if err == nil && (fsync != "on" || commit != "on") {
		err = fmt.Errorf("fsync is %s and synchronous_commit %s: a commit is not on disk", fsync, commit)
	}
	version, _, _ = strings.Cut(version, " ") // "15.14 (Debian 15.14-0+deb12u1)"
	return version, err
}

func kernel() (string, error) {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	return unix.ByteSliceToString(name.Sysname[:]) + " " + unix.ByteSliceToString(name.Release[:]), nil
}

// inMemory is the filesystem on which a sync proves nothing.
const inMemory = "tmpfs"

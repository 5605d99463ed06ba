package stack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

const (
	redisMajorMin    = 7  // multi-part AOF, functions of the scripts
	postgresMajorMin = 14 // the oldest that is still supported
	versionWaitMax   = 10 * time.Second
)

// system is what Start takes from the machine.
type system struct {
	path         string // directories of programs, as in $PATH
	postgresGlob string // directories of PostgreSQL's programs outside of path
	outside      string // where root puts data that must not lie in the data directory
}

func (s system) withDefaults() system {
	if s.path == "" {
		s.path = os.Getenv("PATH")
	}
	if s.postgresGlob == "" {
		s.postgresGlob = "/usr/lib/postgresql/*/bin" // Debian keeps them out of PATH
	}
	if s.outside == "" {
		s.outside = "/var/lib/stampede"
	}
	return s
}

// childEnv is the whole environment of the servers: tokens and PG* variables of
// ours are none of their business, and their messages are to be in English.
func (s system) childEnv() []string { return []string{"PATH=" + s.path, "LC_ALL=C"} }

// redisBinary finds a redis-server that is new enough.
func (s system) redisBinary(ctx context.Context) (string, error) {
	const advice = "install Redis 7 or newer (apt-get install redis-server), or run make setup"
	path, ok := s.look("redis-server")
	if !ok {
		return "", &ConfigError{What: "redis-server was not found in PATH", Do: advice}
	}
	version, major, err := s.version(ctx, path, redisVersion)
	if err != nil {
		return "", err
	}
	if major < redisMajorMin {
		return "", &ConfigError{What: fmt.Sprintf("%s is Redis %s, which is too old", path, version), Do: advice}
	}
	return path, nil
}

// postgresBinaries are the programs of one installation.
type postgresBinaries struct {
	postgres, initdb string
	major            int
}

// postgresBinaries finds the installation in PATH, else the newest one of the
// distribution; with major > 0 one of exactly that major version, because no
// other can read the files that are there.
func (s system) postgresBinaries(ctx context.Context, major int) (postgresBinaries, error) {
	advice := "install PostgreSQL 14 or newer (apt-get install postgresql), or run make setup"
	what := "postgres and initdb were not found in PATH or " + s.postgresGlob
	if major > 0 {
		advice = fmt.Sprintf("install it (apt-get install postgresql-%d), "+
			"move the data with pg_upgrade, or take another directory with --data-dir", major)
		what = fmt.Sprintf("the data was written by PostgreSQL %d, which was not found", major)
	}
	for _, dir := range s.postgresDirs() {
		found := postgresBinaries{postgres: filepath.Join(dir, "postgres"), initdb: filepath.Join(dir, "initdb")}
		if !executable(found.postgres) || !executable(found.initdb) {
			continue
		}
		version, foundMajor, err := s.version(ctx, found.postgres, postgresVersion)
		if err != nil {
			return found, err
		}
		if foundMajor == major || major == 0 && foundMajor >= postgresMajorMin {
			found.major = foundMajor
			return found, nil
		}
		what += fmt.Sprintf("; %s is PostgreSQL %s", found.postgres, version)
	}
	return postgresBinaries{}, &ConfigError{What: what, Do: advice}
}

// postgresDirs lists where to look, in order.
func (s system) postgresDirs() []string {
	var dirs []string
	if path, ok := s.look("postgres"); ok {
		// A link into the installation: initdb lies beside what it points to.
		if target, err := filepath.EvalSymlinks(path); err == nil {
			dirs = append(dirs, filepath.Dir(target))
		}
	}
	installed, err := filepath.Glob(s.postgresGlob)
	if err != nil {
		return dirs
	}
	slices.SortFunc(installed, func(a, b string) int { return globMajor(b) - globMajor(a) })
	return append(dirs, installed...)
}

// globMajor reads the 15 of /usr/lib/postgresql/15/bin, which does not sort as text.
func globMajor(dir string) int {
	major, err := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	if err != nil {
		return 0
	}
	return major
}

func (s system) look(name string) (string, bool) {
	for _, dir := range filepath.SplitList(s.path) {
		path := filepath.Join(dir, name)
		if filepath.IsAbs(path) && executable(path) {
			return path, true
		}
	}
	return "", false
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

var (
	redisVersion    = regexp.MustCompile(`\bv=((\d+)\S*)`)
	postgresVersion = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)
)

// version asks a program for its version, by text and major number.
func (s system) version(ctx context.Context, path string, pattern *regexp.Regexp) (string, int, error) {
	ctx, cancel := context.WithTimeout(ctx, versionWaitMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = s.childEnv()
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return "", 0, fmt.Errorf("ask %s for its version: %w", path, context.Cause(ctx))
	}
	match := pattern.FindSubmatch(out)
	if err == nil && match == nil {
		err = errors.New("it printed no version")
	}
	if err != nil {
		return "", 0, &ConfigError{What: path + " --version failed", Do: "install it anew", Err: err}
	}
	major, err := strconv.Atoi(string(match[2]))
	if err != nil {
		return "", 0, fmt.Errorf("version of %s: %w", path, err)
	}
	return string(match[1]), major, nil
}

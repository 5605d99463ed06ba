package stack

import (
	"cmp"
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

// redisPrograms are the servers that can run, in order of preference within a directory.
var redisPrograms = []string{"redis-server", "valkey-server"}

// redisBinary is a Redis or a Valkey.
type redisBinary struct {
	path string
	release
}

func (b redisBinary) String() string { return fmt.Sprintf("%s (%s)", b.release, b.path) }

// name is that of the program.
func (b redisBinary) name() string { return filepath.Base(b.path) }

// redisBinary finds a server that is new enough and can open what lies in the homes. If several
// can, it takes one of the product that wrote it, or else the first in PATH.
func (s system) redisBinary(ctx context.Context, homes []string) (redisBinary, error) {
	found, err := s.redisBinaries(ctx)
	if err != nil {
		return redisBinary{}, err
	}
	var product string
	for _, home := range homes {
		wrote, err := whoWrote(home)
		if err != nil {
			return redisBinary{}, err
		}
		product = cmp.Or(product, wrote.by.product)
		var reasons []string
		found = slices.DeleteFunc(found, func(b redisBinary) bool {
			reason := wrote.openable(b.release)
			if reason != nil {
				reasons = append(reasons, fmt.Sprintf("%v (%s)", reason, b.path))
			}
			return reason != nil
		})
		if len(found) == 0 {
			return redisBinary{}, wrote.refusal(home, reasons)
		}
	}
	for _, b := range found {
		if b.product == product {
			return b, nil
		}
	}
	return found[0], nil
}

// redisBinaries are all servers in PATH that are new enough, at least one.
func (s system) redisBinaries(ctx context.Context) ([]redisBinary, error) {
	const advice = "install Redis 7 or newer, or Valkey (apt-get install redis-server), or run make setup"
	var found []redisBinary
	var unfit error = &ConfigError{What: "neither redis-server nor valkey-server was found in PATH", Do: advice}
	for i, path := range s.lookAll(redisPrograms...) {
		by, err := s.redisRelease(ctx, path)
		if err == nil && by.major < redisMajorMin {
			err = &ConfigError{What: fmt.Sprintf("%s is %s, which is too old", path, by), Do: advice}
		}
		switch {
		case err == nil:
			found = append(found, redisBinary{path, by})
		case !errors.Is(err, ErrConfig):
			return nil, err
		case i == 0:
			unfit = err
		}
	}
	if len(found) == 0 {
		return nil, unfit
	}
	return found, nil
}

// redisRelease asks a program which server it is.
func (s system) redisRelease(ctx context.Context, path string) (release, error) {
	match, err := s.version(ctx, path, redisVersion)
	if err != nil {
		return release{}, err
	}
	by, ok := parseRelease(match[1] + " " + match[2])
	if !ok {
		return release{}, fmt.Errorf("version of %s: %q", path, match[0])
	}
	return by, nil
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
		version, err := s.version(ctx, found.postgres, postgresVersion)
		if err != nil {
			return found, err
		}
		foundMajor, err := strconv.Atoi(version[2])
		if err != nil {
			return found, fmt.Errorf("version of %s: %w", found.postgres, err)
		}
		if foundMajor == major || major == 0 && foundMajor >= postgresMajorMin {
			found.major = foundMajor
			return found, nil
		}
		what += fmt.Sprintf("; %s is PostgreSQL %s", found.postgres, version[1])
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
	paths := s.lookAll(name)
	if len(paths) == 0 {
		return "", false
	}
	return paths[0], true
}

// lookAll finds programs by any of the names, in the order of the directories. One that is found
// under several paths counts once.
func (s system) lookAll(names ...string) []string {
	var paths, targets []string
	for _, dir := range filepath.SplitList(s.path) {
		for _, name := range names {
			path := filepath.Join(dir, name)
			if !filepath.IsAbs(path) || !executable(path) {
				continue
			}
			target, err := filepath.EvalSymlinks(path)
			if err != nil || slices.Contains(targets, target) {
				continue
			}
			paths, targets = append(paths, path), append(targets, target)
		}
	}
	return paths
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

var (
	redisVersion    = regexp.MustCompile(`(\w+) server v=(\d+\.\d+\S*)`)
	postgresVersion = regexp.MustCompile(`\(PostgreSQL\) ((\d+)\S*)`)
)

// version asks a program for its version, and returns the match and its groups.
func (s system) version(ctx context.Context, path string, pattern *regexp.Regexp) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionWaitMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Env = s.childEnv()
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask %s for its version: %w", path, context.Cause(ctx))
	}
	match := pattern.FindStringSubmatch(string(out))
	if err == nil && match == nil {
		err = errors.New("it printed no version")
	}
	if err != nil {
		return nil, &ConfigError{What: path + " --version failed", Do: "install it again", Err: err}
	}
	return match, nil
}

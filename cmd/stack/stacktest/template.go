package stacktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"stampede/cmd/stack"
)

// Template is a data directory with a PostgreSQL in it, made by the first test of a process that wants one and copied
// for each: an initdb takes 20 times as long as the start of a server. It must not be copied itself.
//
// Each copy is what a stopped stack leaves, and has its password. How a first start makes all that is tested in
// cmd/stack, which names its directories itself and so gets no copy.
type Template struct {
	// Fill is run on the new database, if set.
	Fill func(ctx context.Context, postgresURL string) error

	once    sync.Once
	err     error
	archive *os.File // of the directory; it has no name any more, and so ends with the process
}

// initialised has an empty database.
var initialised Template

// Initialised is Dir after a first start: PostgreSQL is there, and its database empty.
func Initialised(t testing.TB) string {
	t.Helper()
	return initialised.Dir(t)
}

// Dir returns a copy for one test, removed when the test ends. Where PostgreSQL's data would not lie in the directory,
// because its user cannot get there, it is an empty one.
func (m *Template) Dir(t testing.TB) string {
	t.Helper()
	m.once.Do(func() { m.err = m.make(t) })
	if m.err != nil {
		t.Fatalf("make the data directory that tests copy: %v", m.err)
	}
	dir := Dir(t)
	if m.archive == nil {
		return dir
	}
	if err := m.unpack(dir); err != nil {
		t.Fatalf("copy the data directory: %v", err)
	}
	return dir
}

func (m *Template) make(t testing.TB) error {
	ctx, cancel := context.WithTimeout(context.Background(), waitMax)
	defer cancel()
	dir := Dir(t)
	s, err := stack.Start(ctx, stack.Options{DataDir: dir, NoRedis: true, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		return err
	}
	if m.Fill != nil {
		err = m.Fill(ctx, s.PostgresURL())
	}
	if err := errors.Join(err, s.Stop(ctx)); err != nil {
		return err
	}
	if !strings.HasPrefix(s.PostgresDir(), dir+"/") {
		return nil
	}
	for _, own := range []string{"lock", "log", "redis"} { // of this stack; the next one makes them
		if err := os.RemoveAll(filepath.Join(dir, own)); err != nil {
			return err
		}
	}
	return m.pack(dir)
}

func (m *Template) pack(dir string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(dir), "template-*")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Remove(file.Name()), tar(file, "-c", dir)); err != nil {
		return errors.Join(err, file.Close())
	}
	m.archive = file
	return nil
}

// unpack may run in several tests at a time. As root, files keep their owner: PostgreSQL refuses any other.
func (m *Template) unpack(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return tar(m.archive, "-xp", dir)
}

// tar packs or unpacks. It is another program because it opens and writes a thousand small files, each through several
// calls: Go code takes eight times as long for that under the race detector. It opens the archive for itself, and so
// has a place in it of its own.
func tar(archive *os.File, mode, dir string) error {
	cmd := exec.Command("tar", mode, "-f", "/proc/self/fd/3", "-C", dir, ".")
	cmd.ExtraFiles = []*os.File{archive}
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w: %s", cmd.Args, err, said)
	}
	return nil
}

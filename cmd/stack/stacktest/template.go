package stacktest

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
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
	archive *os.File    // of what lies in the directory; it has no name any more, and so ends with the process
	root    fs.FileInfo // the directory itself
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
	if m.root, err = os.Stat(dir); err != nil {
		return err
	}
	file, err := os.CreateTemp("", "stampede-template-*")
	if err != nil {
		return err
	}
	buffer := bufio.NewWriterSize(file, copyBuffer)
	w := tar.NewWriter(buffer)
	err = errors.Join(os.Remove(file.Name()), w.AddFS(os.DirFS(dir)), w.Close(), buffer.Flush())
	if err != nil {
		return errors.Join(err, file.Close())
	}
	m.archive = file
	return nil
}

const copyBuffer = 1 << 18 // bytes

// unpack may run in several tests at a time.
func (m *Template) unpack(dir string) error {
	root, err := tar.FileInfoHeader(m.root, "")
	if err != nil {
		return err
	}
	if err := place(dir, root, nil); err != nil {
		return err
	}
	from := io.NewSectionReader(m.archive, 0, math.MaxInt64)
	r := tar.NewReader(bufio.NewReaderSize(from, copyBuffer))
	for {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := place(filepath.Join(dir, header.Name), header, r); err != nil {
			return err
		}
	}
}

// place makes a directory or a file with its mode, and as root with its owner: PostgreSQL refuses any other.
func place(path string, header *tar.Header, content io.Reader) error {
	mode := header.FileInfo().Mode()
	var err error
	if mode.IsDir() {
		err = os.Mkdir(path, mode.Perm())
	} else {
		err = writeFile(path, mode.Perm(), content)
	}
	if err != nil || syscall.Geteuid() != 0 {
		return err
	}
	// Last of all: a new owner may take bits of the mode away.
	return errors.Join(os.Lchown(path, header.Uid, header.Gid), os.Chmod(path, mode.Perm()))
}

func writeFile(path string, mode fs.FileMode, content io.Reader) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content)
	return errors.Join(err, file.Close())
}

// Package stacktest gives a test its own Redis and PostgreSQL.
package stacktest

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/stack"
)

// waitMax bounds the start, and the stop after a test.
const waitMax = time.Minute

// Dir returns a data directory for one test, removed when the test ends, in a Temp
// of its own.
func Dir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(Temp(t), "data")
	t.Cleanup(func() {
		if err := stack.Remove(dir); err != nil {
			t.Errorf("remove the data directory: %v", err)
		}
	})
	return dir
}

// Temp returns an empty directory for one test, removed when the test ends. Other
// than t.TempDir, which is closed to other users, PostgreSQL's own user can pass it
// when the tests run as root.
//
// It lies in memory where that has room: a stack has a thousand small files, and
// ext4 searches for ever longer where it made and removed so many of them just
// before. No test can tell, for what a server has written outlives its kill
// anywhere. A benchmark is about disks and runs on one, as does all where TMPDIR
// names a place.
func Temp(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(below(t), "stampede-test-*")
	if err != nil {
		t.Fatalf("make a directory: %v", err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatalf("open the directory to PostgreSQL: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the directory: %v", err)
		}
	})
	return dir
}

const (
	memory    = "/dev/shm"
	memoryMin = 4 << 30 // bytes free: many times what the tests of a run hold at once
)

// below is where a Temp lies; empty stands for os.TempDir.
func below(t testing.TB) string {
	_, benchmark := t.(*testing.B)
	if benchmark || os.Getenv("TMPDIR") != "" || os.Getenv("STAMPEDE_TEST_LONG") != "" {
		return ""
	}
	var room syscall.Statfs_t
	if err := syscall.Statfs(memory, &room); err != nil || room.Bavail*uint64(room.Bsize) < memoryMin {
		return ""
	}
	return memory
}

// Start runs a stack until the test ends. Options.DataDir and Options.Log may be
// left empty: a new directory with PostgreSQL in it already (see Initialised), and
// the log of the test.
func Start(t testing.TB, o stack.Options) *stack.Stack {
	t.Helper()
	switch {
	case o.DataDir != "":
	case o.NoPostgres:
		o.DataDir = Dir(t)
	default:
		o.DataDir = Initialised(t)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	ctx, cancel := context.WithTimeout(t.Context(), waitMax)
	defer cancel()
	s, err := stack.Start(ctx, o)
	if err != nil {
		t.Fatalf("start the stack: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), waitMax)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Errorf("stop the stack: %v", err)
		}
	})
	return s
}

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"stampede/cmd/stack"
)

// workspace is a directory for all that a run leaves, until it ends.
type workspace struct{ path string }

// newWorkspace makes one on a disk: /tmp may be memory, where a sync costs nothing and a durability of fsync would be
// measured as free. TMPDIR chooses another place.
func newWorkspace() (workspace, error) {
	path, err := os.MkdirTemp(cmp.Or(os.Getenv("TMPDIR"), "/var/tmp"), "stampede-bench-*")
	if err != nil {
		return workspace{}, err
	}
	// Passable for the user who runs PostgreSQL when bench is root's.
	if err := os.Chmod(path, 0o711); err != nil {
		return workspace{}, errors.Join(err, os.RemoveAll(path))
	}
	return workspace{path: path}, nil
}

// data is the directory of the servers of one contender.
func (w workspace) data(name string) string { return filepath.Join(w.path, dataPrefix+name) }
func (w workspace) log(name string) string  { return filepath.Join(w.path, name+".log") }

const dataPrefix = "data-"

// remove deletes everything, also what root's PostgreSQL keeps elsewhere, and ends servers that were left running.
func (w workspace) remove() error {
	dirs, err := filepath.Glob(filepath.Join(w.path, dataPrefix+"*"))
	for _, dir := range dirs {
		err = errors.Join(err, stack.Remove(dir))
	}
	return errors.Join(err, os.RemoveAll(w.path))
}

// built is where `make build` leaves the program, seen from the top of the repository.
const built = "bin/stampede"

// binary finds the program to measure: the one that was named, else what `make build` has left, else a new build.
func (w workspace) binary(ctx context.Context, named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if _, err := os.Stat(built); err == nil {
		return filepath.Abs(built)
	}
	path := filepath.Join(w.path, "stampede")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", path, "./cmd/stampede")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build stampede (run bench at the top of the repository, or name a binary "+
			"with --stampede): %w\n%s", err, out)
	}
	return path, nil
}

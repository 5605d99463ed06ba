package stack

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Remove deletes a data directory and what root's PostgreSQL keeps outside of it,
// for tests and benchmarks; nothing in the product calls it. It ends servers that
// a killed owner left, and answers a *HeldError when the owner lives. That there
// is no such directory is no error.
func Remove(path string) (err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir, err := openDataDir(path)
	if err != nil {
		return err
	}
	held, err := acquire(dir.path)
	if err != nil {
		return err
	}
	s := &Stack{dir: dir, locks: []*lock{held}}
	defer func() { err = errors.Join(err, s.releaseLocks()) }()
	home, err := s.enterHome()
	if errors.Is(err, fs.ErrNotExist) { // an earlier Remove came so far
		home, err = dir.path, nil
	}
	if err != nil {
		return err
	}
	used := territory{
		programs: append([]string{"postgres", "initdb"}, redisPrograms...),
		dirs:     []string{dir.redis(), filepath.Join(home, clusterName), filepath.Join(home, clusterDraft)},
	}
	for n := 1; exists(dir.redisNode(n)); n++ {
		used.dirs = append(used.dirs, dir.redisNode(n))
	}
	if _, err := used.clear(syscall.SIGTERM, orphanWaitMax); err != nil {
		return err
	}
	// The record goes last: until then a failed removal can be repeated.
	for _, gone := range []string{home, dir.path} {
		if err := os.RemoveAll(gone); err != nil {
			return unusable(gone, err)
		}
	}
	return nil
}

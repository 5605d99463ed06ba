package stack

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lock is the ownership of a directory. The kernel drops a flock with the process
// that holds it, however that ends, so a lock file left behind is no obstacle; the
// pid in it is only there to tell who holds it.
type lock struct{ file *os.File }

// acquire takes <dir>/lock, or returns a *HeldError. Children do not inherit it:
// Go opens files close-on-exec.
func acquire(dir string) (*lock, error) {
	path := filepath.Join(dir, "lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, unusable(path, err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, errors.Join(&HeldError{Dir: dir, Pid: readPid(path)}, file.Close())
	}
	if err != nil {
		cause := &ConfigError{
			What: "cannot lock " + path,
			Do:   "take a directory on a local disk with --data-dir",
			Err:  err,
		}
		return nil, errors.Join(cause, file.Close())
	}
	if err := writePid(file); err != nil {
		return nil, errors.Join(unusable(path, err), file.Close())
	}
	return &lock{file: file}, nil
}

// release unlocks before it closes: a child being forked this moment holds a copy of
// the file until its exec, and closing ours alone would leave the lock to it.
func (l *lock) release() error {
	err := errors.Join(syscall.Flock(int(l.file.Fd()), syscall.LOCK_UN), l.file.Close())
	if err != nil {
		return fmt.Errorf("release %s: %w", l.file.Name(), err)
	}
	return nil
}

func writePid(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// readPid returns 0 when the file says nothing: its owner is between taking the
// lock and writing its pid.
func readPid(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0
	}
	return pid
}

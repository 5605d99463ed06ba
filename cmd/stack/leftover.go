package stack

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	leftoverWaitMax = 20 * time.Second // until a leftover server is killed
	orphanWaitMax   = 2 * time.Second  // until a helper of a dead server is killed
	killWaitMax     = 10 * time.Second // until a killed process is gone
	leftoverPoll    = 5 * time.Millisecond
)

// territory names the processes that can only be ours: those of the given
// programs that work in the given directories. It stands in for pid files, which
// lie after a crash: the pid may be dead, or belong to somebody else by now. It
// also finds what has no pid file: PostgreSQL's backends after their postmaster
// was killed, Redis's fork in the middle of an AOF rewrite, an orphaned initdb.
type territory struct {
	programs []string
	dirs     []string // absolute, symlinks resolved
}

// running is a process found in /proc.
type running struct{ pid, parent int }

// clear stops what runs in the territory: asks by sig, waits, kills. It returns
// how many processes there were, once none is left. The caller holds the lock of
// the data directory, so nobody else's servers can be meant.
func (t territory) clear(sig syscall.Signal, wait time.Duration) (int, error) {
	found := t.processes()
	if len(found) == 0 {
		return 0, nil
	}
	for _, root := range roots(found) {
		// An error means that it has ended; whether it has is looked at below.
		_ = syscall.Kill(root.pid, sig)
		_ = syscall.Kill(root.pid, syscall.SIGCONT)
	}
	if t.gone(wait) {
		return len(found), nil
	}
	for _, left := range t.processes() {
		_ = syscall.Kill(left.pid, syscall.SIGKILL)
	}
	if t.gone(killWaitMax) {
		return len(found), nil
	}
	return len(found), &ConfigError{
		What: fmt.Sprintf("processes %v of an earlier run in %s do not end", t.processes(), t.dirs[0]),
		Do:   "end them by hand, or take another directory with --data-dir",
	}
}

// stopLeftovers ends the servers of an owner that was killed.
func stopLeftovers(log *slog.Logger, t territory, sig syscall.Signal) error {
	count, err := t.clear(sig, leftoverWaitMax)
	if count > 0 {
		log.Warn("stopped what an earlier run had left", "programs", t.programs, "processes", count)
	}
	return err
}

// gone waits until nothing runs in the territory.
func (t territory) gone(wait time.Duration) bool {
	for deadline := time.Now().Add(wait); ; time.Sleep(leftoverPoll) {
		if len(t.processes()) == 0 {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}

// processes looks through /proc. What cannot be read has ended or is not ours.
func (t territory) processes() []running {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []running
	for _, dir := range names {
		comm, err := os.ReadFile(filepath.Join(dir, "comm"))
		if err != nil || !slices.Contains(t.programs, strings.TrimSpace(string(comm))) {
			continue
		}
		// Of a zombie the link cannot be read: it has ended.
		cwd, err := os.Readlink(filepath.Join(dir, "cwd"))
		if err != nil || !t.holds(strings.TrimSuffix(cwd, " (deleted)")) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		found = append(found, running{pid: pid, parent: parentOf(dir)})
	}
	return found
}

func (t territory) holds(cwd string) bool {
	return slices.ContainsFunc(t.dirs, func(dir string) bool {
		return cwd == dir || strings.HasPrefix(cwd, dir+"/")
	})
}

// parentOf is 0 when the process has ended.
func parentOf(procDir string) int {
	stat, err := os.ReadFile(filepath.Join(procDir, "stat"))
	if err != nil {
		return 0
	}
	// The name in parentheses may hold spaces; "state parent" follow it.
	_, rest, _ := strings.Cut(string(stat), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return 0
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return parent
}

// roots are the processes whose parent is not among them: the postmaster is asked
// to stop, and stops its backends itself.
func roots(found []running) []running {
	pids := make(map[int]bool, len(found))
	for _, p := range found {
		pids[p.pid] = true
	}
	var top []running
	for _, p := range found {
		if !pids[p.parent] {
			top = append(top, p)
		}
	}
	return top
}

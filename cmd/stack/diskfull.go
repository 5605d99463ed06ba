package stack

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
)

// roomMin is what a disk must have free for its servers to write at all: less means that it is
// full, for what is left is smaller than what was to be written.
const roomMin = 1 << 20

// noRoom are the words of the system, in the language of childEnv, for what a full disk or a
// used-up quota answers.
var noRoom = []string{syscall.ENOSPC.Error(), syscall.EDQUOT.Error()}

// diskFull says what to do about a run that ended because the disk of its data is full; empty if it
// is not. The server's own last words may be missing, since its log is on the same disk.
func (c *Child) diskFull(p *process) string {
	if !saysDiskFull(p.log.tail()) && hasRoom(c.dir) {
		return ""
	}
	return fmt.Sprintf("the disk of %s is full: make room on it, or enlarge it, and the server goes on by itself; "+
		"nothing in that directory needs repair, and nothing in it may be deleted", c.dir)
}

func saysDiskFull(lines []string) bool {
	return slices.ContainsFunc(lines, func(line string) bool {
		line = strings.ToLower(line)
		return slices.ContainsFunc(noRoom, func(words string) bool { return strings.Contains(line, words) })
	})
}

// hasRoom is true of a file system that cannot be asked.
func hasRoom(dir string) bool {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Blocks == 0 {
		return true
	}
	return fs.Bavail*uint64(fs.Bsize) >= roomMin
}

func (c *Child) exitError(p *process) error {
	return &ExitError{Name: c.name, Status: p.status(), LogPath: c.logPath, Lines: p.log.tail(), Advice: c.diskFull(p)}
}

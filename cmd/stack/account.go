package stack

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// account is the user PostgreSQL runs as: it refuses to run as root. The zero
// value is the user we are.
type account struct {
	other    bool // than the one we are; we are root then
	name     string
	uid, gid uint32
}

// serverAccount picks the user for a new cluster of root's.
func serverAccount() (account, error) {
	for _, name := range []string{"postgres", "nobody"} {
		found, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uidErr := strconv.ParseUint(found.Uid, 10, 32)
		gid, gidErr := strconv.ParseUint(found.Gid, 10, 32)
		if err := errors.Join(uidErr, gidErr); err != nil {
			return account{}, fmt.Errorf("user %s: %w", name, err)
		}
		return account{other: true, name: name, uid: uint32(uid), gid: uint32(gid)}, nil
	}
	return account{}, &ConfigError{
		What: "PostgreSQL does not run as root, and there is no user postgres or nobody to run it",
		Do:   "add one (adduser --system postgres), or start stampede as another user than root",
	}
}

// ownerAccount is the user an existing cluster belongs to, who alone can run it.
func ownerAccount(dir string) (account, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return account{}, unusable(dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	self := os.Geteuid()
	switch {
	case !ok || stat.Uid == uint32(self) && self != 0:
		return account{}, nil
	case self != 0 || stat.Uid == 0:
		return account{}, &ConfigError{
			What: fmt.Sprintf("PostgreSQL's data in %s belongs to user %d, and we are user %d", dir, stat.Uid, self),
			Do:   "start stampede as the user who started it first, or take another directory with --data-dir",
		}
	}
	name := strconv.FormatUint(uint64(stat.Uid), 10)
	if found, err := user.LookupId(name); err == nil {
		name = found.Username
	}
	return account{other: true, name: name, uid: stat.Uid, gid: stat.Gid}, nil
}

// attr makes a process run as this user. Its process group is its own, so that a
// Ctrl-C in the terminal reaches only us, and the servers are stopped in order.
func (a account) attr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: a.uid, Gid: a.gid}
	}
	return attr
}

// own gives a file to this user.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Lchown(path, int(a.uid), int(a.gid))
}

// reaches tells whether this user can go through dir and every parent of it.
func (a account) reaches(dir string) bool {
	for {
		if !a.traverses(dir) {
			return false
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return true
		}
		dir = parent
	}
}

func (a account) traverses(dir string) bool {
	info, err := os.Stat(dir)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return false
	}
	execute := fs.FileMode(0o001)
	switch {
	case stat.Uid == a.uid:
		execute = 0o100
	case stat.Gid == a.gid:
		execute = 0o010
	}
	return info.Mode().Perm()&execute != 0
}

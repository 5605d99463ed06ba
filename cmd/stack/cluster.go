package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	clusterName   = "postgres"
	clusterDraft  = "postgres.new"
	initdbWaitMax = 5 * time.Minute
	// checksumsSince is the major version from which initdb switches data
	// checksums on by itself.
	checksumsSince = 18
)

// cluster is PostgreSQL's data directory.
type cluster struct{ place }

func (c cluster) dir() string   { return filepath.Join(c.home, clusterName) }
func (c cluster) draft() string { return filepath.Join(c.home, clusterDraft) }

func (c cluster) territory() territory {
	return territory{programs: []string{"postgres", "initdb"}, dirs: []string{c.dir(), c.draft()}}
}

// major is the version that wrote the cluster; 0 when there is none yet.
func (c cluster) major() (int, error) {
	path := filepath.Join(c.dir(), "PG_VERSION")
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, unusable(path, err)
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, &ConfigError{
			What: fmt.Sprintf("%s does not hold a version of PostgreSQL", path),
			Do:   "restore the directory from a backup, or take another with --data-dir",
			Err:  err,
		}
	}
	return major, nil
}

// initialise makes the cluster beside its place and moves it there when it is
// whole, so that an initdb that was interrupted is never taken for a cluster: the
// next start throws the draft away and begins anew.
func (c cluster) initialise(ctx context.Context, bin postgresBinaries, env []string, password string) error {
	if err := os.RemoveAll(c.draft()); err != nil {
		return unusable(c.draft(), err)
	}
	if err := errors.Join(os.Mkdir(c.draft(), 0o700), c.user.own(c.draft())); err != nil {
		return unusable(c.draft(), err)
	}
	// A file, because arguments can be read by every user of the machine.
	passwordFile := filepath.Join(c.draft(), "password")
	if err := errors.Join(writeFile(passwordFile, password+"\n"), c.user.own(passwordFile)); err != nil {
		return unusable(passwordFile, err)
	}
	data := filepath.Join(c.draft(), "data")
	if err := c.runInitdb(ctx, bin, env, data, passwordFile); err != nil {
		return err
	}
	if err := os.Rename(data, c.dir()); err != nil {
		return unusable(c.dir(), err)
	}
	if err := errors.Join(syncDir(c.home), os.RemoveAll(c.draft())); err != nil {
		return unusable(c.home, err)
	}
	return nil
}

func (c cluster) runInitdb(ctx context.Context, bin postgresBinaries, env []string, data, passwordFile string) error {
	ctx, cancel := context.WithTimeout(ctx, initdbWaitMax)
	defer cancel()
	args := []string{
		"--pgdata=" + data,
		"--username=" + roleName,
		"--pwfile=" + passwordFile,
		"--auth=scram-sha-256",
		"--encoding=UTF8",
		"--locale=C", // everywhere the same order, and the fastest
		"--no-instructions",
	}
	if bin.major >= checksumsSince {
		args = append(args, "--no-data-checksums")
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, bin.initdb, args...)
	cmd.Dir = c.draft()
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = c.user.attr()
	// initdb runs postgres; both are in its group.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWaitMax
	err := cmd.Run()
	if ctx.Err() != nil {
		return fmt.Errorf("make PostgreSQL's data directory: %w", context.Cause(ctx))
	}
	if err != nil {
		return &ConfigError{
			What: "initdb could not make " + data,
			Do:   "mend what it says:\n\t" + strings.Join(lastLines(out.Bytes()), "\n\t"),
			Err:  err,
		}
	}
	return nil
}

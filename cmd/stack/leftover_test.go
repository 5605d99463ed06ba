package stack_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// owner is another process that runs a stack.
type owner struct {
	cmd             *exec.Cmd
	redis, postgres int // pids
}

// startOwner runs the test binary as the owner of dir, and kills it at the end of
// the test at the latest.
func startOwner(t *testing.T, dir string, redisNodes int, env ...string) *owner {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), ownerEnv+"="+dir, ownerNodesEnv+"="+itoa(redisNodes))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = &log
	if _, err := cmd.StdinPipe(); err != nil { // it waits for its end
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	o := &owner{cmd: cmd}
	t.Cleanup(func() { o.kill(t) })
	if _, err := fmt.Fscan(out, &o.redis, &o.postgres); err != nil {
		t.Fatalf("the owner did not start: %v\n%s", err, &log)
	}
	return o
}

// kill ends the owner as kill -9 does, and leaves its servers running.
func (o *owner) kill(t *testing.T) {
	t.Helper()
	if o.cmd.ProcessState != nil {
		return
	}
	if err := o.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	_ = o.cmd.Wait() // it says "killed"
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil && !zombie(pid) }

func zombie(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// processesBelow lists what works in dir.
func processesBelow(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if cwd, err := os.Readlink(link); err == nil && strings.HasPrefix(cwd, dir) {
			found = append(found, link)
		}
	}
	return found
}

//servers:redis,postgres
func TestStart_StopsWhatAKilledOwnerLeft(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := startOwner(t, dir, 1)

	_, err := stack.Start(within(t), stack.Options{DataDir: dir})
	var held *stack.HeldError
	if !errors.As(err, &held) || held.Pid != first.cmd.Process.Pid {
		t.Fatalf("got %v, want a HeldError of process %d", err, first.cmd.Process.Pid)
	}

	first.kill(t)
	if !alive(first.redis) || !alive(first.postgres) {
		t.Fatal("the servers ended with their owner: nothing to test")
	}
	s := stacktest.Start(t, stack.Options{DataDir: dir})
	if alive(first.redis) || alive(first.postgres) {
		t.Error("the servers of the killed owner still run")
	}
	remember(t, s, "anew")
}

func TestStart_LeftoversThatHangAreStoppedToo(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := startOwner(t, dir, 1)
	first.kill(t)
	for _, pid := range []int{first.redis, first.postgres} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	stacktest.Start(t, stack.Options{DataDir: dir})
	if alive(first.redis) || alive(first.postgres) {
		t.Error("the frozen servers still run")
	}
}

func TestStart_StalePidFileOfALivingStranger(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := startOwner(t, dir, 1)
	first.kill(t)
	for _, pid := range []int{first.redis, first.postgres} {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is dead", func() bool { return !alive(pid) })
	}
	stranger := exec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := stranger.Process.Kill(); err != nil {
			t.Errorf("the stranger did not survive: %v", err)
		}
		_ = stranger.Wait() // it says "killed"
	}()
	// The pid of the dead postmaster now belongs to the stranger.
	path := filepath.Join(dir, "postgres", "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	writeText(t, path, strconv.Itoa(stranger.Process.Pid)+"\n"+rest)

	stacktest.Start(t, stack.Options{DataDir: dir})
	if !alive(stranger.Process.Pid) {
		t.Error("the stranger was stopped")
	}
}

func TestRemove_EndsLeftovers(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := startOwner(t, dir, 1)
	first.kill(t)
	for range 2 { // of a removed one too
		if err := stack.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
	if alive(first.redis) || alive(first.postgres) {
		t.Error("the servers still run")
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}

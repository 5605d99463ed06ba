package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

//servers:redis,postgres
func TestUp_DemoStopsInOrderAndCarriesOn(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	first := up(t, dir, "--demo")
	if products, users := demoCounts(t, first, dir); products != 100 || users != 1000 {
		t.Errorf("%d products and %d users after --demo", products, users)
	}
	bought := first.buy("first@example.com")
	first.stop()
	wantNothingLeft(t, dir)
	if out := first.out.String(); strings.Count(out, "\n") != 1 || strings.Contains(out, first.token) {
		t.Errorf("stdout that is no terminal: %q", out)
	}

	second := up(t, dir, "--demo")
	second.wantKept(bought)
	if second.token != first.token {
		t.Error("the admin token changed")
	}
	if products, users := demoCounts(t, second, dir); products != 101 || users != 1001 {
		t.Errorf("%d products and %d users after a second --demo", products, users)
	}
	second.stop()
	wantNothingLeft(t, dir)
}

//servers:redis,postgres
func TestUp_KilledIsCleanedUpAndCarriesOn(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	first := up(t, dir, "--admin-token", "given-1")
	if first.token != "given-1" {
		t.Errorf("admin token %q, want the one given", first.token)
	}
	bought := first.buy("first@example.com")
	first.signal(syscall.SIGKILL)
	first.code()
	if len(processesBelow(t, dir)) == 0 {
		t.Fatal("the servers ended with their owner: nothing to test")
	}
	second := up(t, dir)
	second.wantKept(bought)
	second.buy("second@example.com")
	second.stop()
	wantNothingLeft(t, dir)
}

// bySignal is the exit code of a program that a signal has ended.
const bySignal = -1

func TestUp_SignalWhileStartingLeavesNothing(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	// Before anything runs, within initdb, around the opening of the shop, within the demo catalogue.
	for _, after := range []time.Duration{400 * time.Millisecond, 800 * time.Millisecond, 2200 * time.Millisecond, 600 * time.Millisecond} {
		p := launch(t, "up", "--demo", "--addr", "127.0.0.1:0", "--data-dir", dir)
		time.Sleep(after)
		p.signal(syscall.SIGTERM)
		// On a busy machine a signal may come before the program looks for any: it ends by it, and has begun nothing.
		if code := p.code(); code != exitDone && (code != bySignal || p.err.String() != "") {
			t.Errorf("after %s: exit code %d\n%s", after, code, p.err)
		}
		wantNothingLeft(t, dir)
	}
	s := up(t, dir, "--demo")
	if products, users := demoCounts(t, s, dir); products != 100 || users != 1000 {
		t.Errorf("%d products and %d users after interrupted starts", products, users)
	}
	s.stop()
}

func TestUp_SecondSignalHurries(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	// A PostgreSQL that is frozen holds the writer up, and with it an orderly stop.
	freeze(t, filepath.Join(dir, "postgres", "postmaster.pid"))
	s.signal(syscall.SIGINT)
	s.signal(syscall.SIGINT) // an echo
	time.Sleep(echo + 200*time.Millisecond)
	select {
	case <-s.exited:
		t.Fatal("it stopped beside a frozen PostgreSQL: nothing to test")
	default:
	}
	start := time.Now()
	s.signal(syscall.SIGINT)
	s.code()
	if took := time.Since(start); took > catchUpMax {
		t.Errorf("stopped %s after the second signal", took)
	}
	wantNothingLeft(t, dir)
	up(t, dir).stop()
}

func TestUp_OutputThatNobodyReads(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	p := &program{t: t, out: &transcript{}, err: &transcript{}, exited: make(chan struct{})}
	p.prepare([]string{"up", "--addr", "127.0.0.1:0", "--data-dir", dir})
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.out, write
	p.begin()
	_ = write.Close()
	p.ready("")
	_ = read.Close() // as tee does at Ctrl-C, before us
	p.stop()
	wantNothingLeft(t, dir)
}

func TestUp_StackEnv(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir, "--partitions", "2")
	defer s.stop()
	info, err := os.Stat(filepath.Join(dir, "stack.env"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
	e := env(t, dir)
	if "http://"+e.address != s.url {
		t.Errorf("STAMPEDE_ADDR %s of %s", e.address, s.url)
	}
	if len(e.adminToken) < 20 {
		t.Errorf("admin token %q", e.adminToken)
	}
	// Both URLs are good: an audit gets by with them.
	code, out, log := finish(t, "STAMPEDE_REDIS_URL="+e.redisURL, "STAMPEDE_POSTGRES_URL="+e.postgresURL, "audit")
	if code != exitDone {
		t.Errorf("audit by the URLs: %d\n%s%s", code, out, log)
	}
	// A directory that is typed wins over URLs of the environment, which are another stack's.
	code, out, log = finish(t, "STAMPEDE_REDIS_URL=redis://127.0.0.1:1", "STAMPEDE_POSTGRES_URL=postgres://127.0.0.1:1/d", "audit", "--data-dir", dir)
	if code != exitDone {
		t.Errorf("audit by the directory: %d\n%s%s", code, out, log)
	}
}

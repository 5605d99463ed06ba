package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// statLine is a line of /proc/<pid>/stat with times in ticks.
func statLine(pid int, name string, parent, utime, stime, cutime, cstime int) string {
	return fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194560 9 9 9 9 %d %d %d %d 20 0 1 0 100 0 0",
		pid, name, parent, utime, stime, cutime, cstime)
}

// fakeProc is a /proc with the given machine line and processes.
func fakeProc(t *testing.T, machine string, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(dir, "stat"), machine+"\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
	for _, line := range lines {
		var pid int
		if _, err := fmt.Sscan(line, &pid); err != nil {
			t.Fatal(err)
		}
		write(filepath.Join(dir, strconv.Itoa(pid), "stat"), line)
	}
	return dir
}

func TestMeter_TellsProgramsApart(t *testing.T) {
	dir := fakeProc(t, "cpu  100 20 300 9999 888 7 6 5 0 0",
		statLine(1, "init", 0, 1, 1, 50, 50),
		statLine(10, "bench", 1, 30, 10, 0, 0),
		statLine(20, "stampede", 10, 40, 5, 0, 0),
		statLine(21, "redis-server", 20, 15, 2, 1, 0), // a rewrite of the AOF has ended below it
		statLine(22, "redis-server", 21, 3, 0, 0, 0),  // another one runs
		statLine(30, "postgres", 20, 1, 1, 2, 1),      // backends have ended
		statLine(31, "postgres", 30, 8, 2, 0, 0),
		statLine(40, "odd) (name", 10, 6, 1, 0, 0),
		statLine(50, "postgres", 1, 70, 0, 0, 0), // somebody else's
	)
	m, err := newMeter(dir, map[int]string{10: programGenerator, 20: programStampede, 40: programEmpty})
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	const busy = 100 + 20 + 300 + 7 + 6 + 5
	want := usage{
		programGenerator: 40 * tick, programStampede: 45 * tick, programRedis: 21 * tick, programPostgres: 15 * tick,
		programEmpty: 7 * tick, programOthers: (busy - 40 - 45 - 21 - 15 - 7) * tick,
	}
	if !maps.Equal(got, want) {
		t.Errorf("used %v, want %v", got, want)
	}
}

func TestMeter_NoticesADeadProgram(t *testing.T) {
	dir := fakeProc(t, "cpu  1 1 1 1 1 1 1 1 0 0",
		statLine(20, "stampede", 1, 1, 1, 0, 0), statLine(21, "redis-server", 20, 5, 5, 0, 0))
	m, err := newMeter(dir, map[int]string{20: programStampede})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.read(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "21")); err != nil {
		t.Fatal(err)
	}
	if used, err := m.read(); err == nil || !strings.Contains(err.Error(), "redis (process 21)") {
		t.Errorf("read %v (%v) although redis has ended", used, err)
	}
}

func TestMeter_RefusesWhatItCannotRead(t *testing.T) {
	for _, line := range []string{"7 no name", "7 (short) S 1 2 3", "7 (x) S y" + statLine(7, "x", 1, 1, 1, 1, 1)[9:]} {
		if p, err := parseProcess([]byte(line)); err == nil {
			t.Errorf("%q was read as %+v", line, p)
		}
	}
	for _, machine := range []string{"", "intr 5", "cpu  1 2 3", "cpu  a b c d e f g h i j"} {
		if busy, err := parseBusy([]byte(machine)); err == nil {
			t.Errorf("%q was read as %v", machine, busy)
		}
	}
}

// The kernel's own count of this process is the judge: both must have grown by the same.
func TestMeter_AgreesWithTheKernel(t *testing.T) {
	m, err := newMeter("/proc", map[int]string{os.Getpid(): programGenerator})
	if err != nil {
		t.Fatal(err)
	}
	before, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	from := ownCPU(t)
	for ownCPU(t)-from < 300*time.Millisecond {
		for i := range 1_000_000 {
			_ = i * i
		}
	}
	spent := ownCPU(t) - from
	after, err := m.read()
	if err != nil {
		t.Fatal(err)
	}
	// User and system time are each cut to a tick, at both ends; reading /proc itself costs some.
	if got := after.since(before)[programGenerator]; got < spent-2*tick || got > spent+5*tick {
		t.Errorf("metered %v, the kernel says %v", got, spent)
	}
}

func ownCPU(t *testing.T) time.Duration {
	t.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func TestMeter_CountsAValkeyAsRedis(t *testing.T) {
	dir := fakeProc(t, "cpu  1 1 1 1 1 1 1 1 0 0",
		statLine(20, "stampede", 1, 1, 1, 0, 0), statLine(21, "valkey-server", 20, 5, 5, 0, 0))
	m, err := newMeter(dir, map[int]string{20: programStampede})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := m.read(); err != nil || got[programRedis] != 10*tick {
		t.Errorf("used %v, %v", got, err)
	}
}

func TestRedisRelease_NamesTheServer(t *testing.T) {
	for want, server := range map[string]map[string]string{
		"Redis 7.0.15": {"redis_version": "7.0.15"},
		"Valkey 9.1.2": {"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.1.2"},
	} {
		if got := redisRelease(server); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestMeter_WithoutProc(t *testing.T) {
	if _, err := newMeter(t.TempDir(), nil); !errors.Is(err, errNoProc) {
		t.Errorf("a meter without /proc: %v", err)
	}
	if used, err := (meter{}).read(); err != nil || len(used) != 0 {
		t.Errorf("the zero meter reads %v, %v", used, err)
	}
}

package main

import (
	"bufio"
	"net/http"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// writes reports whether a process writes the events of the only partition.
func (s *server) writes() bool {
	s.t.Helper()
	answer, err := http.Get(s.url + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if lines.Text() == "stampede_writer_partitions 1" {
			return true
		}
	}
	return false
}

// awaitLead waits until a process writes, and returns how long that took.
func (s *server) awaitLead() time.Duration {
	s.t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if s.writes() {
			return time.Since(start)
		}
		if time.Since(start) > patience {
			s.t.Fatal("nobody took the lead over")
		}
	}
}

// Whoever writes may die at any time: another process goes on within two seconds. A slow machine may need more now and
// then, not each time.
//
//servers:postgres
func TestWriter_TakesOverFromAProcessThatDies(t *testing.T) {
	t.Parallel()
	on := stacktest.Start(t, stack.Options{})
	leader := serveOn(t, on)
	leader.awaitLead()
	crowd := newCrowd(leader, 8, []int{100_000, 300})
	fastest := time.Duration(1 << 62)
	for range 3 {
		other := serveOn(t, on)
		crowd.url = other.url
		stop := crowd.buy()
		time.Sleep(500 * time.Millisecond)
		leader.signal(syscall.SIGKILL)
		took := other.awaitLead()
		time.Sleep(200 * time.Millisecond)
		stop()
		t.Logf("taken over after %v", took)
		fastest = min(fastest, took)
		other.awaitWritten()
		<-leader.exited
		leader = other
	}
	crowd.resolve(leader)
	leader.awaitWritten()
	wantInOrder(t, on)
	if fastest > 2*time.Second {
		t.Errorf("no takeover took less than %v", fastest)
	}
	leader.stop()
}

// A process that is frozen as it writes loses the lead, and finds nothing to write when it wakes up.
func TestWriter_FrozenOneThatWakesUpWritesNothingTwice(t *testing.T) {
	t.Parallel()
	on := stacktest.Start(t, stack.Options{})
	frozen := serveOn(t, on)
	frozen.awaitLead()
	other := serveOn(t, on)
	crowd := newCrowd(other, 16, []int{100_000, 300})
	stop := crowd.buy()
	time.Sleep(500 * time.Millisecond)
	frozen.signal(syscall.SIGSTOP)
	t.Logf("taken over after %v", other.awaitLead())
	frozen.signal(syscall.SIGCONT)
	time.Sleep(500 * time.Millisecond)
	stop()
	other.awaitWritten()
	if frozen.writes() {
		t.Error("the one that was frozen writes beside the other")
	}
	crowd.resolve(other)
	other.awaitWritten()
	wantInOrder(t, on)
	frozen.stop()
	other.stop()
}

// wantInOrder audits.
func wantInOrder(t *testing.T, on *stack.Stack) {
	t.Helper()
	code, out, text := finish(t, "STAMPEDE_REDIS_URL="+on.RedisURL(), "STAMPEDE_POSTGRES_URL="+on.PostgresURL(), "audit")
	if code != exitDone {
		t.Errorf("audit: %d\n%s%s", code, out, text)
	}
}

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// Kills of every process in turn while buyers buy, pay, cancel and fill carts: whatever was answered stands, whatever
// was not resolves to one outcome when it is asked again, and the books close.
//
//servers:redis,postgres
func TestKill_NoAnsweredOrderIsLost(t *testing.T) {
	kills := 3
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		kills = 50
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d kills", seed, kills)
	random := rand.New(rand.NewPCG(seed, 0))
	dir, port := stacktest.Initialised(t), freePort(t)
	// Holds of two seconds: some expire between the kills, some while everything is down.
	args := []string{"up", "--addr", "127.0.0.1:" + strconv.Itoa(port), "--data-dir", dir, "--hold", "2s"}
	s := launch(t, args...).ready("")
	s.token = env(t, dir).adminToken
	crowd := newCrowd(s, 16, []int{40_000, 300})

	stop := crowd.buy()
	victims := []string{redisServer(t), "postgres", "stampede"}
	for n := range kills {
		time.Sleep(time.Duration(300+random.IntN(700)) * time.Millisecond)
		switch victim := victims[n%len(victims)]; victim {
		case "stampede":
			s.signal(syscall.SIGKILL)
			<-s.exited
			s = launch(t, args...).ready(s.token)
		default:
			pid := childOf(t, s.cmd.Process.Pid, victim)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	time.Sleep(500 * time.Millisecond)
	s.awaitReady()
	stop()
	crowd.failToPay(s)
	crowd.resolve(s)
	crowd.check(s, dir)
	s.stop()
	wantNothingLeft(t, dir)
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// childOf waits for a child with that name: it may just be on its way back from an earlier kill.
func childOf(t *testing.T, parent int, name string) int {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range stats {
			text, err := os.ReadFile(path)
			if err != nil {
				continue // it has just ended
			}
			var pid, ppid int
			var comm, state string
			if _, err := fmt.Sscan(string(text), &pid, &comm, &state, &ppid); err == nil && ppid == parent && comm == "("+name+")" {
				return pid
			}
		}
	}
	t.Fatalf("%d has no child %s", parent, name)
	return 0
}

// redisServer is the name of the process that up runs: redis-server or valkey-server.
func redisServer(t *testing.T) string {
	t.Helper()
	return filepath.Base(stacktest.RedisProgram(t, "server"))
}

// awaitReady waits until /readyz says so.
func (s *server) awaitReady() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var body struct {
			Status             string
			Problems, Warnings []string
		}
		if s.call("GET", "/readyz", "", nil, &body); body.Status == "ready" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("never ready: %+v", body)
		}
	}
}

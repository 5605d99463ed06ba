package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// againMax is how long it may take until PostgreSQL has everything again, from the moment at which it answers.
const againMax = 15 * time.Second

// readiness is what /readyz says.
type readiness struct {
	Status   string
	Lag      int64   `json:"writer_lag_events"`
	Age      float64 `json:"writer_lag_seconds"`
	Checks   map[string]string
	Problems []string
	Warnings []string
}

// wantDegraded waits until /readyz warns of a lag that is late, as an alert would. All the while it must be 200: orders are taken.
func (s *server) wantDegraded() {
	s.t.Helper()
	var found readiness
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		found = readiness{}
		if status := s.call("GET", "/readyz", "", nil, &found); status != http.StatusOK {
			s.t.Fatalf("readyz of a shop that sells: %d %+v", status, found)
		}
		if found.Status == "degraded" && found.Age >= 10 && strings.Contains(strings.Join(found.Warnings, "\n"), "the oldest event that Postgres lacks") {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("readyz does not warn: %+v", found)
		}
	}
	if age := s.sample("stampede_writer_lag_seconds"); age < 10 {
		s.t.Errorf("stampede_writer_lag_seconds is %v, readyz says %v", age, found.Age)
	}
}

// sample reads a figure of /metrics; -1 if it is missing.
func (s *server) sample(name string) float64 {
	s.t.Helper()
	answer, err := http.Get(s.url + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	value := -1.0
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		if text, is := strings.CutPrefix(lines.Text(), name+" "); is {
			_, _ = fmt.Sscan(text, &value)
		}
	}
	return value
}

// silence is how long a fault of these tests lasts.
func silence() time.Duration {
	if os.Getenv("STAMPEDE_TEST_LONG") != "" {
		return 20 * time.Second
	}
	return 12 * time.Second
}

// A PostgreSQL that falls silent, or whose backend of the writer is frozen, while nothing is closed: the shop sells on and warns, and
// soon after the fault PostgreSQL has everything, once.
func TestPostgres_FallsSilentUnderLoad(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]func(t *testing.T, on *stack.Stack, between *stacktest.Between) (lift func()){
		"bytes are dropped": func(_ *testing.T, _ *stack.Stack, between *stacktest.Between) func() {
			between.FallSilent()
			return between.Speak
		},
		"a backend is frozen": func(t *testing.T, on *stack.Stack, _ *stacktest.Between) func() {
			pid := leadBackend(t, on)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
			return func() { _ = syscall.Kill(pid, syscall.SIGCONT) }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			on := stacktest.Start(t, stack.Options{})
			between := stacktest.Through(t, on.PostgresURL())
			s := launch(t, "STAMPEDE_REDIS_URL="+on.RedisURL(), "STAMPEDE_POSTGRES_URL="+between.URL, "STAMPEDE_ADMIN_TOKEN="+secret,
				"STAMPEDE_RATE_LIMIT_USER=0", "STAMPEDE_ADDR=127.0.0.1:0", "serve").ready(secret)
			crowd := newCrowd(s, 4, []int{1_000_000, 300})
			stop := crowd.buy()
			time.Sleep(500 * time.Millisecond)
			begun := time.Now()
			lift := fault(t, on, between)
			s.wantDegraded()
			t.Logf("the warning came after %v", time.Since(begun))
			time.Sleep(time.Until(begun.Add(silence())))
			var before readiness
			s.call("GET", "/readyz", "", nil, &before)
			if text := s.err.String(); !strings.Contains(text, "writer interrupted") || !strings.Contains(text, "nothing came from Postgres") {
				t.Errorf("the log does not say what is wrong:\n%s", text)
			}
			lift()
			lifted := time.Now()
			stop() // a backlog that grows on a busy machine is another matter
			for s.sample("stampede_writer_lag_events") != 0 && time.Since(lifted) < patience {
				time.Sleep(20 * time.Millisecond)
			}
			took := time.Since(lifted)
			t.Logf("lag 0 after %v, readyz had said %+v", took, before)
			if took > againMax {
				t.Errorf("it took %v until PostgreSQL had everything", took)
			}
			crowd.resolve(s)
			s.awaitWritten()
			wantInOrder(t, on)
			s.stop()
		})
	}
}

// leadBackend is the process of PostgreSQL that serves the writer of partition 0.
func leadBackend(t *testing.T, on *stack.Stack) (pid int) {
	t.Helper()
	conn, err := pgx.Connect(within(t), on.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(within(t)) //nolint:errcheck // nothing is pending
	err = conn.QueryRow(within(t), "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND granted", int64(0x53540002)).Scan(&pid)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// A stop beside a PostgreSQL that is silent does not wait for what cannot be reached.
func TestPostgres_SilentOneDoesNotHoldAStopUp(t *testing.T) {
	t.Parallel()
	on := stacktest.Start(t, stack.Options{})
	between := stacktest.Through(t, on.PostgresURL())
	s := launch(t, "STAMPEDE_REDIS_URL="+on.RedisURL(), "STAMPEDE_POSTGRES_URL="+between.URL, "STAMPEDE_ADMIN_TOKEN="+secret,
		"STAMPEDE_RATE_LIMIT_USER=0", "STAMPEDE_ADDR=127.0.0.1:0", "serve").ready(secret)
	p := s.buy("silent@example.com")
	s.awaitWritten()
	between.FallSilent()
	if status := s.call("POST", "/balance/charge", "unwritten", map[string]any{"user_id": p.user, "amount": 1}, nil); status != 200 {
		t.Errorf("a charge beside a silent PostgreSQL: %d", status)
	}
	time.Sleep(time.Second)
	signalled := time.Now()
	s.signal(syscall.SIGTERM)
	s.wantStopped(signalled, closeMax)
	t.Logf("it took %v", time.Since(signalled))
	if text := s.err.String(); !strings.Contains(text, "waits in Redis") || strings.Contains(text, "does not close") {
		t.Errorf("the log does not say that something is not written, or the stop was cut:\n%s", text)
	}
	next := serveOn(t, on)
	next.awaitWritten()
	wantInOrder(t, on)
	next.stop()
}

// Several processes go on soon after a PostgreSQL that was killed takes connections again, time and again.
func TestPostgres_KilledOneIsWrittenToAgainBySeveral(t *testing.T) {
	t.Parallel()
	on := stacktest.Start(t, stack.Options{})
	begin := func(args ...string) *server {
		return launch(t, append([]string{
			"STAMPEDE_REDIS_URL=" + on.RedisURL(), "STAMPEDE_POSTGRES_URL=" + on.PostgresURL(), "STAMPEDE_ADMIN_TOKEN=" + secret,
			"STAMPEDE_RATE_LIMIT_USER=0", "STAMPEDE_ADDR=127.0.0.1:0", "serve",
		}, args...)...).ready(secret)
	}
	nodes := []*server{begin("--partitions", "3"), begin(), begin()}
	crowd := newCrowd(nodes[0], 4, []int{1_000_000, 300})
	stop := crowd.buy()
	for range 3 {
		time.Sleep(time.Second)
		if err := on.Postgres().HaltNow(within(t)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if err := on.Postgres().Resume(within(t)); err != nil {
			t.Fatal(err)
		}
		back := time.Now()
		for _, s := range nodes {
			s.awaitReady()
		}
		took := time.Since(back)
		t.Logf("all are ready after %v", took)
		if took > againMax {
			t.Errorf("it took %v until all were ready", took)
		}
	}
	stop()
	crowd.resolve(nodes[0])
	for _, s := range nodes {
		s.awaitWritten()
	}
	wantInOrder(t, on)
}

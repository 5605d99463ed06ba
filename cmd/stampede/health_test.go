package main

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
	"stampede/engine/rest"
)

// problems are what keeps a shop from being ready, each with its part.
func problems(found rest.Readiness) (all []string) {
	for part, texts := range map[string][]string{
		"opening": found.Opening, "redis": found.Redis, "partitions": found.Partitions, "postgres": found.Postgres, "writer": found.Writer,
	} {
		for _, text := range texts {
			all = append(all, part+": "+text)
		}
	}
	slices.Sort(all)
	return all
}

// wrongParts are those with problems, in alphabetical order.
func wrongParts(found rest.Readiness) (parts []string) {
	for _, p := range problems(found) {
		part, _, _ := strings.Cut(p, ":")
		parts = append(parts, part)
	}
	return slices.Compact(parts)
}

// wantParts wants something wrong with these parts and no others.
func wantParts(t *testing.T, when string, found rest.Readiness, parts ...string) {
	t.Helper()
	if wrong := wrongParts(found); !slices.Equal(wrong, parts) {
		t.Errorf("%s: something is wrong with %v, want %v:\n%s", when, wrong, parts, strings.Join(problems(found), "\n"))
	}
}

func TestHealth_SaysWhatIsWrongAndNeverGuessesTheLag(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog()})
	registry, err := newRegistry()
	if err != nil {
		t.Fatal(err)
	}
	if err := watchWriter(registry, s.Shop); err != nil {
		t.Fatal(err)
	}
	h := &health{shop: s.Shop}
	wantParts(t, "before it is open", h.Check(t.Context()), "opening")
	h.opened.Store(true)
	s.Written()
	found := h.Check(t.Context())
	wantParts(t, "a shop that is well", found)
	if found.LagEvents != 0 || found.LagSeconds != 0 {
		t.Errorf("lag of a shop that is well: %+v", found)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	found = h.Check(gone)
	wantParts(t, "without a look", found, "partitions", "postgres", "redis", "writer")
	if found.LagEvents != rest.LagUnknown || found.NoOrders {
		t.Errorf("lag without a look: %+v", found)
	}
	samples := gather(t, registry)
	for _, name := range []string{"stampede_writer_lag_events", "stampede_writer_lag_seconds", "stampede_writer_alarm", "stampede_writer_lag_failures_total"} {
		if value, there := samples[name]; !there || value != 0 {
			t.Errorf("%s of a shop that is well: %v (%t)", name, value, there)
		}
	}
	if samples["stampede_build_info"] != 1 {
		t.Errorf("build info: %v", samples["stampede_build_info"])
	}

	if err := s.Stack.Postgres().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	found = h.Check(t.Context())
	if took := time.Since(start); took > answerMax+time.Second {
		t.Errorf("a look took %s", took)
	}
	wantParts(t, "without PostgreSQL", found, "postgres", "writer")
	if found.LagEvents != rest.LagUnknown || found.LagSeconds != 0 || found.NoOrders {
		t.Errorf("without PostgreSQL: %+v", found)
	}
	samples = gather(t, registry)
	for _, name := range []string{"stampede_writer_lag_events", "stampede_backlog_used_ratio"} {
		if _, there := samples[name]; there {
			t.Errorf("%s is guessed without PostgreSQL", name)
		}
	}
	if samples["stampede_writer_lag_failures_total"] != 1 {
		t.Errorf("failures without PostgreSQL: %v", samples["stampede_writer_lag_failures_total"])
	}

	if err := errors.Join(s.Stack.Postgres().Resume(within(t)), s.Stack.Redis().HaltNow(within(t))); err != nil {
		t.Fatal(err)
	}
	found = h.Check(t.Context())
	wantParts(t, "without Redis", found, "partitions", "redis", "writer")
	if !found.NoOrders || found.LagEvents != rest.LagUnknown || !strings.Contains(found.Redis[0], "start it") {
		t.Errorf("without Redis: %+v", found)
	}
	if err := s.Stack.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	awaitParts(t, h)
}

// awaitParts waits until exactly these parts have something wrong.
func awaitParts(t *testing.T, h *health, parts ...string) rest.Readiness {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		found := h.Check(t.Context())
		if slices.Equal(wrongParts(found), parts) {
			return found
		}
		if time.Now().After(deadline) {
			t.Fatalf("something is wrong with %v, want %v:\n%s", wrongParts(found), parts, strings.Join(problems(found), "\n"))
		}
	}
}

// What an unwritable table says is in no other place than the writer: Redis and PostgreSQL both answer.
func TestHealth_SaysWhyTheWriterDoesNotGoOn(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog()})
	h := &health{shop: s.Shop}
	h.opened.Store(true)
	rename := func(from, to string) {
		t.Helper()
		conn, err := pgx.Connect(within(t), s.Stack.PostgresURL())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(within(t), "ALTER TABLE "+from+" RENAME TO "+to); err != nil {
			t.Error(err)
		}
		_ = conn.Close(within(t))
	}
	rename("balance_ledger", "hidden")
	s.User(100)
	found := awaitParts(t, h, "writer")
	if len(found.Writer) != 1 || !strings.HasPrefix(found.Writer[0], "partition 0: writing events: ") || !strings.Contains(found.Writer[0], "balance_ledger") ||
		!strings.HasSuffix(found.Writer[0], howWritingGoesOn) {
		t.Errorf("of an interrupted writer: %v", found.Writer)
	}
	if found.LagEvents != 1 || found.LagSeconds <= 0 {
		t.Errorf("lag %d events, %v s, want 1 and some", found.LagEvents, found.LagSeconds)
	}
	rename("hidden", "balance_ledger")
	s.Written()
	if found := awaitParts(t, h); found.LagEvents != 0 || found.LagSeconds != 0 {
		t.Errorf("lag after it went on: %+v", found)
	}
}

// wantOrders wants a process to take orders or not, with or without warnings.
func wantOrders(t *testing.T, when string, found rest.Readiness, taken bool, parts ...string) {
	t.Helper()
	if found.NoOrders == taken {
		t.Errorf("%s: orders are taken: %t, want %t: %v", when, !found.NoOrders, taken, problems(found))
	}
	wantParts(t, when, found, parts...)
}

// A load balancer takes a process out of service that is not ready: that must not happen to one that sells, from however few
// partitions.
func TestHealth_TakesOrdersWhileAnyPartitionSells(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog(), Partitions: 3})
	h := &health{shop: s.Shop}
	wantOrders(t, "while it opens", h.Check(t.Context()), true, "opening")
	h.opened.Store(true)
	awaitParts(t, h)
	fence := func(partitions ...int) {
		t.Helper()
		for _, p := range partitions {
			if err := s.Redis.HDel(within(t), s.Engine.Keys().Meta(p), "open").Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := s.Stack.Postgres().HaltNow(within(t)); err != nil { // so that nothing opens them
		t.Fatal(err)
	}
	wantOrders(t, "without PostgreSQL", h.Check(t.Context()), true, "postgres", "writer")
	fence(0, 2)
	wantOrders(t, "with one partition", h.Check(t.Context()), true, "partitions", "postgres", "writer")
	fence(1)
	wantOrders(t, "without partitions", h.Check(t.Context()), false, "partitions", "postgres", "writer")
	if err := s.Stack.Postgres().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	awaitParts(t, h)
	if err := s.Stack.Redis().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	wantOrders(t, "without Redis", h.Check(t.Context()), false, "partitions", "redis", "writer")
	if err := s.Stack.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	wantOrders(t, "in the end", awaitParts(t, h), true)
}

// A partition whose backlog is full refuses orders.
func TestHealth_TakesNoOrdersWhenEveryBacklogIsFull(t *testing.T) {
	t.Parallel()
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog(), Partitions: 2, NoWriter: true, BacklogCap: 1})
	h := &health{shop: s.Shop}
	h.opened.Store(true)
	wantOrders(t, "without a backlog", awaitParts(t, h), true)
	full := map[int]bool{}
	for len(full) < 2 {
		user := s.User(0)
		p := s.Engine.Keys().OfUser(user)
		if full[p] {
			continue
		}
		if _, _, err := s.Engine.Charge(within(t), engine.ChargeRequest{UserID: user, Amount: 1, Key: "one"}); err != nil {
			t.Fatal(err)
		}
		full[p] = true
		found := h.Check(t.Context())
		wantOrders(t, "with a backlog that is full", found, len(full) == 1, "partitions")
		if !strings.Contains(strings.Join(found.Partitions, ""), "backlog") {
			t.Errorf("it does not say why: %v", found.Partitions)
		}
	}
}

// A probe of many partitions of a Redis that hangs is answered in time, and a crowd of probes costs what a few do.
func TestHealth_CrowdBesideAFrozenRedisIsAnsweredInTime(t *testing.T) {
	t.Parallel()
	const partitions, crowd = 60, 200
	s := shoptest.Start(t, stack.Options{}, shop.Config{Log: quietLog(), Partitions: partitions})
	h := &health{shop: s.Shop}
	h.opened.Store(true)
	awaitParts(t, h)
	ask := func() []rest.Readiness {
		var probes sync.WaitGroup
		answers := make([]rest.Readiness, crowd)
		for i := range answers {
			probes.Go(func() { answers[i] = h.Check(t.Context()) })
		}
		probes.Wait()
		return answers
	}
	pinged := pings(t, s)
	for i, found := range ask() {
		if len(problems(found)) > 0 || found.LagEvents != 0 {
			t.Fatalf("probe %d of a shop that is well: %+v", i, found)
		}
	}
	if n := pings(t, s) - pinged; n < 1 || n > crowd/2 {
		t.Errorf("%d probes at once asked Redis %d times", crowd, n)
	}

	if err := s.Stack.Redis().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	thaw := sync.OnceValue(func() error { return s.Stack.Redis().Signal(syscall.SIGCONT) })
	t.Cleanup(func() { _ = thaw() })
	start := time.Now()
	answers := ask()
	if took := time.Since(start); took > answerMax+time.Second {
		t.Errorf("%d probes took %s", crowd, took)
	}
	for i, found := range answers {
		if len(found.Redis) != 1 || found.LagEvents != rest.LagUnknown {
			t.Fatalf("probe %d of a frozen Redis: %+v", i, found)
		}
	}
	if err := thaw(); err != nil {
		t.Fatal(err)
	}
	if found := awaitParts(t, h); found.LagEvents != 0 {
		t.Errorf("lag of a shop that is well again: %+v", found)
	}
}

// pings is how often Redis was asked whether it answers.
func pings(t *testing.T, s *shoptest.Shop) int {
	t.Helper()
	info, err := s.Redis.Info(within(t), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	calls := regexp.MustCompile(`cmdstat_ping:calls=(\d+)`).FindStringSubmatch(info)
	if calls == nil {
		return 0
	}
	n, err := strconv.Atoi(calls[1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// gather scrapes gauges and counters, and the number of observations of histograms: "name{label=value,...}", and "name" for
// the last of its kind.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	samples := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			value := m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			samples[f.GetName()] = value
			samples[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = value
		}
	}
	if _, there := samples["go_goroutines"]; !there {
		t.Error("nothing about the Go process")
	}
	return samples
}

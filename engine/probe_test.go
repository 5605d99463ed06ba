package engine_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/cmd/stack"
	"stampede/engine"
)

func TestByPartition_SaysEachThingOnce(t *testing.T) {
	for _, c := range []struct {
		wrong []string
		want  string
	}{
		{nil, ""},
		{[]string{"", ""}, ""},
		{[]string{"", "shut"}, "partition 1: shut"},
		{[]string{"shut", "", "behind", "shut"}, "partitions 0, 3: shut\npartition 2: behind"},
	} {
		text := ""
		if err := engine.ByPartition(c.wrong); err != nil {
			text = err.Error()
		}
		if text != c.want {
			t.Errorf("%q: %q, want %q", c.wrong, text, c.want)
		}
	}
}

func TestDoors_AllThatAreShutAreSaidTogether(t *testing.T) {
	s := wide.open(t)
	e := furtherEngine(t, s, engine.Config{}) // does not run: it knows nothing yet
	if err := e.Ready(); err == nil || err.Error() != "partitions 0, 1, 2: door shut: not checked yet" {
		t.Errorf("ready: %v", err)
	}
	if err := e.CheckDoors(context.Background()); err == nil || !strings.HasPrefix(err.Error(), "partitions 0, 1, 2: this process has not followed Redis") {
		t.Errorf("doors that stand open, unknown here: %v", err)
	}
	awaitReady(t, s.Engine)
}

func TestPing_SaysWhatToDoAndNoSecret(t *testing.T) {
	s := shoptest.Start(t, stack.Options{}, shop.Config{})
	const secret = "hunter2secret"
	wrong, err := url.Parse(s.Stack.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword(wrong.User.Username(), secret)
	client, err := engine.Connect(engine.Redis{URL: wrong.String()}, 2, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := engine.New(engine.Config{Redis: client, Partitions: s.Engine.Keys().Partitions(), Node: nodeOfTests})
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close() //nolint:errcheck // nothing is pending
	want := func(when string, e *engine.Engine, wait time.Duration, texts ...string) {
		t.Helper()
		err := e.Ping(within(t, wait))
		if err == nil {
			t.Errorf("%s: Redis answers", when)
			return
		}
		for _, text := range texts {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("%s: %q, want something about %q", when, err, text)
			}
		}
		if strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "redis://") {
			t.Errorf("%s: %q tells a secret", when, err)
		}
	}
	if err := s.Engine.Ping(within(t, patience)); err != nil {
		t.Errorf("a Redis that is well: %v", err)
	}
	want("a wrong password", stranger, patience, "WRONGPASS", "are user and password of the Redis URL right?")
	if err := s.Servers().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	want("frozen", s.Engine, 200*time.Millisecond, "does not answer in time", "frozen")
	if err := s.Servers().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := s.Servers().HaltNow(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	want("dead", s.Engine, patience, "cannot be reached", "start it")
	if err := s.Servers().Resume(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	await(t, "an answer", func() bool { return s.Engine.Ping(within(t, patience)) == nil })
}

func TestMetrics_CountWhatTheQueueRefuses(t *testing.T) {
	s := common.open(t)
	const timeout = 50 * time.Millisecond
	registry := prometheus.NewRegistry()
	e := furtherEngine(t, s, engine.Config{QueueMax: 1, OperationTimeout: timeout, Metrics: registry})
	user := s.User(0)
	wantFigures := func(want map[string]float64) {
		t.Helper()
		got := figures(t, registry)
		for name, value := range want {
			if count, there := got[name]; !there || count != value {
				t.Errorf("%s is %v (%t), want %v", name, count, there, value)
			}
		}
	}
	of := fmt.Sprint(" partition=", e.Keys().OfUser(user))
	full, late := "stampede_queue_refusals_total"+of+" reason=full", "stampede_queue_refusals_total"+of+" reason=late"
	waits := e.ChargeOp(engine.ChargeRequest{UserID: user, Amount: 1, Key: "waits"})
	if err := e.Enqueue(waits); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, _, err := e.Charge(within(t, patience), engine.ChargeRequest{UserID: user, Amount: 1, Key: "no room"})
		wantErr(t, "a charge beyond a full queue", err, engine.ErrOverloaded)
	}
	wantFigures(map[string]float64{
		full: 3, late: 0, "stampede_queue_operations" + of: 1, "stampede_queue_operations_max" + of: 1,
	})
	time.Sleep(timeout) // its deadline
	e.Start()
	outcome, err := waits.Wait(within(t, patience))
	if err != nil {
		t.Fatal(err)
	}
	wantErr(t, "an operation past its deadline", outcome.Err, engine.ErrOverloaded)
	wantFigures(map[string]float64{full: 3, late: 1, "stampede_queue_operations" + of: 0})
	wantBalance(t, s.Engine, user, 0)
}

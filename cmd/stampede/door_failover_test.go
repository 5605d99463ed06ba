package main

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

// noticeMax is how long a process may go on at a Redis that was left behind: it looks at the books every half second, and
// this machine may be slow.
const noticeMax = 2 * time.Second

// A replica that lags is promoted, and sells, while the old master was never restarted and a process still sells from it:
// its epoch and its node are what they were, and its door stands open. The classic split brain.
//
//servers:redis
func TestDoor_OldMasterOfALaggingReplicaSellsNothing(t *testing.T) {
	t.Parallel()
	master := stacktest.Start(t, stack.Options{})
	follower := stacktest.Start(t, stack.Options{NoPostgres: true})
	old := serveAt(t, master.RedisURL(), master)
	q := lineUp(old, 6, 1_000_000)
	stop := q.shop(old)
	replicate(t, follower, master)
	q.await(100)
	promote(t, follower)
	q.await(100)                     // the writer has most of these, the new master none
	release := holdWriter(t, master) // of these nobody but the old master knows
	q.await(100)

	successor := serveAt(t, follower.RedisURL(), master)
	promoted := time.Now()
	forked := fence(t, master) - 1
	q.awaitTurnedAway(old)
	last := q.lastPlaced(old)
	if late := last.Sub(promoted); late > noticeMax {
		t.Errorf("the old master sold for %v beside its successor", late)
	}
	release()
	stop()
	var health struct{ Problems []string }
	if status := old.call("GET", "/readyz", "", nil, &health); status != 503 || !strings.Contains(strings.Join(health.Problems, " "), "left behind") {
		t.Errorf("readyz of the process that is left behind: %d %v", status, health.Problems)
	}
	for path, want := range map[string]int{
		"/balance?user_id=" + q.users[0]: 503, "/products/" + q.product: 503, "/cart?user_id=" + q.users[0]: 503, "/healthz": 200,
	} {
		if status := old.call("GET", path, "", nil, nil); status != want {
			t.Errorf("GET %s of the process that is left behind: %d", path, status)
		}
	}
	if status := old.call("POST", "/users", "", map[string]any{"name": "Late", "email": "late@example.com"}, nil); status != 503 {
		t.Errorf("POST /users of the process that is left behind: %d", status)
	}
	old.awaitLogged("acknowledged events are lost")

	// It leaves the lead to the writer of the successor, and what was lost is named.
	stopAgain := q.shop(successor, old)
	q.await(100)
	stopAgain()
	successor.awaitWritten()
	gone := q.settle(successor)
	successor.awaitWritten()
	lost := audited(t, follower.RedisURL(), master)
	t.Logf("%d acknowledged orders gone, lost: %+v; the last one %v after the successor opened", len(gone), lost, last.Sub(promoted))
	if l := lost[forked]; len(gone) < 100 || l.Events < int64(len(gone)) || l.Events > int64(len(gone)+q.count(504, nil)+q.count(0, nil)) || len(lost) != 1 {
		t.Errorf("%d acknowledged orders are gone, the books say %+v", len(gone), lost)
	}

	// Nor does it sell when it is started again, though its door is shut then, and a repair would replay the journal.
	if err := master.Redis().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := master.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	old.awaitProblem("other processes sell from")
	// As a replica of its successor it has what the successor has, and sells nothing either.
	replicate(t, master, follower)
	old.awaitProblem("is a replica")
	if n := q.count(http.StatusCreated, old); n != q.countUntil(old, last) {
		t.Errorf("%d orders of the process that was left behind, %d before it noticed", n, q.countUntil(old, last))
	}
	successor.awaitReady()
	old.stop()
	successor.stop()
}

// replicate makes the Redis of one stack a replica of the other's, and waits until it has what that had.
func replicate(t *testing.T, replica, master *stack.Stack) {
	t.Helper()
	at, err := url.Parse(master.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	password, _ := at.User.Password()
	client := clientOf(t, replica)
	for _, command := range [][]any{
		// Redis does not end on SIGTERM while it writes the first AOF behind a full synchronization: this one keeps none.
		{"config", "set", "appendonly", "no"},
		{"config", "set", "masterauth", password},
		{"replicaof", at.Hostname(), at.Port()},
	} {
		if err := client.Do(within(t), command...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(patience); !strings.Contains(client.Info(within(t), "replication").Val(), "master_link_status:up"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the replica never follows")
		}
	}
}

// promote makes a replica a master of its own.
func promote(t *testing.T, replica *stack.Stack) {
	t.Helper()
	if err := clientOf(t, replica).Do(within(t), "replicaof", "no", "one").Err(); err != nil {
		t.Fatal(err)
	}
}

func clientOf(t *testing.T, s *stack.Stack) redis.UniversalClient {
	t.Helper()
	client, err := engine.Connect(engine.Redis{URL: s.RedisURL()}, 1, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// awaitTurnedAway waits until every buyer was turned away by a server since.
func (q *queue) awaitTurnedAway(by *server) {
	q.t.Helper()
	want := q.count(http.StatusServiceUnavailable, by) + 2*len(q.users)
	for deadline := time.Now().Add(patience); q.count(http.StatusServiceUnavailable, by) < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			q.t.Fatal("it goes on selling")
		}
	}
}

// lastPlaced is when a server acknowledged an order last.
func (q *queue) lastPlaced(by *server) (at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.log {
		if r.status == http.StatusCreated && r.by == by.url && r.at.After(at) {
			at = r.at
		}
	}
	return at
}

// countUntil counts the orders that a server acknowledged up to a time.
func (q *queue) countUntil(by *server, until time.Time) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range q.log {
		if r.status == http.StatusCreated && r.by == by.url && !r.at.After(until) {
			n++
		}
	}
	return n
}

// awaitProblem waits until /readyz says something.
func (s *server) awaitProblem(want string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var body struct{ Problems, Warnings []string }
		s.call("GET", "/readyz", "", nil, &body)
		said := strings.Join(append(body.Problems, body.Warnings...), "\n")
		if strings.Contains(said, want) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("readyz says %v, want %q", said, want)
		}
	}
}

package main

import (
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// A process falls asleep in the middle of its calls, Redis is restarted and another process repairs it and sells. The one
// that wakes up has calls in its queue and on the wire, and perhaps a transaction of its writer half done. It sells nothing
// in the epoch that it knows, and goes on in the new one.
func TestDoor_ProcessAsleepThroughARepair(t *testing.T) {
	t.Parallel()
	servers := stacktest.Start(t, stack.Options{})
	a, b := serveAt(t, servers.RedisURL(), servers), serveAt(t, servers.RedisURL(), servers)
	q := lineUp(a, 6, 1_000_000)
	stop := q.shop(a, b)
	for _, sleeper := range []*server{a, b} { // the writer of one of them leads
		q.await(150)
		before := fence(t, servers)
		sleeper.signal(syscall.SIGSTOP)
		if err := servers.Redis().HaltNow(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := servers.Redis().Resume(within(t)); err != nil {
			t.Fatal(err)
		}
		q.await(100) // at the other one
		slept := q.count(http.StatusCreated, sleeper)
		sleeper.signal(syscall.SIGCONT)
		for deadline := time.Now().Add(patience); q.count(http.StatusCreated, sleeper) < slept+50; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the one that slept does not go on")
			}
		}
		if now := fence(t, servers); now != before+1 {
			t.Errorf("epoch %d after one restart, %d before", now, before)
		}
	}
	stop()
	a.awaitWritten()
	for _, r := range q.settle(a) {
		t.Errorf("order %s is gone", r.order)
	}
	b.awaitWritten()
	if lost := audited(t, servers.RedisURL(), servers); len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	a.stop()
	b.stop()
}

// Redis is emptied under a running shop: nothing is sold, nothing is created, and the way out is named. After it there is
// one truth.
//
//servers:redis
func TestDoor_RedisEmptiedUnderLoad(t *testing.T) {
	t.Parallel()
	servers := stacktest.Start(t, stack.Options{})
	s := serveAt(t, servers.RedisURL(), servers)
	q := lineUp(s, 6, 1_000_000)
	stop := q.shop(s)
	q.await(200)
	emptied := cut{epoch: fence(t, servers)}
	if err := clientOf(t, servers).FlushAll(within(t)).Err(); err != nil {
		t.Fatal(err)
	}
	emptied.at = time.Now()
	s.awaitProblem("stampede restore")
	s.awaitLogged("stampede restore")
	q.awaitTurnedAway(s)
	placed := q.placed.Load()
	for path, body := range map[string]map[string]any{
		"/users":    {"name": "Late", "email": "late@example.com"},
		"/products": {"name": "Late", "price": 1, "stock": 1},
	} {
		if status := s.call("POST", path, "", body, nil); status != http.StatusServiceUnavailable {
			t.Errorf("POST %s: %d", path, status)
		}
	}
	for _, path := range []string{"/balance?user_id=" + q.users[0], "/products/" + q.product, "/products", "/products/top"} {
		if status := s.call("GET", path, "", nil, nil); status != http.StatusServiceUnavailable {
			t.Errorf("GET %s: %d", path, status)
		}
	}
	q.awaitTurnedAway(s)
	if now := q.placed.Load(); now != placed {
		t.Errorf("%d orders of an empty Redis", now-placed)
	}
	conn, err := pgx.Connect(within(t), servers.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	var rows int
	err = conn.QueryRow(within(t), "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM products)").Scan(&rows)
	if err != nil || rows != len(q.users)+1 {
		t.Errorf("%d users and products in the books, want %d; %v", rows, len(q.users)+1, err)
	}
	_ = conn.Close(within(t))

	if code, out, text := finish(t, append(joining(servers.RedisURL(), servers), "restore")...); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	q.await(100) // the running shop opens by itself
	stop()
	s.awaitWritten()
	for _, r := range q.settle(s) {
		emptied.gone++
		if r.at.After(emptied.at.Add(time.Second)) {
			t.Errorf("order %s is gone, acknowledged after Redis was emptied", r.order)
		}
	}
	s.awaitWritten()
	lost := audited(t, servers.RedisURL(), servers)
	t.Logf("%d acknowledged orders that the writer had not seen are gone, lost: %v", emptied.gone, lost)
	if l := lost[emptied.epoch]; l.Events < int64(emptied.gone) || l.Events > int64(emptied.gone+q.count(504, nil)+q.count(0, nil)) {
		t.Errorf("%d acknowledged orders are gone, the books say %v", emptied.gone, lost)
	}
	if n := strings.Count(s.err.String(), "acknowledged events are lost"); n != len(lost) {
		t.Errorf("%d losses in the log, %d in the books", n, len(lost))
	}
	s.stop()
}

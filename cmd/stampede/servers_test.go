package main

import (
	"context"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// within is the context of one step of a test.
func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// demoCounts asks PostgreSQL how many products and users there are, and wants every user to have a balance.
func demoCounts(t testing.TB, s *server, dir string) (products, users int) {
	t.Helper()
	s.awaitWritten()
	var poor int
	withPostgres(t, dir, func(conn *pgx.Conn) error {
		return conn.QueryRow(within(t), `SELECT (SELECT count(*) FROM products),
			(SELECT count(*) FROM users), (SELECT count(*) FROM users WHERE balance < 1)`).Scan(&products, &users, &poor)
	})
	if poor > 0 {
		t.Errorf("%d users without a balance", poor)
	}
	return products, users
}

// awaitWritten waits until the shop is ready and PostgreSQL has everything.
func (s *server) awaitWritten() {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var health struct {
			Status             string
			Lag                int64 `json:"writer_lag_events"`
			Problems, Warnings []string
		}
		if s.call("GET", "/readyz", "", nil, &health); health.Status == "ready" && health.Lag == 0 {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("never ready: %+v", health)
		}
	}
}

// awaitSelling repeats an order until it is answered as before: then this process knows that the door is open anew.
func (s *server) awaitSelling(p purchase) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); s.order(p, nil) != 201; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("never sells again")
		}
	}
}

func withPostgres(t testing.TB, dir string, f func(*pgx.Conn) error) {
	t.Helper()
	conn, err := pgx.Connect(within(t), env(t, dir).postgresURL)
	if err != nil {
		t.Fatal(err)
	}
	if err := f(conn); err != nil {
		t.Error(err)
	}
	_ = conn.Close(within(t))
}

func tamper(t testing.TB, dir, sql string, args ...any) {
	t.Helper()
	withPostgres(t, dir, func(conn *pgx.Conn) error {
		_, err := conn.Exec(within(t), sql, args...)
		return err
	})
}

func withRedis(t testing.TB, dir string, f func(redis.UniversalClient) error) {
	t.Helper()
	client, err := engine.Connect(engine.Redis{URL: env(t, dir).redisURL}, 1, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := f(client); err != nil {
		t.Fatal(err)
	}
}

// flushRedis empties Redis and returns what it belonged to.
func flushRedis(t testing.TB, dir string) (d engine.Deployment) {
	t.Helper()
	withRedis(t, dir, func(client redis.UniversalClient) (err error) {
		if d, _, err = engine.FindDeployment(within(t), client); err != nil {
			return err
		}
		return client.FlushAll(within(t)).Err()
	})
	return d
}

func claimRedis(t testing.TB, dir string, d engine.Deployment) {
	t.Helper()
	withRedis(t, dir, func(client redis.UniversalClient) error { return engine.ClaimRedis(within(t), client, d) })
}

func wantAuditHolds(t testing.TB, dir string) {
	t.Helper()
	code, out, text := finish(t, "audit", "--data-dir", dir)
	if code != exitDone || !strings.Contains(out, "all holds") {
		t.Errorf("audit: %d\n%s%s", code, out, text)
	}
}

// withPassword puts another password into a URL.
func withPassword(t testing.TB, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword(u.User.Username(), secret)
	return u.String()
}

// freeze stops PostgreSQL's processes where they are; whoever stops them for good wakes the postmaster itself.
func freeze(t testing.TB, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	postmaster, err := strconv.Atoi(line)
	if err != nil {
		t.Fatal(err)
	}
	children, err := os.ReadFile("/proc/" + line + "/task/" + line + "/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range strings.Fields(string(children)) {
		child, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(child, syscall.SIGSTOP) // one that has ended is as good
	}
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

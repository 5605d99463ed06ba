package main

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// A stray `serve` on a copied data directory, beside two that sell: refused, whether started under load, or beside a shop that is
// killed and started again at the same time.
func TestStray_ServeOnACopiedDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	servers := stacktest.Start(t, stack.Options{})
	a, b := serveAt(t, servers.RedisURL(), servers), serveAt(t, servers.RedisURL(), servers)
	q := lineUp(a, 6, 1_000_000)
	stop := q.shop(a, b)
	q.await(200)
	copied := copyOf(t, servers)
	epoch := fence(t, servers)
	began := time.Now()
	stray := launch(t, append(joining(copied.RedisURL(), servers), "serve")...)
	stray.awaitLogged("copy of the one that sells")
	t.Logf("refused after %v", time.Since(began))
	q.await(200)
	stop()
	if n := q.count(http.StatusServiceUnavailable, nil) + q.count(http.StatusGatewayTimeout, nil); n > 0 {
		t.Errorf("the shop that sells turned %d orders away", n)
	}
	// All are killed, and start again at once. The Redis of the shop is open still.
	for _, s := range []*program{stray, a.program, b.program} {
		s.signal(syscall.SIGKILL)
		<-s.exited
	}
	began = time.Now()
	stray = launch(t, append(joining(copied.RedisURL(), servers), "serve")...)
	a = serveAt(t, servers.RedisURL(), servers)
	t.Logf("the shop is ready after %v", time.Since(began))
	stray.awaitLogged("copy of the one that sells")
	stop = q.shop(a)
	q.await(100)
	stop()
	a.awaitWritten()
	for _, r := range q.settle(a) {
		t.Errorf("order %s is missing", r.order)
	}
	a.awaitWritten()
	if lost := audited(t, servers.RedisURL(), servers); len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
	if now := fence(t, servers); now != epoch {
		t.Errorf("epoch %d, it was %d", now, epoch)
	}
	stray.signal(syscall.SIGKILL)
	<-stray.exited
	a.stop()
}

// copyOf starts a Redis on a copy of the files of another, which runs on.
func copyOf(t *testing.T, of *stack.Stack) *stack.Stack {
	t.Helper()
	other := stacktest.Start(t, stack.Options{NoPostgres: true})
	if err := other.Redis().HaltNow(within(t)); err != nil {
		t.Fatal(err)
	}
	const aof = "appendonlydir"
	to := filepath.Join(other.RedisDir(), aof)
	if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(filepath.Join(of.RedisDir(), aof)))); err != nil {
		t.Fatal(err)
	}
	if err := other.Redis().Resume(within(t)); err != nil {
		t.Fatal(err)
	}
	return other
}

package main

import (
	"strings"
	"testing"

	"stampede/cmd/stack/stacktest"
)

func TestRestore_BesideARunningShop(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	deployment := flushRedis(t, dir)
	e := env(t, dir)
	elsewhere := strings.Replace(e.postgresURL, "/stampede?", "/postgres?", 1)
	wantRefused(t, "no books", "STAMPEDE_REDIS_URL="+e.redisURL, "STAMPEDE_POSTGRES_URL="+elsewhere, "restore")
	claimRedis(t, dir, deployment) // as a restore that got no further
	code, out, text := finish(t, "restore", "--data-dir", dir)
	if code != exitDone || !strings.Contains(out, "rebuilt") {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	s.awaitSelling(bought) // the doors of the running shop open by themselves
	s.wantKept(bought)
	s.buy("second@example.com")
	wantAuditHolds(t, dir)
	s.stop()
}

func TestRestore_OfAStoppedShop(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	flushRedis(t, dir)
	s.stop()
	wantRefused(t, "stampede restore", "up", "--addr", "127.0.0.1:0", "--data-dir", dir)
	wantNothingLeft(t, dir)
	if code, out, text := finish(t, "restore", "--data-dir", dir); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	wantNothingLeft(t, dir)
	wantRefused(t, "not empty", "restore", "--data-dir", dir)

	again := up(t, dir)
	again.wantKept(bought)
	wantAuditHolds(t, dir)
	again.stop()
}

func TestAudit_TellsWhatItFinds(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	wantAuditHolds(t, dir)
	tamper(t, dir, "UPDATE users SET balance = balance + 1 WHERE id = $1", bought.user)
	code, out, _ := finish(t, "audit", "--data-dir", dir)
	if code != exitViolations || !strings.Contains(out, "users") {
		t.Errorf("audit of a changed balance: %d\n%s", code, out)
	}
	code, out, _ = finish(t, "audit", "--json", "--data-dir", dir)
	if code != exitViolations || !strings.HasPrefix(out, `{"ok":false,`) || !strings.Contains(out, `"check":`) {
		t.Errorf("audit --json of a changed balance: %d\n%s", code, out)
	}
	s.stop()
}

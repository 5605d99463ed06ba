package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack/stacktest"
)

// soldOrders counts what the tables say was sold, and in how many steps.
func soldOrders(t *testing.T, conn *pgx.Conn) (orders, steps int) {
	t.Helper()
	err := conn.QueryRow(within(t), "SELECT (SELECT count(*) FROM orders WHERE status = 'SUCCESS'), (SELECT count(*) FROM order_history)").
		Scan(&orders, &steps)
	if err != nil {
		t.Fatal(err)
	}
	return orders, steps
}

func wantSold(t *testing.T, dir string, orders, steps int) {
	t.Helper()
	withPostgres(t, dir, func(conn *pgx.Conn) error {
		if o, s := soldOrders(t, conn); o != orders || s != steps {
			t.Errorf("%d orders in %d steps, want %d in %d", o, s, orders, steps)
		}
		return nil
	})
}

//servers:postgres
func TestRebuild_BesideARunningShopAndOfAStoppedOne(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	s.buy("first@example.com")
	bought := s.buy("second@example.com")
	s.awaitWritten()
	tamper(t, dir, "DELETE FROM orders WHERE id = $1", bought.order)
	tamper(t, dir, "UPDATE users SET balance = balance + 1")
	code, out, text := finish(t, "rebuild-reports", "--data-dir", dir)
	if code != exitDone || !strings.Contains(out, "quarantine") || !strings.Contains(out, "6 events in 1 partition(s), 0 of them in quarantine") {
		t.Errorf("rebuild: %d\n%s%s", code, out, text)
	}
	for line := range strings.Lines(out) {
		if name := strings.Fields(line); name[0] == "orders" && strings.Join(name, " ") != "orders 2 1 0 0" {
			t.Errorf("orders: %s", line)
		}
	}
	wantSold(t, dir, 2, 4)
	s.wantKept(bought)
	wantAuditHolds(t, dir)

	postgres := "STAMPEDE_POSTGRES_URL=" + env(t, dir).postgresURL
	tamper(t, dir, "TRUNCATE order_history")
	if code, out, text := finish(t, postgres, "rebuild-reports"); code != exitDone {
		t.Errorf("rebuild by URL: %d\n%s%s", code, out, text)
	}
	wantSold(t, dir, 2, 4)
	tamper(t, dir, "TRUNCATE order_history")
	s.stop()

	if code, out, text := finish(t, "rebuild-reports", "--data-dir", dir); code != exitDone {
		t.Errorf("rebuild of a stopped shop: %d\n%s%s", code, out, text)
	}
	wantNothingLeft(t, dir)
	wantRefused(t, "is it running", postgres, "rebuild-reports")
	s = up(t, dir)
	wantSold(t, dir, 2, 4)
	s.buy("third@example.com")
	s.awaitWritten()
	wantAuditHolds(t, dir)
	s.stop()
}

// Ctrl-C and a kill while it waits for writers: nothing is changed, and nobody is held up.
func TestRebuild_CutShort(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	s.buy("first@example.com")
	s.awaitWritten()
	tamper(t, dir, "TRUNCATE order_history")
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		withPostgres(t, dir, func(conn *pgx.Conn) error {
			tx, err := conn.Begin(within(t))
			if err != nil {
				return err
			}
			// Readers stand nowhere in a rebuild's way, a lock on the rows that it inserts does.
			if _, err := tx.Exec(within(t), "LOCK TABLE order_history IN SHARE MODE"); err != nil {
				return err
			}
			p := launch(t, "rebuild-reports", "--data-dir", dir)
			awaitWaiting(t, tx)
			p.signal(signal)
			if code := p.code(); signal == syscall.SIGINT && (code != exitFailed || !strings.Contains(p.err.String(), "interrupted: nothing was changed")) {
				t.Errorf("after SIGINT: %d\n%s", code, p.err)
			}
			return tx.Commit(within(t))
		})
		wantSold(t, dir, 1, 0)
	}
	s.buy("second@example.com")
	s.awaitWritten()
	if code, out, text := finish(t, "rebuild-reports", "--data-dir", dir); code != exitDone {
		t.Errorf("rebuild: %d\n%s%s", code, out, text)
	}
	wantSold(t, dir, 2, 4)
	wantAuditHolds(t, dir)
	s.stop()
}

// awaitWaiting waits until somebody waits for a lock on order_history.
func awaitWaiting(t *testing.T, tx pgx.Tx) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		var waits bool
		err := tx.QueryRow(within(t), "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'order_history'::regclass)").Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
		if waits {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the rebuild never comes to the table")
		}
	}
}

func TestRebuild_Refused(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	wantRefused(t, "there is no stack in", "rebuild-reports", "--data-dir", dir)
	wantRefused(t, "is it running", "STAMPEDE_POSTGRES_URL=postgres://u:"+secret+"@127.0.0.1:1/d", "rebuild-reports")
	wantRefused(t, "cannot be read", "STAMPEDE_POSTGRES_URL="+secret+"%zz://", "rebuild-reports")

	ca := newAuthority(t)
	p := startSecuredPostgres(t, ca)
	wantRefused(t, "no books", "STAMPEDE_POSTGRES_URL="+p.owner, "rebuild-reports")
	r := startSecuredRedis(t, ca, aclOfReadme(t))
	s := serveSecured(r, p)
	s.buy("first@example.com")
	s.awaitWritten()
	s.stop()
	wantRefused(t, "INSERT on orders", "STAMPEDE_POSTGRES_URL="+p.auditor, "rebuild-reports")
	if code, out, text := finish(t, "STAMPEDE_POSTGRES_URL="+p.owner, "rebuild-reports"); code != exitDone {
		t.Errorf("as the owner: %d\n%s%s", code, out, text)
	}
	r.wantAudited(p)
}

func TestHowFar(t *testing.T) {
	t.Parallel()
	var f howFar
	if line := f.line(0); line != "Rebuilding: reading the journal" {
		t.Error(line)
	}
	f.set("events derived", 50, 200)
	if line := f.line(0); line != "Rebuilding: 50 of 200 events derived (25%)" {
		t.Error(line)
	}
}

package persist_test

import (
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine"
	"stampede/persist"
)

func TestRebuild_OfAnEmptyJournal(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{Partitions: 2})
	user := s.User(0)
	before := dumpWritten(t, s, conn)
	exec(t, conn, "UPDATE users SET balance = 5 WHERE id = $1", user)
	exec(t, conn, "INSERT INTO orders VALUES (7, $1, 'SUCCESS', 5, now(), now())", user)
	if done := rebuild(t, s); done.Events != 0 || done.Partitions != 2 {
		t.Errorf("%+v", done)
	}
	wantTables(t, conn, before)
	auditClean(t, s)
}

func TestRebuild_OneAtATime(t *testing.T) {
	s, conn := start(t, shop.Config{})
	persist.RebuildLockTimeout(t, 200*time.Millisecond)
	s.User(100)
	s.Written()
	tried := false
	_, err := s.Books.RebuildReports(t.Context(), func(persist.RebuildStage, int64, int64) {
		if !tried {
			tried = true
			wantUntouched(t, s, conn, "another rebuild is under way")
		}
	})
	if err != nil || !tried {
		t.Errorf("%v, tried: %v", err, tried)
	}
	rebuild(t, s)
}

// What the journal lacks is told nowhere but by the tables.
func TestRebuild_RefusesAJournalWithGaps(t *testing.T) {
	t.Parallel()
	for _, deleted := range []string{"max(last_seq)", "min(last_seq)", "min(last_seq) + 1"} {
		s, conn := start(t, shop.Config{})
		user := s.User(1000)
		product := s.Product(1, 100)
		for _, key := range []string{"a", "b"} {
			place(t, s, user, key, line(product, 1))
		}
		s.Written()
		exec(t, conn, "DELETE FROM events WHERE last_seq = (SELECT "+deleted+" FROM events)")
		wantUntouched(t, s, conn, "rows of the table events were deleted")
	}
}

func TestRebuild_RefusesWhatItMayNotOrCannotDo(t *testing.T) {
	s, conn := start(t, shop.Config{})
	s.User(100)
	s.Written()

	persist.RebuildLockTimeout(t, 200*time.Millisecond)
	other := connect(t, s)
	exec(t, other, "BEGIN")
	exec(t, other, "SELECT FROM checkpoints FOR UPDATE")
	wantUntouched(t, s, conn, "locked by somebody else")
	exec(t, other, "COMMIT")

	exec(t, conn, "CREATE ROLE reader LOGIN PASSWORD 'reader' IN ROLE pg_read_all_data")
	at, err := url.Parse(s.Stack.PostgresURL())
	if err != nil {
		t.Fatal(err)
	}
	at.User = url.UserPassword("reader", "reader")
	books, err := persist.OpenExisting(t.Context(), at.String(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer books.Close()
	_, err = books.RebuildReports(t.Context(), quietly)
	if !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "INSERT on orders") {
		t.Errorf("a role that reads: %v", err)
	}

	s.Stop()
	exec(t, conn, "DROP TABLE quarantine")
	if _, err = books.RebuildReports(t.Context(), quietly); !errors.Is(err, persist.ErrRefused) || !strings.Contains(err.Error(), "earlier version") {
		t.Errorf("books of an earlier version: %v", err)
	}
}

// Events of which nothing can be derived go into quarantine, and leave it when it can.
func TestRebuild_Quarantine(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(1, 100)
	restock := func(units int64, reason string) {
		t.Helper()
		_, _, err := s.Engine.Restock(t.Context(), engine.RestockRequest{ProductID: product, Delta: units, Reason: reason, Key: reason})
		if err != nil {
			t.Fatal(err)
		}
	}
	restock(5, "good")
	addToCart(t, s, user, product, 2)
	s.Written()
	restock(7, "bad")
	place(t, s, user, "order", line(product, 3))
	before := dumpWritten(t, s, conn)

	// A rule that one of the rows breaks, and an entry that cannot be read.
	exec(t, conn, "ALTER TABLE stock_ledger ADD CONSTRAINT no_bad CHECK (reason <> 'bad') NOT VALID")
	exec(t, conn, "CREATE TABLE kept AS SELECT * FROM events WHERE last_seq = (SELECT seq FROM carts)")
	exec(t, conn, "UPDATE events SET payload = '\\xc1' WHERE last_seq = (SELECT seq FROM carts)")
	if done := rebuild(t, s); done.Quarantined != 2 {
		t.Errorf("%d events in quarantine, want 2", done.Quarantined)
	}
	for sql, want := range map[string]int64{
		"SELECT count(*) FROM quarantine WHERE reason <> ''":              2,
		"SELECT count(*) FROM quarantine WHERE reason LIKE '%no_bad%'":    1,
		"SELECT count(*) FROM stock_ledger WHERE reason = 'bad'":          0,
		"SELECT stock FROM products":                                      102,
		"SELECT count(*) FROM carts":                                      0,
		"SELECT count(*) FROM orders":                                     1,
		"SELECT balance FROM users":                                       997,
		"SELECT count(*) FROM stock_ledger WHERE order_id IS NOT NULL":    1,
		"SELECT count(*) FROM events e JOIN kept k USING (last_seq)":      1,
		"SELECT count(*) FROM events e JOIN quarantine ON seq = last_seq": 2,
	} {
		if got := number(t, conn, sql); got != want {
			t.Errorf("%s: %d, want %d", sql, got, want)
		}
	}
	quarantined := dumpTables(t, conn)
	rebuild(t, s)
	wantTables(t, conn, quarantined) // they stay there since the same time

	exec(t, conn, "ALTER TABLE stock_ledger DROP CONSTRAINT no_bad")
	exec(t, conn, "UPDATE events e SET payload = k.payload FROM kept k WHERE e.last_seq = k.last_seq")
	rebuild(t, s)
	wantTables(t, conn, before)
	auditClean(t, s)
}

package persist_test

import (
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/shop"
	"stampede/cmd/shop/shoptest"
	"stampede/engine"
	"stampede/persist"
)

// A process that was killed has its lease for an hour: a restart does not wait for it, nor for another that answers.
func TestAsking_WaitsForNoneThatAreDead(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(1, 100)
	place(t, s, user, "before", line(product, 1))
	dead, err := persist.Open(t.Context(), s.Stack.PostgresURL(), 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dead.LeaseNode(t.Context(), "dead"); err != nil {
		t.Fatal(err)
	}
	dead.Close()
	second(t, s)
	fastest := time.Hour
	for n := range 3 {
		began := time.Now()
		restart(t, s, func() {})
		fastest = min(fastest, time.Since(began))
		place(t, s, user, fmt.Sprint("after ", n), line(product, 1))
	}
	t.Logf("open after %v", fastest)
	if fastest > time.Second && shoptest.OnePartition() { // a cluster takes longer to agree
		t.Errorf("no restart took less than %v", fastest)
	}
	s.Written()
	auditClean(t, s)
}

// The release before has leases, answers a challenge by taking it away, and shows no sign of life.
func TestAsking_AlsoTheReleaseBefore(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(1, 100)
	place(t, s, user, "before", line(product, 1))
	exec(t, conn, "UPDATE nodes SET holder = 'of the release before', leased_until = now() + interval '1 hour' WHERE node = 900")
	old := dial(t, s.Stack.PostgresURL())
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
				if _, err := old.Exec(t.Context(), "UPDATE checkpoints SET challenge = NULL WHERE challenge IS NOT NULL"); err != nil {
					return
				}
			}
		}
	}()
	restartShut(t, s)
	awaitReason(t, s.Shop, "other processes sell from")
	if _, _, err := s.Engine.Place(t.Context(), engine.PlaceRequest{UserID: user, Key: "a", Lines: []engine.Line{line(product, 1)}}); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("an order: %v", err)
	}
	close(stop)
	<-stopped
	awaitOpen(t, s)
	place(t, s, user, "after", line(product, 1))
	s.Written()
	auditClean(t, s)
}

// A process that lives and does not answer keeps a repair from opening, and is named; not for longer than it lives.
func TestAsking_AProcessThatDoesNotAnswerIsNamed(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	exec(t, conn, "UPDATE nodes SET holder = 'a silent one', answers = 'a silent one', leased_until = now() + interval '1 hour' WHERE node = 900")
	silent := dial(t, s.Stack.PostgresURL())
	exec(t, silent, fmt.Sprintf("SELECT pg_advisory_lock(%d, 900)", 0x5354_0007))
	restartShut(t, s)
	awaitReason(t, s.Shop, "a silent one may sell from another Redis and does not answer")
	if err := silent.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitOpen(t, s)
}

// awaitBeats waits until the pulse of the epoch has moved three times.
func awaitBeats(t *testing.T, s *shoptest.Shop, conn *pgx.Conn) {
	t.Helper()
	seen := map[string]bool{}
	awaitThat(t, "the pulse moves", func() bool {
		var token string
		err := conn.QueryRow(t.Context(), "SELECT pulse FROM pulses JOIN checkpoints c USING (partition) WHERE pulse LIKE c.fence || ':%'").Scan(&token)
		if err == nil {
			seen[token] = true
		}
		return len(seen) > 3
	})
}

// A clone at which nothing was sold goes on by itself once the other has stopped: with all that the other sold.
func TestStray_CloneThatSoldNothingGoesOnAfterTheOtherStopped(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1_000_000), s.Product(1, 1000)
	place(t, s, user, "before", line(product, 1))
	s.Written()
	server, client := cloned(t, s)
	awaitBeats(t, s, conn)
	clone := openOn(t, s, server.RedisURL(), shop.Config{})
	defer closeShop(t, clone)
	awaitReason(t, clone, "copy of the one that sells")
	sold := place(t, s, user, "meanwhile", line(product, 2))
	s.Stop()
	awaitThat(t, "the clone goes on", func() bool { return clone.Engine.Ready() == nil })
	r := engine.PlaceRequest{UserID: user, Key: "meanwhile", Lines: []engine.Line{line(product, 2)}}
	if again, replayed, err := clone.Engine.Place(t.Context(), r); err != nil || !replayed || again.ID != sold.ID {
		t.Errorf("the clone has %+v, replayed %t, %v", again, replayed, err)
	}
	if err := clone.AwaitWritten(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := clone.Books.Audit(t.Context(), client, func(v persist.Violation) { t.Errorf("audit: %+v", v) }); err != nil {
		t.Error(err)
	}
	if n := number(t, conn, "SELECT count(*) FROM copy_losses"); n != 0 {
		t.Errorf("%d losses", n)
	}
}

// Postgres lost its last commits, as a standby that was promoted does: no other Redis sells, and the one at hand goes on.
func TestPulse_OfBooksThatWereSetBackIsBegunAgain(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{})
	user, product := s.User(1000), s.Product(1, 100)
	place(t, s, user, "before", line(product, 1))
	s.Written()
	for _, sql := range []string{"UPDATE pulses SET pulse = '1:1:OLD'", "DELETE FROM pulses"} {
		awaitBeats(t, s, conn)
		before := number(t, conn, "SELECT fence FROM checkpoints")
		exec(t, conn, sql)
		awaitThat(t, "a new epoch", func() bool { return number(t, conn, "SELECT fence FROM checkpoints") > before })
		awaitOpen(t, s)
		place(t, s, user, sql, line(product, 1))
	}
	s.Written()
	auditClean(t, s)
	if lost := losses(t, s); len(lost) != 0 {
		t.Errorf("lost: %+v", lost)
	}
}

// What the Redis of an epoch holds beyond the end of that epoch is not written, whichever process has the lead.
func TestWriter_WritesNothingBeyondTheEndOfAnEpoch(t *testing.T) {
	t.Parallel()
	s, conn := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1000), s.Product(1, 100)
	for _, key := range []string{"a", "b", "c"} {
		place(t, s, user, key, line(product, 1))
	}
	at, err := s.Engine.Look(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	endEpoch(t, s, at.Seq-2)
	awaitReason(t, s.Shop, "left behind")
	if err := s.Books.WriteOnce(t.Context(), s.Redis); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("written: %v", err)
	}
	if n := number(t, conn, "SELECT count(*) FROM events"); n != 0 {
		t.Errorf("%d entries in the journal", n)
	}
}

package persist_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"stampede/cmd/shop"
)

// A process that is frozen in the middle of a COPY keeps the row of the checkpoint, and Postgres heeds no timeout meanwhile. A restart
// of Redis must not wait for it.
func TestRepair_EndsTheSessionOfAWriterThatHangsInACopy(t *testing.T) {
	t.Parallel()
	s, _ := start(t, shop.Config{NoWriter: true})
	user, product := s.User(1000), s.Product(100, 10)
	place(t, s, user, "before", line(product, 1))
	frozen := connect(t, s)
	exec(t, frozen, fmt.Sprintf("SELECT pg_advisory_lock(%d, 0)", 0x5354_0002))
	exec(t, frozen, "SET idle_session_timeout = '10s'; SET idle_in_transaction_session_timeout = '5s'; SET statement_timeout = '10s'")
	exec(t, frozen, "BEGIN")
	exec(t, frozen, "UPDATE checkpoints SET updated_at = now()")
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := frozen.PgConn().CopyFrom(t.Context(), reader, "COPY events FROM STDIN")
		ended <- err
	}()
	defer writer.Close()
	time.Sleep(100 * time.Millisecond) // until Postgres waits for rows
	began := time.Now()
	restart(t, s, func() {})
	t.Logf("open after %v", time.Since(began))
	place(t, s, user, "after", line(product, 1))
	_ = writer.CloseWithError(io.ErrUnexpectedEOF)
	if err := <-ended; err == nil {
		t.Error("the frozen session went on")
	}
	write(t, s)
	auditClean(t, s)
}

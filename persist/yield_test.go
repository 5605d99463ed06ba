package persist_test

import (
	"testing"
	"time"

	"stampede/cmd/shop"
)

func TestWriter_ThatYieldedInARushCatchesUpAfterIt(t *testing.T) {
	t.Parallel()
	// Calls of two are a rush already.
	s, conn := start(t, shop.Config{OneMachine: true, BatchMax: 16, Workers: 1})
	var users []int64
	for range 32 {
		users = append(users, s.User(1_000_000))
	}
	stop := load(t, s.Engine.Place, users, s.Product(1, 1_000_000))
	rushes := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if s.Engine.Rush(0) {
			rushes++
		}
	}
	acknowledged, open := stop()
	if rushes == 0 {
		t.Error("32 buyers at once were no rush: the writer had no reason to yield")
	}
	if len(acknowledged) == 0 || len(open) > 0 {
		t.Fatalf("%d orders, %d of unknown outcome", len(acknowledged), len(open))
	}
	s.Written()
	if n := number(t, conn, "SELECT count(*) FROM orders"); n != int64(len(acknowledged)) {
		t.Errorf("%d orders in the books, %d were acknowledged", n, len(acknowledged))
	}
	auditClean(t, s)
}

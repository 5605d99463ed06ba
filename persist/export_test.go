package persist

import (
	"context"
	"testing"
)

// KeepEvents has books that are opened from now on keep fewer events in Redis, until the test ends, and let a single
// order go.
func KeepEvents(t *testing.T, n int64) {
	t.Helper()
	events, orders := keepEvents, letGoMin
	keepEvents, letGoMin = n, 1
	t.Cleanup(func() { keepEvents, letGoMin = events, orders })
}

// Exec lets a test change the tables by as many connections as it needs.
func (b *Books) Exec(ctx context.Context, sql string) error {
	_, err := b.pool.Exec(ctx, sql)
	return err
}

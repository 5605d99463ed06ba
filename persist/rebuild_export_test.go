package persist

import (
	"testing"
	"time"
)

// LockRebuild is the class of the lock that a rebuild holds.
const LockRebuild = lockRebuild

// RebuildLockTimeout has rebuilds wait less for locks, until the test ends.
func RebuildLockTimeout(t *testing.T, d time.Duration) {
	t.Helper()
	before := rebuildLockTimeout
	rebuildLockTimeout = d
	t.Cleanup(func() { rebuildLockTimeout = before })
}

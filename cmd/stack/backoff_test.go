package stack

import (
	"slices"
	"testing"
	"time"
)

func TestBackoff_IsShortForAServerThatWasReady(t *testing.T) {
	t.Parallel()
	const never = -1
	for name, c := range map[string]struct {
		served time.Duration // of each run
		killed bool
		want   []time.Duration
	}{
		"never ready": {never, false, []time.Duration{
			100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, 1600 * time.Millisecond,
			3200 * time.Millisecond, 5 * time.Second, 5 * time.Second,
		}},
		"killed before it is ready": {never, true, []time.Duration{
			100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, time.Second, time.Second,
		}},
		"ready, and dead at once": {0, false, []time.Duration{
			100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, time.Second, time.Second,
		}},
		"ready for some time": {3 * time.Second, true, []time.Duration{
			100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond,
		}},
	} {
		var b backoff
		var got []time.Duration
		for range c.want {
			var ready time.Time
			if c.served != never {
				ready = time.Now().Add(-c.served)
			}
			b.after(ready, c.killed)
			got = append(got, b.next)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: pauses %v, want %v", name, got, c.want)
		}
	}
}

func TestSaysDiskFull_InTheWordsOfEachServer(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"30881:M 30 Nov 2026 16:31:42.427 # Error writing to the AOF file: No space left on device":                               true,
		`2026-11-30 16:31:42 UTC [1] PANIC:  could not write to file "pg_wal/xlogtemp.9": No space left on device`:                true,
		`FATAL:  could not write lock file "postmaster.pid": Disk quota exceeded`:                                                 true,
		"30881:M 30 Nov 2026 16:31:42.427 # Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...": false,
		"": false,
	} {
		if got := saysDiskFull([]string{"Ready to accept connections", line, "bye"}); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}

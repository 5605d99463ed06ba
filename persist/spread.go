package persist

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// Whoever starts first would write all partitions, and the others none: the writers of several processes spread. Each shows that
// it is there by an advisory lock of its own, which ends with its connection; who writes more than its share gives some up, and
// leaves them to the others for a while.

const (
	spreadEvery = time.Second     // between looks how many writers there are
	spreadLeave = 3 * time.Second // between tries to lead one partition more than the own share: somebody must in the end
)

// spread tells the writer its share of the partitions until ctx ends.
func (w *Writer) spread(ctx context.Context) {
	if len(w.alarms) == 1 {
		return
	}
	for ctx.Err() == nil {
		if w.mayLead() {
			if err := w.beCounted(ctx); err != nil && ctx.Err() == nil {
				w.books.log.Warn("writers not spread", "error", err)
			}
		}
		w.share.Store(int64(len(w.alarms))) // who is not counted knows nothing of the others
		pause(ctx, spreadEvery)
	}
}

// mayLead reports whether this process has a Redis to write from: one that was left behind takes no part.
func (w *Writer) mayLead() bool {
	for p := range w.alarms {
		if !w.books.engine.LeftBehind(p) {
			return true
		}
	}
	return false
}

// beCounted shows that this writer is there and counts all, until something fails or it has nothing to write from.
func (w *Writer) beCounted(ctx context.Context) error {
	conn, err := w.books.acquire(ctx)
	if err != nil {
		return unavailable("connecting", err)
	}
	defer conn.Release()
	name := int(rand.Int32()) //nolint:gosec // against chance, not against anybody
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1, $2)", lockPresent, name); err != nil {
		return unavailable("being counted", err)
	}
	defer unlock(conn, lockPresent, name)
	if _, err := conn.Exec(ctx, holdLead); err != nil {
		return unavailable("being counted", err)
	}
	defer resetSession(conn)
	for ctx.Err() == nil && w.mayLead() {
		var writers int64
		err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND objsubid = 2
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, lockPresent).Scan(&writers)
		if err != nil {
			return unavailable("counting writers", err)
		}
		all := int64(len(w.alarms))
		w.share.Store((all + writers - 1) / max(writers, 1))
		pause(ctx, spreadEvery)
	}
	return nil
}

// wait pauses before the next try to lead a partition: for longer where this process has its share.
func (w *Writer) wait(ctx context.Context) {
	for waited := time.Duration(0); waited == 0 || (waited < spreadLeave && w.led.Load() >= w.share.Load()); waited += leadEvery {
		if pause(ctx, leadEvery); ctx.Err() != nil {
			return
		}
	}
}

// surplus gives up one lead where this process has more than its share; true: the caller's.
func (w *Writer) surplus() bool {
	for led := w.led.Load(); led > w.share.Load(); led = w.led.Load() {
		if w.led.CompareAndSwap(led, led-1) {
			return true
		}
	}
	return false
}

// errSurplus says that another process is to have the partition.
var errSurplus = errors.New("this process has more than its share of the partitions")

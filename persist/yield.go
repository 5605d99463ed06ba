package persist

import (
	"context"
	"time"
)

const (
	yieldTimes   = 6                      // pauses are this much longer than the work before them
	yieldMax     = 2 * time.Second        // of a pause
	yieldBacklog = 0.125                  // share of the backlog's cap from which on the writer no longer yields
	yieldStep    = 50 * time.Millisecond  // between looks whether the rush is over
	yieldLook    = 500 * time.Millisecond // for Redis to say how much waits
)

// yield pauses after a transaction that took a while, if there is a rush. On one machine the writer and Postgres take a third of
// what an order costs, from the very sale they write down; the stream can wait, and is written with the same work once
// the rush is over. Readers of the tables then see them as far behind as the stream is long, so the writer stops
// yielding well before the backlog refuses anything. A transfer of stock waits until its debit is written, and buyers for the
// transfer: it ends the pause at once.
func (w *Writer) yield(ctx context.Context, p int, worked time.Duration) {
	hurry := &w.books.progress.hurried[p]
	if hurry.waiting.Load() > 0 || !w.books.engine.Rush(p) {
		return
	}
	look, cancel := context.WithTimeout(ctx, yieldLook)
	v, err := w.books.engine.Look(look, p)
	cancel()
	if err != nil || w.books.engine.Backlog(&v) > yieldBacklog {
		return
	}
	for end := time.Now().Add(min(yieldTimes*worked, yieldMax)); ctx.Err() == nil && time.Now().Before(end) && w.books.engine.Rush(p); {
		if hurry.rest(ctx, yieldStep) {
			return
		}
	}
}

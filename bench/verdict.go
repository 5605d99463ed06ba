package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"stampede/bench/load"
	"stampede/bench/result"
)

// When a load is marked, beside what marks any run: see report.go.
const (
	lateMax    = 5 * time.Millisecond // from when a request was due until it was sent, although a connection was free
	crowdedMax = 0.01                 // of the requests found every connection busy
)

// marks says why to doubt a load's numbers: where the generator itself was the bottleneck, and what else took part.
func marks(r *result.Result, d load.Dispatch, cores map[string]float64, private bool) (found []string) {
	note := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	if used := cores[programGenerator]; used > generatorCoresMax {
		note("the generator used %.2f cores (more than %.2g), which servers on the same machine did not have: lower --rate, or run it on a "+
			"machine of its own with --addr", used, generatorCoresMax)
	}
	if d.Late > lateMax {
		note("1 of 100 requests was sent %v or more after it was due, although a connection was free: the generator had too little CPU, "+
			"and its latencies are in part its own; lower --rate, or run it on a machine of its own with --addr", d.Late.Round(10*time.Microsecond))
	}
	if r.Loop == "open" && float64(d.Crowded) > crowdedMax*float64(r.Total.Due) {
		note("%d of %d requests found all %d connections busy and waited for one, up to %.3g s, which their latencies hold: either the rate is "+
			"more than the target takes, or --connections is too low", d.Crowded, r.Total.Due, r.Connections, d.Wait.Seconds())
	}
	if r.Total.NotSent > 0 {
		note("%d requests were not sent, because no connection was free within 10 s after they were due: their buyers are not in the latencies",
			r.Total.NotSent)
	}
	if used := cores[programOthers]; private && used > othersCoresMax {
		note("other programs and the kernel used %.2f cores", used)
	}
	for _, fact := range r.Machine {
		if fact.Value == inMemory {
			note("the data lie in memory, where a sync costs nothing: set TMPDIR to a directory on a disk")
		}
	}
	return found
}

// checkBooks waits until everything is in PostgreSQL, holds what was sold against what was answered, and has the books
// audited.
func (l *loading) checkBooks(ctx context.Context, r *result.Result) error {
	if l.metered {
		l.say("Waiting for the writer")
		if _, err := l.target.awaitWritten(ctx); err != nil {
			if ctx.Err() != nil {
				return err
			}
			r.Books.Unaudited = err.Error()
		}
	}
	for _, sold := range l.hot {
		if err := l.checkStock(ctx, sold, r); err != nil {
			return err
		}
	}
	if l.target.data != "" && r.Books.Unaudited == "" {
		l.say("Auditing the books")
		violations, err := l.target.audit(ctx)
		if err != nil {
			r.Books.Unaudited = err.Error()
		}
		r.Books.Violations, r.Books.Closed = violations, err == nil && violations == ""
	}
	switch {
	case r.Books.Violations != "":
		r.Failures = append(r.Failures, fmt.Sprintf("the books do not close: %.2000s", r.Books.Violations))
	case r.Books.Unaudited != "":
		r.Failures = append(r.Failures, "the books were not audited: "+r.Books.Unaudited)
	case l.target.data == "":
		r.Books.Unaudited = "they lie elsewhere: run `stampede audit` with the STAMPEDE_REDIS_URL and STAMPEDE_POSTGRES_URL of the deployment; " +
			"of a `stampede up` on this machine, name the directory with --data-dir"
	}
	return ctx.Err()
}

// checkStock holds the orders of a flash sale that were accepted against the units that have left its product.
func (l *loading) checkStock(ctx context.Context, sold hot, r *result.Result) error {
	left, err := l.target.api.stock(ctx, sold.id)
	if err != nil {
		return errors.Join(fmt.Errorf("what is left of product %s: %w", sold.id, err), ctx.Err())
	}
	gone := l.Stock - left
	switch {
	case sold.accepted > l.Stock:
		r.Failures = append(r.Failures, fmt.Sprintf("oversold: %d orders of one unit were accepted, of a product of %d", sold.accepted, l.Stock))
	case gone != sold.accepted && !sold.open, gone < sold.accepted:
		r.Failures = append(r.Failures, fmt.Sprintf("%d orders of one unit of product %s were accepted, but %d units are gone", sold.accepted, sold.id, gone))
	}
	return nil
}

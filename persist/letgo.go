package persist

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"stampede/engine"
)

const (
	letGoMax   = 1000                  // orders a call
	letGoRead  = 64                    // journal entries a read
	letGoTurn  = 50 * time.Millisecond // how long the writer may spend on it before it looks for new events again
	letGoSlack = 4 * writerEventsMax   // events the queue may hold beyond those that Redis keeps
)

// keepEvents is how many events, behind the checkpoint of their partition, Redis keeps: in the stream, and as records
// of orders that have ended. letGoMin is how many orders must be due for a call to be worth it. Tests set both.
var (
	keepEvents int64 = 10_000
	letGoMin         = 512
)

// retention is what these were when the books were opened.
type retention struct {
	events int64
	orders int
	lapsed time.Duration
}

// letGo drops orders from Redis that have ended, by one rule: an ended order goes when keepEvents further events of its
// partition are in Postgres. It belongs to the goroutine that leads the partition.
//
// What the writer writes is queued until it is due. Where the queue lacks events, after a change of the lead or when
// Redis would not listen, it is filled from the journal, piece by piece: then the queue never holds more than what is
// not due yet and one piece.
type letGo struct {
	writer    *Writer
	partition int
	known     bool        // upto was read from Redis, or follows from what was
	upto      engine.Mark // all that ended behind Redis' mark and up to here is in the queue, or let go
	queue     []due
}

// due is an order that ended, and the event that ended it.
type due struct {
	engine.Mark
	engine.Ended
}

// wrote queues what a transaction of the writer brought to its end.
func (l *letGo) wrote(from, to checkpoint, ended []endedOrder) {
	if !l.known || l.upto != from.mark() || int64(len(l.queue)) > l.writer.books.keep.events+letGoSlack {
		return // the journal has it
	}
	l.add(to.mark(), ended)
}

// add queues the ended orders of the run of events that follows upto and ends at to.
func (l *letGo) add(to engine.Mark, ended []endedOrder) {
	for _, o := range ended {
		l.queue = append(l.queue, due{Mark: engine.Mark{Position: o.at, Events: l.upto.Events + o.nth}, Ended: o.Ended})
	}
	l.upto = to
}

// turn lets go what is due, for a bounded time. Redis refuses in another epoch than the one of the checkpoint, which
// must then be read again: errMoved. Any other failure costs memory for a while.
func (l *letGo) turn(ctx context.Context, conn *pgxpool.Conn, at checkpoint) error {
	for start := time.Now(); time.Since(start) < letGoTurn; {
		more, err := l.step(ctx, conn, at)
		if errors.Is(err, errMoved) {
			return err
		}
		if err != nil && ctx.Err() == nil {
			l.writer.books.log.Warn("orders stay in Redis for now", "partition", l.partition, "error", err)
		}
		if err != nil || !more {
			break
		}
	}
	return nil
}

// step does one piece of the work, and reports whether there is more.
func (l *letGo) step(ctx context.Context, conn *pgxpool.Conn, at checkpoint) (bool, error) {
	if !l.known {
		v, err := l.writer.books.engine.Look(ctx, l.partition)
		if err != nil {
			return false, err
		}
		l.known, l.upto, l.queue = true, v.LetGo, nil
	}
	n := l.countDue(at.events - l.writer.books.keep.events)
	if n < letGoMax && l.upto.Events < at.events {
		return l.refill(ctx, conn, at)
	}
	if n < l.writer.books.keep.orders {
		return false, nil
	}
	orders := make([]engine.Ended, n)
	for i := range orders {
		orders[i] = l.queue[i].Ended
	}
	// Exactly the last event of those that go: a later mark would turn away what may still come back from the books.
	done, err := l.writer.books.engine.LetGo(ctx, l.partition, at.fence, l.queue[n-1].Mark, orders)
	if err == nil && !done {
		err = errMoved
	}
	if err != nil {
		l.known = false
		return false, err
	}
	l.queue = l.queue[n:]
	l.writer.metrics.letGo.Add(float64(n))
	return true, nil
}

// countDue counts the queue's orders that are due, at most as many as a call takes.
func (l *letGo) countDue(until int64) int {
	n := 0
	for n < len(l.queue) && n < letGoMax && l.queue[n].Events <= until {
		n++
	}
	return n
}

// refill queues the next piece of the journal, and reports whether there was one.
func (l *letGo) refill(ctx context.Context, conn *pgxpool.Conn, at checkpoint) (bool, error) {
	entries, err := journal(ctx, conn, l.partition, l.upto.Position, letGoRead)
	if err != nil {
		return false, err
	}
	for i := range entries {
		if entries[i].Last.Compare(at.Position) > 0 {
			entries = entries[:i]
			break
		}
	}
	if len(entries) == 0 {
		return false, nil // a checkpoint that was set back
	}
	without, err := inQuarantine(ctx, conn, l.partition)
	if err != nil {
		return false, err
	}
	r, err := newRun(entries, without)
	if err != nil {
		return false, err
	}
	// Redis' mark may lie inside of the first entry: what stands before it went with the mark.
	passed := int64(0)
	if first := &entries[0]; first.Last.Epoch == l.upto.Epoch {
		passed = max(0, l.upto.Seq-first.First+1)
	}
	ended := r.rows.ended
	for len(ended) > 0 && ended[0].nth <= passed {
		ended = ended[1:]
	}
	for i := range ended {
		ended[i].nth -= passed
	}
	l.add(engine.Mark{Position: entries[len(entries)-1].Last, Events: l.upto.Events + r.size() - passed}, ended)
	return true, nil
}

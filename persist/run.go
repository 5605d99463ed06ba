package persist

import (
	"errors"

	"stampede/engine"
)

// run is a piece of the journal with what is derived of it.
type run struct {
	entries []engine.Entry
	events  []event // that something was derived of, in order
	rows    *rows
	poison  []poison // events that nothing can be derived of
}

// event is one of a run.
type event struct {
	*engine.Event
	at  engine.Position
	nth int64 // in the run, from 1
}

// poison is an event that nothing can be derived of, and why.
type poison struct {
	at     engine.Position
	reason string
}

// positions are events that are left out: those in quarantine.
type positions map[engine.Position]bool

// newRun reads entries and derives their rows. The only error is engine.ErrNewer.
func newRun(entries []engine.Entry, without positions) (*run, error) {
	r := &run{entries: entries}
	nth := int64(0)
	for i := range entries {
		e := &entries[i]
		events, err := e.Events()
		if errors.Is(err, engine.ErrNewer) {
			return nil, err
		}
		for seq := e.First; seq <= e.Last.Seq; seq++ {
			nth++
			at, j := engine.Position{Epoch: e.Last.Epoch, Seq: seq}, seq-e.First
			switch {
			case without[at]:
			case j < int64(len(events)):
				r.events = append(r.events, event{&events[j], at, nth})
			default:
				r.poison = append(r.poison, poison{at, err.Error()})
			}
		}
	}
	r.derive()
	return r, nil
}

// derive derives the rows of all events anew. Those of which nothing can be derived leave the run as poison.
func (r *run) derive() {
	r.rows = newRows()
	good := r.events[:0]
	for _, e := range r.events {
		r.rows.nth = e.nth
		if err := r.rows.add(e.at, e.Event); err != nil {
			r.poison = append(r.poison, poison{e.at, err.Error()})
			continue
		}
		good = append(good, e)
	}
	r.events = good
}

// size is how many events the entries hold, whatever is derived of them.
func (r *run) size() (n int64) {
	for i := range r.entries {
		n += r.entries[i].Last.Seq - r.entries[i].First + 1
	}
	return n
}

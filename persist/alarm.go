package persist

import (
	"errors"
	"sync/atomic"

	"stampede/engine"
)

// ErrAlarm wraps what a writer must not go past: a gap, a clash, an event it cannot read. It stops the partition's
// writing, not its selling, until someone has looked.
var ErrAlarm = errors.New("writer stopped")

// Alarm says why a partition's writing stopped; nil where none did.
func (w *Writer) Alarm() error { return said(w.alarms) }

// Interrupted says why a partition's events could not be written just now, though nothing is wrong with them; nil where
// they could. It is tried again all the time.
func (w *Writer) Interrupted() error { return said(w.broken) }

func said(texts []atomic.Pointer[string]) error {
	wrong := make([]string, len(texts))
	for p := range texts {
		if text := texts[p].Load(); text != nil {
			wrong[p] = *text
		}
	}
	return engine.ByPartition(wrong)
}

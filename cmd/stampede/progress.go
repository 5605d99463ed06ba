package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"stampede/persist"
)

const (
	progressRedraw = 200 * time.Millisecond // of the line on a terminal
	progressLine   = 5 * time.Second        // between lines elsewhere
)

// phases are those of a restore as its progress names them.
var phases = []struct {
	phase persist.RestorePhase
	name  string
}{
	{persist.RestoredProducts, "products"},
	{persist.RestoredUsers, "users"},
	{persist.RestoredUnpaid, "unpaid orders"},
	{persist.RestoredCarts, "carts"},
	{persist.RestoredMinutes, "minutes of sales"},
	{persist.RestoredEvents, "recent events"},
}

// showProgress tells on standard error how far a restore is, until stop is called: in a line that rewrites itself on a
// terminal, in a line every few seconds elsewhere.
func showProgress(watch *persist.RestoreProgress) (stop func()) {
	return tellProgress(os.Stderr, isTerminal(os.Stderr), watch)
}

func tellProgress(to io.Writer, terminal bool, watch *persist.RestoreProgress) (stop func()) {
	last := int64(0)
	return tellLines(to, terminal, func(every time.Duration) string {
		keys := watch.Keys()
		text := fmt.Sprintf("Restoring: %s; %d keys a second", progressOf(watch), (keys-last)*int64(time.Second)/int64(every))
		last = keys
		return text
	})
}

// tellLines writes a line of text, made anew each time, every so often until stop is called.
func tellLines(to io.Writer, terminal bool, text func(every time.Duration) string) (stop func()) {
	every, begin, end := progressLine, "", "\n"
	if terminal {
		every, begin, end = progressRedraw, "\r\x1b[K", ""
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				if terminal {
					_, _ = io.WriteString(to, begin) // what comes next begins a line of its own
				}
				return
			case <-tick.C:
			}
			// Work whose progress nobody reads goes on all the same.
			_, _ = io.WriteString(to, begin+text(every)+end)
		}
	}()
	return func() {
		close(quit)
		<-done
	}
}

// progressOf names the phases that have begun.
func progressOf(watch *persist.RestoreProgress) string {
	var parts []string
	for _, p := range phases {
		switch read, all := watch.Phase(p.phase); {
		case all > 0:
			parts = append(parts, fmt.Sprintf("%s %d%%", p.name, min(100, 100*read/all)))
		case read > 0:
			parts = append(parts, fmt.Sprintf("%d %s", read, p.name))
		}
	}
	if len(parts) == 0 {
		return "reading the books"
	}
	return strings.Join(parts, ", ")
}

// counted is what a restore brought into Redis.
func counted(watch *persist.RestoreProgress) string {
	parts := make([]string, 0, len(phases)+1)
	for _, p := range phases {
		read, _ := watch.Phase(p.phase)
		parts = append(parts, fmt.Sprintf("%d %s", read, p.name))
	}
	return strings.Join(append(parts, fmt.Sprintf("%d keys", watch.Keys())), ", ")
}

package main

import (
	"io"
	"log/slog"
	"os"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9/logging"
	"golang.org/x/term"
)

// console is what a command has of the process it runs in.
type console struct {
	out        io.Writer
	terminal   bool // out is one
	log        *slog.Logger
	interrupts *interrupts
	typed      map[string]bool // flags of the command line, not those of the environment
}

func newConsole(parsed *kong.Context) *console {
	c := &console{
		out:        os.Stdout,
		terminal:   isTerminal(os.Stdout),
		log:        newLog(os.Stderr),
		interrupts: catchInterrupts(),
		typed:      map[string]bool{},
	}
	for _, step := range parsed.Path {
		if step.Flag != nil {
			c.typed[step.Flag.Name] = true
		}
	}
	// go-redis writes a line of its own for each failed dial. The engine says once that a door is shut, and why.
	logging.Disable()
	return c
}

// newLog writes for people where people read, and for machines elsewhere.
func newLog(to *os.File) *slog.Logger {
	options := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // JSON would say it in bare nanoseconds
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}
	if isTerminal(to) {
		return slog.New(slog.NewTextHandler(to, options))
	}
	return slog.New(slog.NewJSONHandler(to, options))
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

// unlessInterrupted forgets an error once the operator has asked to stop: it is how the work was cut short.
func (c *console) unlessInterrupted(err error) error {
	if err == nil || c.interrupts.stop.Err() == nil {
		return err
	}
	c.log.Info("interrupted", "error", err)
	return nil
}

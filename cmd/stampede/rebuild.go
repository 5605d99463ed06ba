package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"text/tabwriter"
	"time"

	"stampede/cmd/stack"
	"stampede/persist"
)

type rebuildCommand struct {
	PostgresURL string `placeholder:"URL" help:"PostgreSQL, as postgres://user:password@host:port/database; its role must own the books."`
	DataDir     string `default:".stampede" help:"Directory of a stampede up, to find its PostgreSQL without the URL."`
}

// Run fills the derived tables anew. Beside a running `up` it joins its PostgreSQL; where none runs it starts that server
// for itself.
func (r *rebuildCommand) Run(c *console) (err error) {
	url, stop, err := r.server(c)
	if err != nil {
		return interruptedOr(c, err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	return interruptedOr(c, r.rebuild(c, url))
}

func interruptedOr(c *console, err error) error {
	if err != nil && c.interrupts.stop.Err() != nil {
		return errors.New("the rebuild was interrupted: nothing was changed")
	}
	return err
}

// server returns where PostgreSQL is, and what stops the one that this process started. A directory that was typed wins
// over a URL of the environment.
func (r *rebuildCommand) server(c *console) (url string, stop func() error, err error) {
	nothing := func() error { return nil }
	if r.PostgresURL != "" && (c.typed["postgres-url"] || !c.typed["data-dir"]) {
		return r.PostgresURL, nothing, nil
	}
	env, err := readStackEnv(r.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil, fmt.Errorf("there is no stack in %s: name the --data-dir of a stampede up, or give --postgres-url", r.DataDir)
	case err != nil:
		return "", nil, fmt.Errorf("cannot read %s (%w): run as the user who runs stampede up", stackEnvPath(r.DataDir), err)
	}
	server, err := stack.Start(c.interrupts.stop, stack.Options{DataDir: r.DataDir, NoRedis: true, Log: c.log})
	var held *stack.HeldError
	if errors.As(err, &held) { // by an `up`
		return env.postgresURL, nothing, nil
	}
	if err != nil {
		return "", nil, err
	}
	return server.PostgresURL(), func() error { return stopServers(c, server) }, nil
}

func (r *rebuildCommand) rebuild(c *console, url string) error {
	ctx, start := c.interrupts.stop, time.Now()
	books, err := persist.OpenExistingPatient(ctx, url, c.log)
	if err != nil {
		return err
	}
	defer books.Close()
	var far howFar
	stop := tellLines(os.Stderr, isTerminal(os.Stderr), far.line)
	done, err := books.RebuildReports(ctx, far.set)
	stop()
	if err != nil {
		return err
	}
	return tellRebuilt(c, done, time.Since(start))
}

// howFar is how far a rebuild is.
type howFar struct {
	mu          sync.Mutex
	stage       persist.RebuildStage
	done, total int64
}

func (f *howFar) set(stage persist.RebuildStage, done, total int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stage, f.done, f.total = stage, done, total
}

func (f *howFar) line(time.Duration) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total == 0 {
		return "Rebuilding: reading the journal"
	}
	return fmt.Sprintf("Rebuilding: %d of %d %s (%d%%)", f.done, f.total, f.stage, 100*f.done/f.total)
}

// tellRebuilt prints what was done.
func tellRebuilt(c *console, done persist.Rebuilt, took time.Duration) error {
	text := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(text, "table\trows\tmissing\tdifferent\tsurplus\t")
	for _, t := range done.Tables {
		fmt.Fprintf(text, "%s\t%d\t%d\t%d\t%d\t\n", t.Name, t.Rows, t.Missing, t.Different, t.Surplus)
	}
	if err := text.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.out, "The tables follow the journal: %d events in %d partition(s), %d of them in quarantine, in %s; writers waited %s.\n",
		done.Events, done.Partitions, done.Quarantined, took.Round(time.Millisecond), done.Held.Round(time.Millisecond))
	return err
}

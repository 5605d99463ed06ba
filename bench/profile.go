package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"stampede/bench/load"
)

// profileCmd is `bench profile`.
type profileCmd struct {
	Out      string        `default:"profiles" placeholder:"DIR" help:"Leave the profiles here."`
	For      time.Duration `default:"10s" help:"Record for so long, in whole seconds."`
	Stampede string        `placeholder:"PATH" help:"Profile this binary (default: bin/stampede, or a new build where there is none)."`
}

// Run records, prints the head of each profile, and fails when the shop did anything wrong.
func (c *profileCmd) Run(ctx context.Context, to console) error {
	if c.For < time.Second {
		return fmt.Errorf("--for %v: take 1s or more", c.For)
	}
	p := profiling{
		connections: 256, users: 1000, warmUp: 2 * time.Second, seconds: int(c.For / time.Second),
		folder: c.Out, binary: c.Stampede, console: to,
	}
	if err := p.run(ctx); err != nil {
		return err
	}
	for _, r := range recordings {
		if err := p.head(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// profiling records what a shop does while a crowd buys one product: where its CPU time goes, and what it allocates.
type profiling struct {
	connections, users int

	warmUp  time.Duration // before the recording: connections open, buffers grow
	seconds int           // of recording
	folder  string        // of the profiles
	binary  string        // empty: find or build it
	console
}

// recording is a profile that /debug/pprof makes of some seconds.
type recording struct{ path, file, value string }

var recordings = []recording{
	{"profile", "cpu.pprof", "cpu"},
	{"allocs", "allocs.pprof", "alloc_space"},
}

const (
	profileMargin = 3 * time.Second  // the load goes on for so long behind a recording
	profileRest   = 30 * time.Second // for an answer, once it is recorded
	headLines     = "25"
)

// run leaves the profiles in its folder. Whatever else it started or made is gone when it returns.
func (p *profiling) run(ctx context.Context) (err error) {
	if err := os.MkdirAll(p.folder, 0o755); err != nil {
		return err
	}
	w, err := newWorkspace()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	binary, err := w.binary(ctx, p.binary)
	if err != nil {
		return err
	}
	admin, err := freeAddr()
	if err != nil {
		return err
	}
	p.say("Starting %s with Redis and PostgreSQL", binary)
	s, err := startShop(ctx, w, binary, "--admin-addr", admin)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	p.say("Filling it: %d users, one product", p.users)
	g, err := s.fill(ctx, p.users, 1)
	if err != nil {
		return err
	}
	return p.record(ctx, s, admin, g)
}

// record has a crowd buy, and meanwhile takes every profile of the same seconds.
func (p *profiling) record(ctx context.Context, s *shop, admin string, g load.Goods) error {
	crowd, err := load.Dial(ctx, s.addr, p.connections)
	if err != nil {
		return err
	}
	defer crowd.Close() //nolint:errcheck // nothing is in flight
	p.say("Recording %d s under orders of %d connections", p.seconds, p.connections)
	sale := load.NewOrders(g, "profile", 1, 0)
	counts, recorded := load.NewRecorder(sale), make(chan error, 1)
	go func() { recorded <- p.fetchAll(ctx, admin) }()
	selling := p.warmUp + time.Duration(p.seconds)*time.Second + profileMargin
	took := crowd.ClosedLoop(ctx, selling, sale, counts)
	select {
	case err = <-recorded:
	default:
		err = errors.Join(fmt.Errorf("the load ended before the profiles: they took more than %v longer than asked for", profileMargin), <-recorded)
	}
	sold := counts.Tally()
	if wrong := sold.Wrong(); wrong != "" && err == nil {
		err = s.explain(errors.New(wrong))
	}
	if err != nil {
		return err
	}
	p.say("%.0f orders a second meanwhile", float64(sold.Accepted)/took.Seconds())
	return nil
}

func (p *profiling) fetchAll(ctx context.Context, admin string) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(p.warmUp):
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, r := range recordings {
		group.Go(func() error { return p.fetch(ctx, admin, r) })
	}
	return group.Wait()
}

// fetch writes a profile into its file, whole or not at all.
func (p *profiling) fetch(ctx context.Context, admin string, r recording) (err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.seconds)*time.Second+profileRest)
	defer cancel()
	url := fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", admin, r.path, p.seconds)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return fmt.Errorf("profile %s: %w", r.path, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("profile %s: %s %.300s", r.path, response.Status, body)
	}
	return os.WriteFile(filepath.Join(p.folder, r.file), body, 0o644)
}

// head prints where a profile lies and how it begins.
func (p *profiling) head(ctx context.Context, r recording) error {
	path := filepath.Join(p.folder, r.file)
	show := exec.CommandContext(ctx, "go", "tool", "pprof", "-top", "-sample_index="+r.value, "-nodecount="+headLines, path)
	var complaint bytes.Buffer
	show.Stderr = &complaint
	out, err := show.Output()
	if err != nil {
		return fmt.Errorf("read %s: %w\n%s", path, err, complaint.Bytes())
	}
	_, err = fmt.Fprintf(p.out, "%s\n%s\n", path, out)
	return err
}

package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"

	"stampede/bench/baseline"
)

// emptyCmd serves the baseline: the server of engine/rest, with its routes, decoding and encoding, and no shop
// behind it. What it does a second is the most that any shop behind this server could.
type emptyCmd struct {
	Addr string `required:"" help:"Listen here."`
}

// Run serves until ctx ends.
func (c *emptyCmd) Run(ctx context.Context) error { return baseline.Empty(ctx, c.Addr) }

// privateFlags are of baselines that run servers of their own.
type privateFlags struct {
	Addr       string `required:"" help:"Listen here."`
	DataDir    string `required:"" help:"Directory of the data of its servers."`
	AdminToken string `required:"" env:"BENCH_ADMIN_TOKEN" help:"Token of the routes that fill the shop."`
}

func (f *privateFlags) private(to console) baseline.Private {
	return baseline.Private{
		Addr: f.Addr, DataDir: f.DataDir, AdminToken: f.AdminToken,
		Log: slog.New(slog.NewTextHandler(to.progress, nil)),
	}
}

type evalshaCmd struct {
	privateFlags
	Calls int `default:"128" help:"Script calls under way at once, each on a connection of its own."`
}

// Run serves until ctx ends.
func (c *evalshaCmd) Run(ctx context.Context, to console) error {
	return baseline.Evalsha(ctx, c.private(to), c.Calls)
}

type postgresCmd struct {
	privateFlags
	Connections int `default:"64" help:"Connections to PostgreSQL."`
}

// Run serves until ctx ends.
func (c *postgresCmd) Run(ctx context.Context, to console) error {
	return baseline.Postgres(ctx, c.private(to), c.Connections)
}

// startEmpty starts the empty handler in a process of its own, as Stampede is.
func startEmpty(ctx context.Context, w workspace) (*shop, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	return startBaseline(ctx, w, programEmpty, &shop{addr: addr, api: newAPI(addr, "")}, "empty-server", "--addr", addr)
}

// startPrivate starts a baseline with servers of its own.
func startPrivate(ctx context.Context, w workspace, name, command string) (*shop, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &shop{addr: addr, data: w.data(name), api: newAPI(addr, rand.Text())}
	return startBaseline(ctx, w, name, s, command, "--addr", addr, "--data-dir", s.data)
}

// startBaseline starts this very binary again and returns when it is ready.
func startBaseline(ctx context.Context, w workspace, name string, s *shop, args ...string) (*shop, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	env := append(childEnv(), "BENCH_ADMIN_TOKEN="+s.api.token) // in the environment, where other users cannot read it
	if s.program, err = launch("the baseline "+readable(name), w.log(name), self, env, args...); err != nil {
		return nil, err
	}
	if err := s.await(ctx, readyMax, s.api.ready); err != nil {
		_ = s.stop() // the first error says more
		return nil, fmt.Errorf("start a baseline: %w", err)
	}
	return s, nil
}

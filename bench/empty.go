package main

import (
	"context"
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

// emptyServer is the baseline in a process of its own, as Stampede is.
type emptyServer struct {
	*program
	addr string
}

// startEmpty starts this very binary again.
func startEmpty(ctx context.Context, w workspace) (*emptyServer, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &emptyServer{addr: addr}
	s.program, err = launch("the empty handler", w.log("empty"), self, childEnv(), "empty-server", "--addr", addr)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, readyMax, newAPI(addr, "").ready); err != nil {
		_ = s.stop() // the first error says more
		return nil, err
	}
	return s, nil
}

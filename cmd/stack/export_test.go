package stack

import (
	"context"
	"errors"
	"syscall"
)

// WithSystem points the look-ups of Start elsewhere; empty keeps the default.
func WithSystem(o Options, path, postgresGlob, outside string) Options {
	o.system = system{path: path, postgresGlob: postgresGlob, outside: outside}
	return o
}

// OnFreePort is the retry of a first start.
var OnFreePort = onFreePort

// StartTriesMax bounds it.
const StartTriesMax = startTriesMax

// FormPart begins a new Redis Cluster and is killed on the way: after so many steps for so many of its nodes.
func FormPart(ctx context.Context, o Options, nodes, steps int) (err error) {
	o, err = o.validate()
	if err != nil {
		return err
	}
	dir, err := openDataDir(o.DataDir)
	if err != nil {
		return err
	}
	if err := dir.prepare(); err != nil {
		return err
	}
	s := &Stack{dir: dir, log: o.Log}
	if s.redises, err = newRedises(dir, o); err != nil {
		return err
	}
	if err := s.prepareRedises(ctx, o); err != nil {
		return err
	}
	defer func() {
		for _, r := range s.redises {
			err = errors.Join(err, r.child.end(ctx, syscall.SIGKILL, killWaitMax))
		}
	}()
	for _, r := range s.redises {
		if err := r.start(ctx, ctx); err != nil {
			return err
		}
	}
	f := newFormation(s.redises[:nodes])
	defer func() { err = errors.Join(err, f.close()) }()
	for _, do := range f.steps()[:steps] {
		if err := do(ctx); err != nil {
			return err
		}
	}
	return nil
}

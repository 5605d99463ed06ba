package stack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

const (
	stopWaitMax = 30 * time.Second // until a server that was asked to stop is killed
)

// ErrStopped is what a Child answers after its stack was stopped.
var ErrStopped = errors.New("stack: stopped")

// server is what a Child must know of the program it supervises.
type server struct {
	name      string
	dir       string // where its data lies
	input     string // path of its standard input; empty for none
	logPath   string
	command   func() *exec.Cmd                // a fresh one for every run, always on the same port
	prepare   func(ctx context.Context) error // before every run, when no process of ours is left
	probe     func(ctx context.Context) error
	ready     func(ctx context.Context) error // of every run, once the probe has passed; may be nil
	stop      syscall.Signal                  // ends it in order
	territory territory
	orphans   syscall.Signal // ends the helpers of a dead run
}

// Child is a supervised server: when it dies it is started again on the same
// port, after 100 ms at first and later when it keeps dying (see backoff).
type Child struct {
	server
	log  *slog.Logger
	life context.Context // of the stack: its end is the end of every wait in here

	turn chan struct{} // held by one of Halt, HaltNow, Resume, close at a time
	duty *supervisor   // nil while halted; only with the turn

	mu   sync.Mutex // guards proc
	proc *process   // the latest run; nil before the first
}

// supervisor is the goroutine that restarts.
type supervisor struct {
	quit context.CancelFunc
	done chan struct{}
}

func newChild(life context.Context, log *slog.Logger, s server) *Child {
	return &Child{server: s, log: log.With("server", s.name), life: life, turn: make(chan struct{}, 1)}
}

// Pid is the process id of the server, 0 while it is down.
func (c *Child) Pid() int {
	if p := c.current(); p != nil && p.alive() {
		return p.cmd.Process.Pid
	}
	return 0
}

// Signal sends sig to the server. One that dies of it is restarted.
func (c *Child) Signal(sig os.Signal) error {
	p := c.current()
	if p == nil {
		return fmt.Errorf("signal %s: %w", c.name, os.ErrProcessDone)
	}
	if err := p.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", c.name, err)
	}
	return nil
}

// Halt stops the server in order, and keeps it down until Resume. It is killed
// when it has not ended within 30 s or before ctx ends; the error says so.
func (c *Child) Halt(ctx context.Context) error {
	return c.halt(ctx, c.stop, stopWaitMax)
}

// HaltNow kills the server (SIGKILL), and keeps it down until Resume.
func (c *Child) HaltNow(ctx context.Context) error {
	return c.halt(ctx, syscall.SIGKILL, killWaitMax)
}

func (c *Child) halt(ctx context.Context, sig syscall.Signal, wait time.Duration) error {
	if err := c.takeTurn(ctx); err != nil {
		return err
	}
	defer c.yieldTurn()
	return c.end(ctx, sig, wait)
}

// Resume starts a halted server again on the same port, and returns when it takes
// connections. When it fails the server stays down.
func (c *Child) Resume(ctx context.Context) error {
	if err := c.takeTurn(ctx); err != nil {
		return err
	}
	defer c.yieldTurn()
	return c.begin(ctx)
}

// Ready returns when the server answers, after however many restarts; at once
// when it does already.
func (c *Child) Ready(ctx context.Context) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	return c.await(ctx, nil, c.probe)
}

// close is the last Halt.
func (c *Child) close(ctx context.Context) error {
	// Not takeTurn: a close that gives up would leave the server running. The
	// holder is done soon, for life has ended.
	c.turn <- struct{}{}
	defer c.yieldTurn()
	return c.end(ctx, c.stop, stopWaitMax)
}

func (c *Child) takeTurn(ctx context.Context) error {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for another change of %s: %w", c.name, context.Cause(ctx))
	}
	if c.life.Err() != nil {
		c.yieldTurn()
		return ErrStopped
	}
	return nil
}

func (c *Child) yieldTurn() { <-c.turn }

// within limits ctx to the life of the stack.
func (c *Child) within(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	release := context.AfterFunc(c.life, func() { cancel(ErrStopped) })
	return ctx, func() {
		release()
		cancel(nil)
	}
}

// begin starts the server unless it is on, waits until it is ready, and puts it
// under supervision. The turn is held.
func (c *Child) begin(ctx context.Context) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	if c.duty != nil {
		return c.await(ctx, nil, c.probe)
	}
	p, err := c.spawn(ctx)
	if err != nil {
		return err
	}
	if err := c.awaitRun(ctx, p); err != nil {
		// Its end may be the reason, so the stop cannot hang on ctx.
		p.stop(context.WithoutCancel(ctx), c.stop, stopWaitMax)
		return errors.Join(err, c.clearOrphans())
	}
	running, quit := context.WithCancel(context.Background())
	c.duty = &supervisor{quit: quit, done: make(chan struct{})}
	go c.supervise(running, c.duty.done, p)
	return nil
}

// end takes the server off supervision, and down. The turn is held.
func (c *Child) end(ctx context.Context, sig syscall.Signal, wait time.Duration) error {
	if c.duty == nil {
		return nil
	}
	c.duty.quit()
	<-c.duty.done
	c.duty = nil
	p := c.current()
	killed := p.stop(ctx, sig, wait)
	c.log.Info("server is down", "status", p.status())
	err := c.clearOrphans()
	if killed && sig != syscall.SIGKILL {
		err = errors.Join(fmt.Errorf("%s did not stop in time and was killed", c.name), err)
	}
	return err
}

// clearOrphans ends what a run leaves behind that was killed.
func (c *Child) clearOrphans() error {
	_, err := c.territory.clear(c.orphans, orphanWaitMax)
	return err
}

// spawn starts a run. What outlived a killed one goes first: PostgreSQL refuses to
// start beside backends of another postmaster.
func (c *Child) spawn(ctx context.Context) (*process, error) {
	if err := errors.Join(c.clearOrphans(), c.prepare(ctx)); err != nil {
		return nil, err
	}
	p, err := startProcess(c.command(), c.input, c.logPath)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.proc = p
	c.mu.Unlock()
	return p, nil
}

func (c *Child) current() *process {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.proc
}

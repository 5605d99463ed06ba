package stack

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	readyWaitMax   = 15 * time.Minute // loading an AOF of many gigabytes is legitimate
	readyPollFirst = 5 * time.Millisecond
	readyPollMax   = 100 * time.Millisecond
	readyTellTime  = 10 * time.Second // between log lines while waiting
	probeWaitMax   = 2 * time.Second
)

// await polls until ask succeeds, which asks the server something. With a process it
// also ends when that exits, and then returns the end of its log.
func (c *Child) await(ctx context.Context, p *process, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWaitMax, fmt.Errorf("not ready after %s", readyWaitMax))
	defer cancel()
	var exited chan struct{} // nil never fires
	if p != nil {
		exited = p.exited
	}
	tell := time.NewTicker(readyTellTime)
	defer tell.Stop()
	for pause := readyPollFirst; ; pause = min(2*pause, readyPollMax) {
		err := askOnce(ctx, ask)
		if err == nil || errors.Is(err, ErrConfig) {
			return err
		}
		select {
		case <-exited:
			return c.exitError(p)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", c.name, context.Cause(ctx))
		case <-tell.C:
			c.log.Info("waiting for the server to be ready", "answer", err)
		case <-time.After(pause):
		}
	}
}

func askOnce(ctx context.Context, ask func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, probeWaitMax)
	defer cancel()
	return ask(ctx)
}

// awaitRun waits until a run takes connections, and notes it.
func (c *Child) awaitRun(ctx context.Context, p *process) error {
	if err := c.await(ctx, p, c.probe); err != nil {
		return err
	}
	p.ready = time.Now()
	c.log.Info("server is ready", "pid", p.cmd.Process.Pid, "after", p.ready.Sub(p.started).Round(time.Millisecond))
	if c.ready == nil {
		return nil
	}
	return c.await(ctx, p, c.ready)
}

// supervise starts the server again whenever it dies, until ctx ends. It never gives
// up: what stops a server (a full disk, say) can be put right while the stack is up.
func (c *Child) supervise(ctx context.Context, done chan<- struct{}, p *process) {
	defer close(done)
	var pause backoff
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.exited:
		}
		pause.after(p.ready, p.killed())
		fields := []any{
			"pid", p.cmd.Process.Pid, "status", p.status(), "pause", pause.next, "log", c.logPath, "last_line", lastOf(p.log.tail()),
		}
		if full := c.diskFull(p); full != "" {
			fields = append(fields, "advice", full)
		}
		c.log.Warn("server died, starting it again", fields...)
		if p = c.respawn(ctx, &pause); p == nil {
			return
		}
		// One that ends before it is ready has ended all the same.
		if err := c.awaitRun(ctx, p); err != nil && p.alive() && ctx.Err() == nil {
			c.log.Error("server was started again but is not as it should be", "error", err)
		}
	}
}

// respawn starts a run after the pause, and goes on trying; nil when ctx ends.
func (c *Child) respawn(ctx context.Context, pause *backoff) *process {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause.next):
		}
		p, err := c.spawn(ctx)
		if err == nil {
			return p
		}
		if ctx.Err() != nil {
			return nil
		}
		pause.grow(backoffMax)
		c.log.Error("server cannot be started, trying again", "error", err, "pause", pause.next)
	}
}

const (
	backoffFirst    = 100 * time.Millisecond
	backoffReadyMax = time.Second     // after a run that took connections, or was killed before
	backoffMax      = 5 * time.Second // after one that ended by itself and never did
	backoffShare    = 10              // after a run that served for so many pauses the first one is due
)

// backoff is the pause before a server is started again, and doubles with each death. A server that
// cannot start is tried ever more seldom. One that was ready, or was killed from outside, will most
// likely be ready again: its pause is short in any case, since nothing is sold meanwhile, and it
// begins with the first one again after a run that was long against it.
type backoff struct{ next time.Duration }

// after sets the pause that follows a run, which took connections from ready on; zero for never.
func (b *backoff) after(ready time.Time, killed bool) {
	switch {
	case ready.IsZero() && !killed:
		b.grow(backoffMax)
		return
	case !ready.IsZero() && time.Since(ready) >= backoffShare*b.next:
		b.next = 0
	}
	b.grow(backoffReadyMax)
}

func (b *backoff) grow(limit time.Duration) { b.next = min(max(2*b.next, backoffFirst), limit) }

func lastOf(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

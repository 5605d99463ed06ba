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

// await polls until the server answers. With a process it also ends when that
// exits, and then tells the end of its log.
func (c *Child) await(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWaitMax, fmt.Errorf("not ready after %s", readyWaitMax))
	defer cancel()
	var exited chan struct{} // nil never fires
	if p != nil {
		exited = p.exited
	}
	tell := time.NewTicker(readyTellTime)
	defer tell.Stop()
	for pause := readyPollFirst; ; pause = min(2*pause, readyPollMax) {
		err := c.probeOnce(ctx)
		if err == nil || errors.Is(err, ErrConfig) {
			return err
		}
		select {
		case <-exited:
			return &ExitError{Name: c.name, Status: p.status(), LogPath: c.logPath, Lines: p.log.tail()}
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", c.name, context.Cause(ctx))
		case <-tell.C:
			c.log.Info("waiting for the server to be ready", "answer", err)
		case <-time.After(pause):
		}
	}
}

func (c *Child) probeOnce(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, probeWaitMax)
	defer cancel()
	return c.probe(ctx)
}

// supervise starts the server again whenever it dies, until told to quit. It
// never gives up: what stops a server (a full disk, say) can be mended while the
// stack is up.
func (c *Child) supervise(duty *supervisor, p *process) {
	defer close(duty.done)
	pause := backoffFirst
	for {
		select {
		case <-duty.quit:
			return
		case <-p.exited:
		}
		if time.Since(p.started) >= backoffReset {
			pause = backoffFirst
		}
		c.log.Warn("server died, starting it again", "pid", p.cmd.Process.Pid, "status", p.status(),
			"pause", pause, "log", c.logPath, "last_line", lastOf(p.log.tail()))
		if p, pause = c.respawn(duty, pause); p == nil {
			return
		}
	}
}

// respawn starts a run after the pause, and goes on trying; nil when told to
// quit. It returns the pause before the next restart.
func (c *Child) respawn(duty *supervisor, pause time.Duration) (*process, time.Duration) {
	for {
		select {
		case <-duty.quit:
			return nil, 0
		case <-time.After(pause):
		}
		pause = min(2*pause, backoffMax)
		p, err := c.spawn()
		if err == nil {
			return p, pause
		}
		c.log.Error("server cannot be started, trying again", "error", err, "pause", pause)
	}
}

func lastOf(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}

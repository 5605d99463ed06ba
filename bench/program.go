package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const (
	stopMax      = time.Minute // for a program to stop in order, before it is killed
	tailBytesMax = 4 << 10     // of a log, told with an error
)

// program is a server that bench has started.
type program struct {
	name   string
	cmd    *exec.Cmd
	log    string        // the file with all its output
	exited chan struct{} // closed once it is reaped
}

// launch starts a program whose output goes to a log file.
func launch(name, log, binary string, env []string, args ...string) (*program, error) {
	file, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // the program holds its own
	cmd := exec.Command(binary, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, file, file
	cmd.SysProcAttr = programAttr()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &program{name: name, cmd: cmd, log: log, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // how it ended stands in cmd.ProcessState
	}()
	return p, nil
}

func (p *program) pid() int { return p.cmd.Process.Pid }

// await asks ready until it has no complaint. It gives up when the program ends, at its bound, or with ctx.
func (p *program) await(ctx context.Context, bound time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("not ready within %v", bound))
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	var last error
	for {
		if last = ready(ctx); last == nil {
			return nil
		}
		select {
		case <-poll.C:
		case <-p.exited:
			return p.explain(fmt.Errorf("it ended while it started (%s)", p.cmd.ProcessState))
		case <-ctx.Done():
			return p.explain(fmt.Errorf("%w (at last: %w)", context.Cause(ctx), last))
		}
	}
}

// stop asks the program to end as Ctrl-C would, and kills it when it does not. One that somebody else started, nil, is left
// alone.
func (p *program) stop() error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(os.Interrupt) // an error means that it has ended
	select {
	case <-p.exited:
	case <-time.After(stopMax):
		_ = p.cmd.Process.Kill()
		<-p.exited
		return p.explain(fmt.Errorf("it did not stop within %v and was killed", stopMax))
	}
	if !p.cmd.ProcessState.Success() {
		return p.explain(errors.New(p.cmd.ProcessState.String()))
	}
	return nil
}

// explain names the program in an error, and adds the end of its log: the log itself is removed with all else. An
// interruption is nothing that a log could explain, and a program that somebody else started, nil, has its log elsewhere.
func (p *program) explain(err error) error {
	if p == nil || err == nil {
		return err
	}
	err = fmt.Errorf("%s: %w", p.name, err)
	text, readErr := os.ReadFile(p.log)
	if readErr != nil || len(text) == 0 || errors.Is(err, context.Canceled) {
		return err
	}
	tail := string(text[max(0, len(text)-tailBytesMax):])
	return fmt.Errorf("%w; the end of its log:\n\t%s", err,
		strings.ReplaceAll(strings.TrimSpace(tail), "\n", "\n\t"))
}

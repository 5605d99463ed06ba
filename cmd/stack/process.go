package stack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// process is one run of a server, from its start until it has been reaped.
type process struct {
	cmd     *exec.Cmd
	log     logMark // where this run's output begins
	started time.Time
	ready   time.Time     // when it first took connections; written by the goroutine that waits for that
	exited  chan struct{} // closed once reaped; cmd.ProcessState is set by then
}

// startProcess runs cmd with its input from a file, unless that is empty, and its
// output appended to the log file.
func startProcess(cmd *exec.Cmd, inputPath, logPath string) (*process, error) {
	output, mark, err := openLog(logPath)
	if err != nil {
		return nil, err
	}
	defer func() { _ = output.Close() }() // the process has its own; nothing is written by this one
	cmd.Stdout, cmd.Stderr = output, output
	if inputPath != "" {
		input, err := os.Open(inputPath)
		if err != nil {
			return nil, unusable(inputPath, err)
		}
		defer func() { _ = input.Close() }()
		cmd.Stdin = input
	}
	started := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p := &process{cmd: cmd, log: mark, started: started, exited: make(chan struct{})}
	go func() {
		defer close(p.exited)
		_ = cmd.Wait() // how it ended stands in cmd.ProcessState
	}()
	return p, nil
}

func (p *process) alive() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// killed reports whether a signal ended an exited process.
func (p *process) killed() bool {
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled()
}

// status tells how an exited process ended.
func (p *process) status() string { return p.cmd.ProcessState.String() }

// stopAgainTime is when a process is asked to end once more: a Redis that has just
// become a replica turns it down until its first AOF is written.
const stopAgainTime = 500 * time.Millisecond

// stop asks the process to end, kills it when it has not within the bound or
// before ctx ends, and returns when it has been reaped.
func (p *process) stop(ctx context.Context, sig os.Signal, bound time.Duration) (killed bool) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	again := time.NewTicker(stopAgainTime)
	defer again.Stop()
	for ctx.Err() == nil {
		p.signal(sig)
		p.signal(syscall.SIGCONT) // a frozen process would never see the first one
		select {
		case <-p.exited:
			return false
		case <-again.C:
		case <-ctx.Done():
		}
	}
	p.signal(syscall.SIGKILL)
	<-p.exited
	return true
}

// signal ignores that the process has ended: the caller waits for just that.
func (p *process) signal(sig os.Signal) { _ = p.cmd.Process.Signal(sig) }

package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// echo is how long after the first signal another one means the same: timeout(1) and other wrappers send theirs to us
// and to our process group.
const echo = 500 * time.Millisecond

// interrupts turn the operator's signals into contexts.
type interrupts struct {
	stop  context.Context // ends with the first signal: stop in order
	hurry context.Context // ends with the second: stop now
}

// catchInterrupts never lets go again: no signal may end this process over the heads of its servers.
func catchInterrupts() *interrupts {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup asked for that
		signal.Notify(signals, syscall.SIGHUP)
	}
	// A reader of our output that has gone (`stampede up 2>&1 | tee log`, Ctrl-C) must cost the output, not the
	// process.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	stop, onFirst := context.WithCancel(context.Background())
	hurry, onSecond := context.WithCancel(context.Background())
	go func() {
		<-signals
		onFirst()
		for first := time.Now(); time.Since(first) < echo; {
			<-signals
		}
		onSecond()
	}()
	return &interrupts{stop: stop, hurry: hurry}
}

// bound returns the context of one step of an orderly stop: it lasts for the time given, and from the second signal on
// for the shorter one at most.
func (i *interrupts) bound(orderly, hurried time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), orderly)
	release := context.AfterFunc(i.hurry, func() {
		timer := time.NewTimer(hurried)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-ctx.Done():
		}
	})
	return ctx, func() {
		release()
		cancel()
	}
}

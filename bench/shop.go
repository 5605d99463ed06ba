package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"stampede/cmd/stack"
)

const (
	readyMax  = time.Minute            // for a shop to start on an empty data directory
	drainMax  = 2 * time.Minute        // for the writer to catch up
	auditMax  = 2 * time.Minute        // for the audit
	drainPoll = 50 * time.Millisecond  // how exactly the drain is timed; each look costs the shop 1 to 2 ms of CPU
	quietPoll = 100 * time.Millisecond // ten ticks of CPU time: less could not tell a busy shop from a quiet one
	quietMax  = 3 * time.Second        // then the run goes on, and is marked for what disturbs it
)

// shop is a server under load with all that is behind it: a `stampede up` of its own (API, writer, Redis and PostgreSQL on
// an empty data directory), or a baseline.
type shop struct {
	*program
	api    *api
	addr   string
	binary string // empty for a baseline
	data   string
}

// startShop starts one at the default durability, with further flags, and returns when it sells.
func startShop(ctx context.Context, w workspace, binary string, flags ...string) (*shop, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	s := &shop{addr: addr, binary: binary, data: w.data(programStampede)}
	token := rand.Text()
	s.program, err = launch("stampede up", w.log("stampede"), binary,
		// In the environment, where other users of the machine cannot read it.
		append(childEnv(), "STAMPEDE_ADMIN_TOKEN="+token),
		append([]string{"up", "--addr", addr, "--data-dir", s.data}, flags...)...)
	if err != nil {
		return nil, err
	}
	s.api = newAPI(addr, token)
	if err := s.await(ctx, readyMax, s.api.ready); err != nil {
		_ = s.stop() // the first error says more
		return nil, err
	}
	return s, nil
}

// freeAddr is a loopback address on which nobody listens.
func freeAddr() (string, error) {
	port, err := stack.FreePort()
	return fmt.Sprintf("127.0.0.1:%d", port), err
}

// childEnv is the environment without settings of Stampede: they would change what is measured, unseen.
func childEnv() []string {
	var env []string
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, "STAMPEDE_") {
			env = append(env, setting)
		}
	}
	return env
}

// settings reads stack.env: how other tools join the running servers.
func (s *shop) settings() (map[string]string, error) {
	text, err := os.ReadFile(filepath.Join(s.data, "stack.env"))
	if err != nil {
		return nil, err
	}
	settings := make(map[string]string)
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			settings[name] = strings.Trim(value, `'"`)
		}
	}
	return settings, nil
}

// awaitWritten returns when PostgreSQL holds every change that was answered before the call, and how many it lacked at
// first.
func (s *shop) awaitWritten(ctx context.Context) (lagged int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, drainMax)
	defer cancel()
	for first := true; ; {
		lag, err := s.api.lag(ctx)
		if err == nil && first {
			lagged, first = lag, false
		}
		if err == nil && lag == 0 {
			return lagged, nil
		}
		select {
		case <-ctx.Done():
			if err == nil {
				err = fmt.Errorf("its lag is %d", lag)
			}
			return lagged, s.explain(fmt.Errorf("wait for the writer: %w: %w", ctx.Err(), err))
		case <-time.After(drainPoll):
		}
	}
}

// awaitQuiet returns when the shop uses next to no CPU: a rewrite of the append-only file or a vacuum that an earlier
// round has set off would be taken from the next one. It waits no longer than the round will take.
func awaitQuiet(ctx context.Context, m meter, round time.Duration) error {
	for give := time.Now().Add(min(round, quietMax)); time.Now().Before(give); {
		before, err := m.read()
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quietPoll):
		}
		after, err := m.read()
		if err != nil {
			return err
		}
		if after.since(before).underLoad() <= tick {
			return nil
		}
	}
	return nil
}

// auditViolated is the exit code of an audit that could look and found something.
const auditViolated = 1

// audit runs `stampede audit` and returns what it says when the books do not close.
func (s *shop) audit(ctx context.Context) (violations string, err error) {
	ctx, cancel := context.WithTimeout(ctx, auditMax)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.binary, "audit", "--data-dir", s.data, "--json")
	cmd.Env = childEnv()
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "", fmt.Errorf("stampede audit did not finish: %w", ctx.Err())
	case errors.As(err, &exit) && exit.ExitCode() == auditViolated:
		return strings.TrimSpace(string(out)), nil
	}
	return "", fmt.Errorf("stampede audit: %w\n%s", err, complaint.Bytes())
}

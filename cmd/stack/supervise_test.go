package stack

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newTestChild is a Child over a shell script that is ready at once.
func newTestChild(t *testing.T, script string, log *slog.Logger) *Child {
	t.Helper()
	life, endLife := context.WithCancel(t.Context())
	t.Cleanup(endLife)
	dir := t.TempDir()
	child := newChild(life, log, server{
		name:    "server",
		logPath: filepath.Join(dir, "server.log"),
		command: func() *exec.Cmd {
			cmd := exec.Command("/bin/sh", "-c", script)
			cmd.Dir = dir
			return cmd
		},
		prepare:   func(context.Context) error { return nil },
		probe:     func(context.Context) error { return nil },
		stop:      syscall.SIGTERM,
		territory: territory{programs: []string{"sh"}, dirs: []string{dir}},
		orphans:   syscall.SIGKILL,
	})
	t.Cleanup(func() {
		if err := child.close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return child
}

func TestSupervise_ServerThatKeepsDyingIsStartedEverMoreSlowly(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	child := newTestChild(t, "date +%s.%N >> starts; echo alas; exit 3", slog.New(slog.NewTextHandler(&log, nil)))
	began := time.Now()
	if err := child.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	starts := func() int {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(child.logPath), "starts"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		return bytes.Count(text, []byte("\n"))
	}
	for starts() < 4 {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("only %d starts", starts())
		}
		time.Sleep(5 * time.Millisecond)
	}
	if took, want := time.Since(began), backoffFirst*(1+2+4); took < want {
		t.Errorf("three restarts within %s, want %s at least", took, want)
	}
	if err := child.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(log.String(), "starting it again"); lines < 3 || lines > 4 {
		t.Errorf("%d log lines of three or four restarts:\n%s", lines, &log)
	}
	for _, word := range []string{"exit status 3", "alas"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("the log does not say %q:\n%s", word, &log)
		}
	}
}

func TestHalt_ServerThatIgnoresItIsKilledAndTold(t *testing.T) {
	t.Parallel()
	child := newTestChild(t, "trap '' TERM; echo deaf; while :; do sleep 0.05; done", slog.New(slog.DiscardHandler))
	if err := child.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	for !slices.Contains(child.current().log.tail(), "deaf") {
		time.Sleep(5 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := child.Halt(ctx)
	if err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Errorf("got %v, want to hear that it was killed", err)
	}
	if child.Pid() != 0 {
		t.Error("it runs")
	}
}

package stack_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// asRoot skips what only root meets: PostgreSQL under a user of its own.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("PostgreSQL runs under another user only when we are root")
	}
}

// secluded is a data directory that no other user can reach, and a place outside.
func secluded(t *testing.T) (dir, outside string) {
	t.Helper()
	outside = stacktest.Dir(t)
	private := stacktest.Dir(t)
	if err := os.Mkdir(private, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(private, "data"), outside
}

func TestPlace_DataThatPostgresCannotReachLiesOutside(t *testing.T) {
	t.Parallel()
	asRoot(t)
	dir, outside := secluded(t)
	opts := stack.WithSystem(stack.Options{DataDir: dir}, "", "", outside)
	first := stacktest.Start(t, opts)
	if !strings.HasPrefix(first.PostgresDir(), outside+"/") {
		t.Fatalf("the data lies in %s", first.PostgresDir())
	}
	remember(t, first, "outside")
	if err := first.Stop(within(t)); err != nil {
		t.Fatal(err)
	}

	second := stacktest.Start(t, opts)
	if second.PostgresDir() != first.PostgresDir() {
		t.Errorf("the second start took %s, not %s", second.PostgresDir(), first.PostgresDir())
	}
	wantRemembered(t, second, "outside")

	// A copy names the same place.
	replica := dir + "-copy"
	if out, err := exec.Command("cp", "-a", dir, replica).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var held *stack.HeldError
	if _, err := stack.Start(within(t), stack.Options{DataDir: replica}); !errors.As(err, &held) {
		t.Errorf("a copy beside the running original: %v, want a HeldError", err)
	}
	if err := second.Stop(within(t)); err != nil {
		t.Fatal(err)
	}

	if err := stack.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.PostgresDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Remove left %s: %v", first.PostgresDir(), err)
	}
	third := stacktest.Start(t, opts)
	if third.PostgresDir() == first.PostgresDir() {
		t.Error("a new data directory met the data of the old one")
	}
	if err := errors.Join(third.Stop(within(t)), stack.Remove(dir)); err != nil {
		t.Error(err)
	}
}

func TestPlace_DataThatPostgresCanReachStaysInside(t *testing.T) {
	t.Parallel()
	asRoot(t)
	dir := stacktest.Dir(t)
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoRedis: true})
	if want := filepath.Join(dir, "postgres"); s.PostgresDir() != want {
		t.Errorf("the data lies in %s, want %s", s.PostgresDir(), want)
	}
	info, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm()&0o067 != 0 {
		t.Errorf("the data directory has mode %o: others can look or change", info.Mode().Perm())
	}
}

func TestPlace_RecordThatMakesNoSense(t *testing.T) {
	t.Parallel()
	dir := stacktest.Dir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	record := filepath.Join(dir, "postgres.path")
	t.Cleanup(func() { // stack.Remove trusts it no more than Start does
		if err := os.Remove(record); err != nil {
			t.Error(err)
		}
	})
	for name, text := range map[string]string{"empty": "", "root": "/\n", "relative": "0123456789abcdef\n", "gone": "/var/lib/0123456789abcdef\n"} {
		t.Run(name, func(t *testing.T) {
			writeText(t, record, text)
			_, err := stack.Start(within(t), stack.Options{DataDir: dir, NoRedis: true})
			wantConfigError(t, err, record)
		})
	}
}

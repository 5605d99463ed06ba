package stacktest_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// execute runs a statement on a connection of its own.
func execute(ctx context.Context, url, sql string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, sql)
	return err
}

func TestTemplate_CopiesAreFilledOnceAndApart(t *testing.T) {
	temp, err := os.MkdirTemp("", "stampede-template-test-*") // not t.TempDir, where PostgreSQL's user cannot come
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(temp) })
	if err := os.Chmod(temp, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Run("copies", func(t *testing.T) { wantCopiesApart(t, temp) })
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left in the temporary directory: %v (%v)", left, err)
	}
}

func wantCopiesApart(t *testing.T, temp string) {
	t.Helper()
	t.Setenv("TMPDIR", temp)
	filled := 0
	template := stacktest.Template{Fill: func(ctx context.Context, url string) error {
		filled++
		return execute(ctx, url, "CREATE TABLE made (n integer)")
	}}
	for range 2 {
		dir := template.Dir(t)
		for path, want := range map[string]os.FileMode{"postgres": 0o700, "postgres.password": 0o600, "postgres/PG_VERSION": 0o600} {
			info, err := os.Stat(filepath.Join(dir, path))
			if err != nil {
				t.Fatal(err)
			}
			if got := info.Mode().Perm(); got != want {
				t.Errorf("%s has mode %o, want %o", path, got, want)
			}
		}
		s := stacktest.Start(t, stack.Options{DataDir: dir, NoRedis: true})
		// The first copy still runs when the second one starts: a table that both had could not be made twice.
		for _, sql := range []string{"INSERT INTO made VALUES (1)", "CREATE TABLE of_this_copy (n integer)"} {
			if err := execute(t.Context(), s.PostgresURL(), sql); err != nil {
				t.Errorf("%s: %v", sql, err)
			}
		}
	}
	if filled != 1 {
		t.Errorf("filled %d times, want once", filled)
	}
}

func TestTemplate_WithoutAWayForPostgresIsAnEmptyDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("PostgreSQL runs under another user only when we are root")
	}
	t.Setenv("TMPDIR", t.TempDir()) // closed to other users
	var template stacktest.Template
	dir := template.Dir(t)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Fatalf("a copy of what must lie elsewhere: %v", err)
	}
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoRedis: true})
	if err := execute(t.Context(), s.PostgresURL(), "SELECT 1"); err != nil {
		t.Error(err)
	}
}

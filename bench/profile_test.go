package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProfile_RecordsASaleAndLeavesOnlyTheProfiles(t *testing.T) {
	tmp := t.TempDir()
	if err := os.Chmod(filepath.Dir(tmp), 0o711); err != nil { // for PostgreSQL's own user
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", tmp)
	var out bytes.Buffer
	p := profiling{
		connections: 16, users: 20, warmUp: 100 * time.Millisecond, seconds: 1, folder: filepath.Join(t.TempDir(), "profiles"),
		binary: buildStampede(t), console: console{out: &out, progress: t.Output()},
	}
	if err := p.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, r := range recordings {
		out.Reset()
		if err := p.head(t.Context(), r); err != nil {
			t.Error(err)
		}
		// What an order goes through, whatever the functions are called.
		if text := out.String(); !strings.HasPrefix(text, filepath.Join(p.folder, r.file)) || !strings.Contains(text, "Type: "+r.value) ||
			!strings.Contains(text, "stampede/engine") {
			t.Errorf("%s: no profile of a sale:\n%s", r.file, text)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v (%v)", left, err)
	}
}

package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

func TestProfile_RecordsASaleAndLeavesOnlyTheProfiles(t *testing.T) {
	tmp, folder := stacktest.Temp(t), filepath.Join(t.TempDir(), "profiles")
	t.Setenv("TMPDIR", tmp)
	var out bytes.Buffer
	p := profiling{
		connections: 16, users: 20, warmUp: 100 * time.Millisecond, seconds: 1, folder: folder,
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
		if text := out.String(); !strings.HasPrefix(text, filepath.Join(p.folder, r.file)) || !strings.Contains(text, "Type: "+r.value) {
			t.Errorf("%s: not the head of a profile:\n%s", r.file, text)
		}
		// What an order goes through, whatever the functions are called; a second of samples need not have it at the head.
		if names := unpacked(t, filepath.Join(p.folder, r.file)); !bytes.Contains(names, []byte("stampede/engine")) {
			t.Errorf("%s: no profile of a sale", r.file)
		}
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left in the temporary directory: %v (%v)", left, err)
	}
}

// unpacked returns a profile with all its names.
func unpacked(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	packed, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(packed)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

package stacktest

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk is a directory on a file system of its own, with so much room ("16m"). The test is skipped if none can be
// mounted, which takes root.
func SmallDisk(t testing.TB, size string) string {
	t.Helper()
	dir := Temp(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=711,size="+size); err != nil {
		t.Skipf("a full disk needs a file system of its own, which cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// FillDisk takes what room is left, and returns how to free it again, which may be done twice.
func FillDisk(t testing.TB, disk string) (free func()) {
	t.Helper()
	path := filepath.Join(disk, "fill")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if _, err := io.Copy(file, endless{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("filled the disk: %v", err)
	}
	return func() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

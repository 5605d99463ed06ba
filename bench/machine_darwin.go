package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func filesystem(path string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return "", fmt.Errorf("statfs %s: %w", path, err)
	}
	return unix.ByteSliceToString(fs.Fstypename[:]), nil
}

// keepOnDisk has the system take what was written to a file, as Redis and PostgreSQL do here. File.Sync would also have the
// disk empty its cache, which neither asks for.
func keepOnDisk(file *os.File) error { return unix.Fsync(int(file.Fd())) }

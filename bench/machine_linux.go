package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// filesystems are those in which data directories usually lie.
var filesystems = map[int64]string{
	unix.BTRFS_SUPER_MAGIC:     "btrfs",
	unix.EXT4_SUPER_MAGIC:      "ext4",
	unix.F2FS_SUPER_MAGIC:      "f2fs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay",
	unix.TMPFS_MAGIC:           inMemory,
	unix.XFS_SUPER_MAGIC:       "xfs",
}

func filesystem(path string) (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return "", fmt.Errorf("statfs %s: %w", path, err)
	}
	if name, ok := filesystems[int64(fs.Type)]; ok { //nolint:unconvert // the type differs between architectures
		return name, nil
	}
	return fmt.Sprintf("%#x", fs.Type), nil
}

// keepOnDisk has the disk keep what was written to a file, as Redis and PostgreSQL do.
func keepOnDisk(file *os.File) error { return unix.Fdatasync(int(file.Fd())) }

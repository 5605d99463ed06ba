package stack_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// smallDisk is a file system of its own with so much room.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := stacktest.Temp(t)
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

// fill takes what room is left, and returns how to free it again.
func fill(t *testing.T, disk string) (free func()) {
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

func TestChild_FullDiskIsNamedAndNoFileIsBlamed(t *testing.T) {
	disk := smallDisk(t, "16m")
	dir := filepath.Join(disk, "data")
	var log transcript
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true, Log: log.logger()})
	free := fill(t, disk)
	defer free()
	withRedis(t, s, func(client *redis.Client) {
		// With appendfsync always Redis ends when it cannot write.
		eventually(t, "the disk is full", func() bool {
			return client.Set(within(t), "kept", strings.Repeat("x", 4096), 0).Err() != nil
		})
	})
	eventually(t, "the death is logged", func() bool { return strings.Contains(log.String(), "server died") })
	for _, word := range []string{"the disk of " + s.RedisDir() + " is full", "make room"} {
		if !strings.Contains(log.String(), word) {
			t.Errorf("the log does not say %q:\n%s", word, &log)
		}
	}
	if strings.Contains(log.String(), "check-aof") {
		t.Errorf("the log blames the AOF:\n%s", &log)
	}
	free()
	withRedis(t, s, func(client *redis.Client) {
		eventually(t, "Redis takes writes again", func() bool {
			return client.Set(t.Context(), "kept", "after", 0).Err() == nil
		})
	})
	if err := s.Stop(within(t)); err != nil {
		t.Fatal(err)
	}
	free = fill(t, disk)
	defer free()
	_, err := stack.Start(within(t), stack.Options{DataDir: dir, NoPostgres: true})
	wantConfigError(t, err, dir, "free some space on its disk")
	free()
	s = stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true})
	withRedis(t, s, func(client *redis.Client) {
		if got := client.Get(within(t), "kept").Val(); got != "after" {
			t.Errorf("kept is %q", got)
		}
	})
}

// A machine that kills both servers time and again, which had been well, has them back within a second each time.
func TestChild_KilledTogetherTimeAndAgainComesBackSoon(t *testing.T) {
	t.Parallel()
	const (
		kills    = 5
		pauseMax = time.Second
	)
	var log transcript
	s := stacktest.Start(t, stack.Options{DataDir: stacktest.Initialised(t), Log: log.logger()})
	children := []*stack.Child{s.Redis(), s.Postgres()}
	for range kills {
		var killed []int
		for _, child := range children {
			killed = append(killed, child.Pid())
			if err := child.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		for i, child := range children {
			eventually(t, "another process", func() bool { return child.Pid() != 0 && child.Pid() != killed[i] })
			if err := child.Ready(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		eventually(t, "the supervisor knows", func() bool {
			for _, child := range children {
				if !strings.Contains(log.String(), "pid="+itoa(child.Pid())+" after=") {
					return false
				}
			}
			return true
		})
	}
	deaths := 0
	for line := range strings.Lines(log.String()) {
		_, pause, found := strings.Cut(line, " pause=")
		if !found {
			continue
		}
		pause, _, _ = strings.Cut(pause, " ")
		if took, err := time.ParseDuration(pause); err != nil || took > pauseMax {
			t.Errorf("%s (%v) before a restart, want %s at most", pause, err, pauseMax)
		}
		deaths++
	}
	if deaths != 2*kills {
		t.Errorf("%d deaths were logged, want %d", deaths, 2*kills)
	}
}

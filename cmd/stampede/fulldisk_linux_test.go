package main

import (
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

// The cause of a full disk is named, no file is blamed for it, and the shop sells on its own once there is room.
func TestUp_FullDiskIsNamedAndItSellsAgainAfterwards(t *testing.T) {
	t.Parallel()
	disk := stacktest.SmallDisk(t, "256m")
	dir := filepath.Join(disk, "data")
	s := up(t, dir)
	bought := s.buy("first@example.com")
	s.awaitWritten()
	free := stacktest.FillDisk(t, disk)
	defer free()
	charge := map[string]any{"user_id": bought.user, "amount": 1}
	for n := 0; s.call("POST", "/balance/charge", "full"+strconv.Itoa(n), charge, nil) == 200; n++ {
		if n == 10_000 {
			t.Fatal("it goes on selling on a full disk")
		}
	}
	words := []string{"the disk of " + filepath.Join(dir, "redis") + " is full", "does not begin a new AOF"}
	for _, word := range words {
		for deadline := time.Now().Add(patience); !strings.Contains(s.err.String(), word); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("the log does not say %q:\n%s", word, s.err)
			}
		}
	}
	if strings.Contains(s.err.String(), "check-aof") {
		t.Errorf("the log blames the AOF:\n%s", s.err)
	}
	free()
	s.awaitSelling(bought)
	s.awaitWritten()
	if code, out, text := finish(t, "audit", "--data-dir", dir); code != exitDone {
		t.Errorf("audit: %d\n%s%s", code, out, text)
	}
	s.stop()
}

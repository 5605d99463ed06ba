package stack_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

//servers:redis
func TestChild_FullDiskIsNamedAndNoFileIsBlamed(t *testing.T) {
	disk := stacktest.SmallDisk(t, "16m")
	dir := filepath.Join(disk, "data")
	var log transcript
	s := stacktest.Start(t, stack.Options{DataDir: dir, NoPostgres: true, Log: log.logger()})
	free := stacktest.FillDisk(t, disk)
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
	free = stacktest.FillDisk(t, disk)
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

package stack_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// Redis alone carries the torn transaction out at the second start after the cut, together with what was written in
// between.
func TestRedis_TornTransactionNeverComesBack(t *testing.T) {
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	write := func(n int) {
		t.Helper()
		withRedis(t, s, func(client *redis.Client) {
			script := `#!lua
				redis.call('SET', KEYS[1], ARGV[1])
				redis.call('SET', KEYS[2], ARGV[1])
				return redis.call('SET', KEYS[3], ARGV[1])`
			keys := []string{"first", "second", "third"}
			if n == 0 {
				keys = []string{"x", "y", "z"}
			}
			if err := client.Eval(within(t), script, keys, n).Err(); err != nil {
				t.Fatal(err)
			}
		})
	}
	crash := func(cut int64) {
		t.Helper()
		if err := s.Redis().HaltNow(within(t)); err != nil {
			t.Fatal(err)
		}
		if cut > 0 {
			files, err := filepath.Glob(filepath.Join(s.RedisDir(), "appendonlydir", "*.incr.aof"))
			if err != nil || len(files) != 1 {
				t.Fatalf("AOF files: %v, %v", files, err)
			}
			info, err := os.Stat(files[0])
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(files[0], info.Size()-cut); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Redis().Resume(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	write(1)
	write(2)
	crash(40) // into the third SET of the last transaction
	write(0)
	crash(0)
	withRedis(t, s, func(client *redis.Client) {
		for _, key := range []string{"first", "second", "third"} {
			if got, err := client.Get(within(t), key).Result(); err != nil || got != "1" {
				t.Errorf("%s is %q (%v): half a transaction came back", key, got, err)
			}
		}
		if got := client.Get(within(t), "z").Val(); got != "0" {
			t.Errorf("what was written after the cut is %q", got)
		}
	})
}

package engine_test

import (
	"context"
	"maps"
	"slices"
	"testing"

	"stampede/engine"
)

// Every reply says up to which event the partition stands: that much is acknowledged with it.
func TestCall_SaysUpToWhereItAcknowledges(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{Hold: sequenceHold})
	for _, name := range slices.Sorted(maps.Keys(everyKind(t, r))) {
		operation := everyKind(t, r)[name]
		before := position(t, r.e, 0)
		for range 2 { // done, and then repeated or refused
			got, noted := r.e.SendNoting(1, r.at, operation())
			if now := position(t, r.e, 0); noted != now.Seq || now.Seq <= before.Seq {
				t.Errorf("%s: %v, %d acknowledged, Redis stands at %v after %v", name, got.Err, noted, now, before)
			}
		}
	}
}

func TestDurability_IsWhatRedisSays(t *testing.T) {
	r := lab.open(t).room(t, 0, engine.Config{})
	ctx := context.Background()
	was := r.redis.ConfigGet(ctx, "append*").Val()
	set := func(appendonly, appendfsync string) {
		t.Helper()
		for name, value := range map[string]string{"appendonly": appendonly, "appendfsync": appendfsync} {
			if err := r.redis.ConfigSet(ctx, name, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	defer set(was["appendonly"], was["appendfsync"])
	for _, c := range []struct{ appendonly, appendfsync, want string }{
		{"yes", "always", engine.DurabilityFsync},
		{"yes", "everysec", engine.DurabilityEverySec},
		{"yes", "no", engine.DurabilityNone},
		{"no", "always", engine.DurabilityNone},
	} {
		set(c.appendonly, c.appendfsync)
		if got := r.e.Durability(ctx); got != c.want {
			t.Errorf("appendonly %s, appendfsync %s: %s, want %s", c.appendonly, c.appendfsync, got, c.want)
		}
	}
}

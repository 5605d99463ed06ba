package engine

import (
	"context"
	"strings"

	"stampede/lua"
)

// What Redis promises to have on disk when it answers.
const (
	DurabilityFsync    = "fsync"    // everything
	DurabilityEverySec = "everysec" // everything but the last 2 s
	DurabilityNone     = "none"     // nothing in particular
	DurabilityUnknown  = "unknown"  // this user may not ask
)

// durability asks Redis how it keeps its data. A user who may not read the configuration, where passwords stand, does
// not learn it: nothing but the judgement of a loss depends on it.
func (e *Engine) durability(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, e.cfg.OperationTimeout)
	defer cancel()
	if may, err := e.upkeep(ctx, lua.Tells, nil); err != nil || may != int64(1) {
		return DurabilityUnknown
	}
	settings, err := e.redis.ConfigGet(ctx, "append*").Result()
	switch {
	case err != nil:
		return DurabilityUnknown
	case settings["appendonly"] != "yes":
		return DurabilityNone
	case settings["appendfsync"] == "always":
		return DurabilityFsync
	case strings.HasPrefix(settings["appendfsync"], "everysec"):
		return DurabilityEverySec
	}
	return DurabilityNone
}

package engine

import (
	"context"
	"strconv"
	"strings"
	"time"

	"stampede/lua"
)

// rememberedSlack is the time before the end of an idempotency record in which nobody can say whether it still stands:
// the clocks of Redis, of who wrote it and of who looks may differ by so much.
const rememberedSlack = time.Hour

// Remembered returns the idempotency record that Redis must hold of an event, its key, and the partition that holds it.
// The key is "" where the event had none, or where its record may have ended.
func (e *Engine) Remembered(ev *Event) (partition int, key, record string) {
	partition = e.keys.OfEvent(ev)
	key, record = e.remembered(partition, ev, e.RememberedSince().Add(rememberedSlack))
	return partition, key, record
}

// RememberedSince is the time of the oldest event whose idempotency record still stands.
func (e *Engine) RememberedSince() time.Time { return e.now().Add(-e.cfg.IdempotencyTTL) }

func (e *Engine) remembered(partition int, ev *Event, since time.Time) (key, record string) {
	if ev.Key == "" || ev.At.Before(since) {
		return "", ""
	}
	return e.keys.Idempotency(partition, ev.Scope, ev.Key), string(ev.idempotencyRecord())
}

// Lapse drops the idempotency records of events from Redis, as far as they still hold what the events say, and notes up
// to where it did: from is what Redis has noted, to what it notes. fence is the epoch in which the books believe Redis to
// sell; it reports false, and does nothing, in another one or where another process was first.
func (e *Engine) Lapse(ctx context.Context, partition int, fence int64, from, to Position, events []Event) (bool, error) {
	keys := append(make([]string, 0, 1+len(events)), e.keys.Meta(partition))
	args := append(make([]any, 0, 5+len(events)), fence, from.Epoch, from.Seq, to.Epoch, to.Seq)
	for i := range events {
		if key, record := e.remembered(partition, &events[i], time.Time{}); key != "" {
			keys, args = append(keys, key), append(args, record)
		}
	}
	reply, err := e.upkeep(ctx, lua.Lapse, keys, args...)
	return reply == int64(1), err
}

// CatalogueRecord returns the record of a product that every partition of Redis must hold.
func CatalogueRecord(p Product) string { return encodeCatalogue(p) }

// CatalogueVersion returns the version of a product's record in Redis, 0 where it is none.
func CatalogueVersion(record string) int64 {
	text, _, _ := strings.Cut(record, ":")
	version, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0
	}
	return version
}

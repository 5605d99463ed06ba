package engine

import (
	"strconv"
	"strings"
	"time"
)

// rememberedSlack is the time before the end of an idempotency record in which nobody can say whether it still stands:
// the clocks of Redis, of who wrote it and of who looks may differ by so much.
const rememberedSlack = time.Hour

// Remembered returns the idempotency record that a partition of Redis must hold of an event, and its key. The key is ""
// where the event had none, or where its record may have ended.
func (e *Engine) Remembered(partition int, ev *Event) (key, record string) {
	if ev.Key == "" || e.now().Sub(ev.At) > e.cfg.IdempotencyTTL-rememberedSlack {
		return "", ""
	}
	return e.keys.Idempotency(partition, ev.Scope, ev.Key), string(ev.idempotencyRecord())
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

package persist

import (
	"context"
	"fmt"
)

// answers compares the idempotency records of a run's events with Redis, as long as each must
// stand there.
func (a *audit) answers(ctx context.Context, p int, events []event) error {
	if a.doors[p].skip {
		return nil
	}
	keys, want, of := make([]string, 0, a.chunk), make([]string, 0, a.chunk), make([]*event, 0, a.chunk)
	look := func() error {
		if len(keys) == 0 {
			return nil
		}
		found, _, err := a.held(ctx, p, keys)
		if err != nil {
			return err
		}
		a.looked(checkKeys, int64(len(keys)))
		for i, key := range keys {
			if record, stands := found[i].(string); record != want[i] {
				a.violated(checkKeys, key, "%s, the answer of event %v is %x", recordOf(record, stands), of[i].at, want[i])
			}
		}
		keys, want, of = keys[:0], want[:0], of[:0]
		return nil
	}
	for i := range events {
		key, record := a.books.engine.Remembered(p, events[i].Event)
		if key == "" {
			continue
		}
		keys, want, of = append(keys, key), append(want, record), append(of, &events[i])
		if len(keys) == a.chunk {
			if err := look(); err != nil {
				return err
			}
		}
	}
	return look()
}

func recordOf(record string, stands bool) string {
	if !stands {
		return "is missing"
	}
	return fmt.Sprintf("holds %x", record)
}

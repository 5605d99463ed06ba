package persist

import (
	"context"
	"fmt"
)

// answers compares the idempotency records of a run's events with Redis, as long as each must
// stand there.
func (a *audit) answers(ctx context.Context, events []event) error {
	byPartition := map[int][]wantedAnswer{}
	for i := range events {
		p, key, record := a.books.engine.Remembered(events[i].Event)
		if key == "" || a.doors[p].skip {
			continue
		}
		if byPartition[p] = append(byPartition[p], wantedAnswer{key, record, &events[i]}); len(byPartition[p]) == a.chunk {
			if err := a.answersIn(ctx, p, byPartition[p]); err != nil {
				return err
			}
			delete(byPartition, p)
		}
	}
	for p, part := range byPartition {
		if err := a.answersIn(ctx, p, part); err != nil {
			return err
		}
	}
	return nil
}

// wantedAnswer is the idempotency record of an event.
type wantedAnswer struct {
	key, record string
	of          *event
}

func (a *audit) answersIn(ctx context.Context, p int, want []wantedAnswer) error {
	keys := make([]string, len(want))
	for i, w := range want {
		keys[i] = w.key
	}
	found, _, err := a.held(ctx, p, keys)
	if err != nil {
		return err
	}
	a.looked(checkKeys, int64(len(keys)))
	for i, w := range want {
		if record, stands := found[i].(string); record != w.record {
			a.violated(checkKeys, w.key, "%s, the answer of event %v is %x", recordOf(record, stands), w.of.at, w.record)
		}
	}
	return nil
}

func recordOf(record string, stands bool) string {
	if !stands {
		return "is missing"
	}
	return fmt.Sprintf("holds %x", record)
}

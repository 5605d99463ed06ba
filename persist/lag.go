package persist

import "context"

// Lag is how many events Redis holds that Postgres does not, over all partitions, measured now: 0 means that every
// change answered before the call is in the tables.
func (b *Books) Lag(ctx context.Context) (int64, error) {
	var lag int64
	for p := range b.engine.Keys().Partitions() {
		found, err := b.engine.Look(ctx, p)
		if err != nil {
			return 0, err
		}
		at, err := readCheckpoint(ctx, b.pool, p, "")
		if err != nil {
			return 0, err
		}
		// The checkpoint was read later and may have passed what Redis said.
		lag += max(0, found.Events()-at.events)
	}
	return lag, nil
}

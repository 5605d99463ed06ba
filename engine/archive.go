package engine

import "context"

// Archived is an order as the books hold it.
type Archived struct {
	Order
	// Events is how many events of its partition the books held when it was read (checkpoints.events, in the same
	// snapshot). A script takes an order back into Redis only if the books had seen everything up to the last
	// order that Redis let go: else the order may have been changed and let go since.
	Events int64
}

// archived reads an order of a partition from the books.
func (e *Engine) archived(ctx context.Context, p *partition, id int64) (Archived, error) {
	if e.cfg.Archive == nil || id < 1 {
		return Archived{}, ErrOrderNotFound
	}
	found, err := e.cfg.Archive(ctx, id)
	if err == nil && e.partitionOf(found.UserID) != p {
		return Archived{}, ErrOrderNotFound
	}
	return found, err
}

package persist

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// epochs makes sure that a partition's epochs follow each other by one up to the fence, but for those in which layouts
// begin, that all but the last have an end, and that it is where the journal says. ends are those of the journal, which ends
// at the checkpoint: behind it the writer has not come yet.
func (a *audit) epochs(ctx context.Context, p int, to checkpoint, ends map[int64]int64) error {
	rows, err := a.snapshot.Query(ctx, "SELECT epoch, last_seq FROM epochs WHERE partition = $1 ORDER BY epoch", p)
	if err != nil {
		return fmt.Errorf("reading epochs: %w", err)
	}
	before, n := int64(0), int64(0)
	var epoch int64
	var end *int64
	_, err = pgx.ForEachRow(rows, []any{&epoch, &end}, func() error {
		n++
		subject := fmt.Sprintf("epochs partition=%d epoch=%d", p, epoch)
		if epoch != before+1 && !a.layouts.begins(epoch) {
			a.violated(checkEpochs, subject, "follows epoch %d", before)
		}
		before = epoch
		stood := ends[epoch]
		delete(ends, epoch)
		switch {
		case (end == nil) != (epoch == to.fence && !a.layouts.begins(epoch)):
			a.violated(checkEpochs, subject, "ends at %s, the checkpoint says that epoch %d sells", endOf(end), to.fence)
		case end == nil:
		case epoch < to.Epoch && *end != stood, epoch >= to.Epoch && *end < stood:
			a.violated(checkEpochs, subject, "ends at %d, in the journal at %d", *end, stood)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading epochs: %w", err)
	}
	for epoch := range ends {
		a.violated(checkEpochs, fmt.Sprintf("epochs partition=%d epoch=%d", p, epoch), "is missing, the journal has events of it")
	}
	a.looked(checkEpochs, n)
	if before != to.fence || to.Epoch > to.fence {
		a.violated(checkEpochs, fmt.Sprintf("checkpoints partition=%d", p), "says that epoch %d sells and that the journal ends in %d, the last of the table epochs is %d",
			to.fence, to.Epoch, before)
	}
	return nil
}

func endOf(seq *int64) string {
	if seq == nil {
		return "no seq"
	}
	return fmt.Sprint("seq ", *seq)
}

package persist

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// wentAstray refuses a Redis that sold on where the books say that its epoch had ended, as an old master does that was left
// behind by a failover: to replay the journal would leave its own sales standing among those of the books.
func (r *repair) wentAstray(ctx context.Context, tx pgx.Tx, found engine.DoorView) error {
	var end *int64
	err := tx.QueryRow(ctx, "SELECT last_seq FROM epochs WHERE partition = $1 AND epoch = $2", r.partition, found.Epoch).Scan(&end)
	switch {
	case errors.Is(err, pgx.ErrNoRows), err == nil && (end == nil || found.Seq <= *end):
		return nil
	case err != nil:
		return unavailable("reading the end of an epoch", err)
	}
	return refused("partition %d of this Redis holds events that the books do not have (epoch %d, seq %d to %d), since another Redis "+
		"sold in its place: correct the Redis URL, or empty this one (redis-cli FLUSHALL) and run `stampede restore`",
		r.partition, found.Epoch, *end+1, found.Seq)
}

const (
	rivalPatience = 2 * time.Second // for an answer: engines look at the books every half second
	rivalPause    = 100 * time.Millisecond
)

// unrivaled makes sure that no other Redis sells, where the one at hand is of an epoch that has ended in the books. That is
// what an old dump looks like, and also an old master that was started again while its replica sells in its place. The
// processes that sell are asked, through the books: to open this one would end what they do.
func (r *repair) unrivaled(ctx context.Context, found engine.DoorView) error {
	if found.Renewed == found.IsRun && (!found.Open || found.Run != found.IsRun) {
		return nil // a repair was at work on this server since it started, and died
	}
	at, err := readCheckpoint(ctx, r.conn, r.partition, "")
	if err != nil || found.Epoch >= at.fence {
		return err
	}
	var others bool
	if err := r.conn.QueryRow(ctx, "SELECT count(*) > 1 FROM nodes WHERE leased_until > now()").Scan(&others); err != nil {
		return unavailable("looking for other processes", err)
	}
	if !others {
		return nil
	}
	if _, err := r.conn.Exec(ctx, "UPDATE checkpoints SET challenge = $2 WHERE partition = $1", r.partition, r.token); err != nil {
		return unavailable("asking other processes", err)
	}
	for asked := time.Now(); time.Since(asked) < rivalPatience; pause(ctx, rivalPause) {
		var stands bool
		err := r.conn.QueryRow(ctx, "SELECT coalesce(challenge = $2, false) FROM checkpoints WHERE partition = $1", r.partition, r.token).Scan(&stands)
		if err != nil {
			return unavailable("asking other processes", err)
		}
		if !stands {
			return errRival
		}
	}
	tag, err := r.conn.Exec(ctx, "UPDATE checkpoints SET challenge = NULL WHERE partition = $1 AND challenge = $2", r.partition, r.token)
	if err == nil && tag.RowsAffected() == 0 {
		return errRival
	}
	if err != nil {
		return unavailable("asking other processes", err)
	}
	return nil
}

var errRival = refused("this Redis is older than the one that other processes sell from at this moment: let the Redis URL name " +
	"that one, or make this one its replica; or stop those processes, if this is the one that should sell")

// Fences reads the epochs in which the partitions sell, and answers repairs that ask whether anybody does: who calls it
// sells from the Redis at hand.
func (b *Books) Fences(ctx context.Context) ([]int64, error) {
	var fences []int64
	var challenges []*string
	err := b.pool.QueryRow(ctx, `SELECT array_agg(fence ORDER BY partition), array_agg(challenge ORDER BY partition)
		FROM checkpoints WHERE partition < $1`, b.engine.Keys().Partitions()).Scan(&fences, &challenges)
	if err != nil {
		return nil, unavailable("reading the fences", err)
	}
	for partition, challenge := range challenges {
		if challenge == nil {
			continue
		}
		v, err := b.engine.Look(ctx, partition)
		if err != nil || !v.Standing || v.Epoch != fences[partition] {
			continue
		}
		_, err = b.pool.Exec(ctx, "UPDATE checkpoints SET challenge = NULL WHERE partition = $1 AND challenge = $2 AND fence = $3",
			partition, *challenge, fences[partition])
		if err != nil {
			return fences, unavailable("answering a repair", err)
		}
	}
	return fences, nil
}

package persist

import (
	"context"
	"time"
)

// writerWait is how long a repair waits for a writer's transaction.
const writerWait = 2 * time.Second

// endFrozenWriter makes sure that no writer's transaction keeps the checkpoint: a process that is frozen in the middle of a COPY would
// keep it for as long as it is frozen, since Postgres heeds no timeout while it reads from a client. Its session is ended then.
func (r *repair) endFrozenWriter(ctx context.Context) error {
	for begun := time.Now(); ; pause(ctx, answerPause) {
		var free bool
		err := r.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM checkpoints WHERE partition = $1 FOR UPDATE SKIP LOCKED)", r.partition).Scan(&free)
		switch {
		case err != nil:
			return unavailable("looking at the checkpoint", err)
		case free:
			return nil
		case time.Since(begun) < writerWait:
			continue
		}
		_, err = r.conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND classid = $1::bigint::oid
			AND objid = $2::bigint::oid AND objsubid = 2 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
			lockWriter, r.partition)
		if err != nil {
			return unavailable("ending the session of a writer that hangs", err)
		}
		r.books.log.Warn("ended the session of a writer that hangs in a transaction", "partition", r.partition)
		return nil
	}
}

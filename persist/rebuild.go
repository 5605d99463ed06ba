package persist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"stampede/engine"
)

const lockRebuild = 0x5354_0005 // class of the advisory lock

// rebuildLockTimeout is how long a rebuild waits for what somebody else has locked: rows, or the rebuild itself, which a
// session that was cut off gives back within a second. Tests set it.
var rebuildLockTimeout = 5 * time.Second

// Rebuilt is what a rebuild of the derived tables found and did.
type Rebuilt struct {
	Partitions  int
	Events      int64
	Quarantined int64 // events of which nothing can be derived
	Tables      []RebuiltTable
	Held        time.Duration // how long writers waited
}

// RebuiltTable counts rows of a table: those it has now, and those that were not as the journal says.
type RebuiltTable struct {
	Name                        string
	Rows                        int64
	Missing, Different, Surplus int64
}

// RebuildStage is what a rebuild is at.
type RebuildStage string

// The stages of a rebuild.
const (
	RebuildDerives  RebuildStage = "events derived"
	RebuildCompares RebuildStage = "tables compared"
)

// RebuildReports derives everything anew from the journal and brings the tables into line with it, in one transaction.
// It may run beside a shop: readers read on, and writers wait only for the last part, in which the tables are compared;
// sales go on meanwhile. Whatever ends it early leaves the tables as they were. progress is told how far it is, in events
// or tables.
func (b *Books) RebuildReports(ctx context.Context, progress func(stage RebuildStage, done, total int64)) (Rebuilt, error) {
	// A connection of its own: what is derived stands in tables of the session, under the names of the real ones.
	conn, err := pgx.ConnectConfig(ctx, b.pool.Config().ConnConfig)
	if err != nil {
		return Rebuilt{}, connectError(err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // the session's tables and locks go with it
	r := &rebuild{books: b, conn: conn, progress: progress}
	if err := r.rebuild(ctx); err != nil {
		return Rebuilt{}, r.explain(err)
	}
	return r.done, nil
}

// rebuild is one on its way.
type rebuild struct {
	books    *Books
	conn     *pgx.Conn
	schema   string // of the real tables
	walked   []checkpoint
	total    int64 // events that are known of
	progress func(stage RebuildStage, done, total int64)
	done     Rebuilt
}

func (r *rebuild) rebuild(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	if err := r.makeShadows(ctx); err != nil {
		return fmt.Errorf("making room for what is derived: %w", err)
	}
	if err := r.walk(ctx, r.conn); err != nil {
		return err
	}
	if err := r.analyze(ctx); err != nil {
		return err
	}
	if err := r.bringIntoLine(ctx); err != nil {
		return err
	}
	return r.count(context.WithoutCancel(ctx)) // it is done
}

// bringIntoLine is the part that writers wait for.
func (r *rebuild) bringIntoLine(ctx context.Context) error {
	tx, err := r.conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // after a commit there is nothing to take back
	to, err := r.holdWriters(ctx, tx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := r.walk(ctx, tx); err != nil { // what was written since
		return err
	}
	if err := r.reached(to); err != nil {
		return err
	}
	if err := r.merge(ctx, tx); err != nil {
		return err
	}
	// From here on nothing cuts it short: whoever ends it earlier knows that nothing was changed.
	err = tx.Commit(context.WithoutCancel(ctx))
	r.done.Held = time.Since(start)
	return err
}

// begin makes sure that this is the only rebuild and may do what it has to, and reads how much there is to do.
func (r *rebuild) begin(ctx context.Context) error {
	// A limit of the role's is for queries of a shop. A session whose client was killed or is frozen must not hold writers up.
	_, err := r.conn.Exec(ctx, fmt.Sprintf(`SET statement_timeout = 0; SET lock_timeout = %d; SET temp_buffers = '64MB';
		SET client_connection_check_interval = '1s'; SET idle_in_transaction_session_timeout = '30s'`, rebuildLockTimeout.Milliseconds()))
	if err != nil {
		return err
	}
	_, err = r.conn.Exec(ctx, "SELECT pg_advisory_lock($1, 0)", lockRebuild)
	if isCode(err, lockNotAvailable) {
		return refused("another rebuild is under way: wait for its end")
	}
	if err != nil {
		return err
	}
	if err := r.mayRebuild(ctx); err != nil {
		return err
	}
	var journals int
	err = r.conn.QueryRow(ctx, "SELECT current_schema(), count(*), coalesce(sum(events), 0)::bigint, ("+selectPartitions+") FROM checkpoints").
		Scan(&r.schema, &journals, &r.total, &r.done.Partitions)
	r.walked = make([]checkpoint, journals)
	return err
}

// mayRebuild refuses a role that would fail half-way.
func (r *rebuild) mayRebuild(ctx context.Context) error {
	var tables, rights []string
	needs := func(table string, all ...string) {
		for _, right := range all {
			tables, rights = append(tables, table), append(rights, right)
		}
	}
	for _, t := range derivedTables {
		needs(t.name, "SELECT", "INSERT", "DELETE")
	}
	for _, s := range derivedSums {
		needs(s.table, "SELECT", "UPDATE")
	}
	needs("events", "SELECT")
	needs("checkpoints", "SELECT", "UPDATE")
	needs("layouts", "SELECT")
	var lacks string
	err := r.conn.QueryRow(ctx, `SELECT coalesce((SELECT string_agg(need || ' on ' || name, ', ')
			FROM unnest($1::text[], $2::text[]) AS n(name, need) WHERE NOT has_table_privilege(name, need)),
		CASE WHEN NOT has_database_privilege(current_database(), 'TEMP') THEN 'TEMP on the database' END, '')`, tables, rights).Scan(&lacks)
	if isCode(err, undefinedTable) {
		return refused("these books are of an earlier version (%v): start this version of the shop on them once, which brings them forward", err)
	}
	if err == nil && lacks != "" {
		err = refused("the role of the Postgres URL may do too little: it lacks %s; take the role that owns the books, "+
			"see the roles in README.md, \"TLS and least authority\"", lacks)
	}
	return err
}

// holdWriters locks all checkpoints, without which no writer commits, and returns them.
func (r *rebuild) holdWriters(ctx context.Context, tx pgx.Tx) ([]checkpoint, error) {
	found, _ := tx.Query(ctx, "SELECT epoch, seq, events FROM checkpoints ORDER BY partition FOR UPDATE") // CollectRows tells the error
	return pgx.CollectRows(found, func(row pgx.CollectableRow) (c checkpoint, err error) {
		err = row.Scan(&c.Epoch, &c.Seq, &c.events)
		return c, err
	})
}

// reached makes sure that the walk saw every event up to the checkpoints: rows of events that the journal lacks are the
// last that is known of them.
func (r *rebuild) reached(to []checkpoint) error {
	if len(to) != len(r.walked) {
		return refused("the number of partitions changed from %d to %d: run it again", len(r.walked), len(to))
	}
	for p, at := range to {
		// A checkpoint that was set back stands behind the journal, which counts.
		// So does one at which a layout begins, in an epoch without events.
		if c := r.walked[p]; c.Compare(at.Position) < 0 && (at.Seq > 0 || c.events != at.events) || c.Position == at.Position && c.events != at.events {
			return refused("the journal of partition %d ends at %v after %d events, its checkpoint says %v after %d: rows of the table "+
				"events were deleted; nothing was changed, bring them back from a backup first", p, c.Position, c.events, at.Position, at.events)
		}
	}
	return nil
}

// explain turns errors that an operator can mend into words about that.
func (r *rebuild) explain(err error) error {
	var pg *pgconn.PgError
	switch {
	case errors.Is(err, ErrRefused):
		return err
	case errors.Is(err, ErrAlarm):
		return refused("nothing was changed: %s", strings.TrimPrefix(err.Error(), ErrAlarm.Error()+": "))
	case errors.Is(err, engine.ErrNewer):
		return refused("nothing was changed: %v; rebuild with the newest version that ran on these books", err)
	case errors.As(err, &pg) && pg.Code == uniqueViolation:
		return refused("nothing was changed: two events of the journal make the same row of table %s (%s); rows of the table events "+
			"were changed or added, bring them back from a backup first", pg.TableName, pg.Detail)
	case isCode(err, lockNotAvailable):
		return refused("nothing was changed: rows are locked by somebody else for more than %s, such as a repair under way or a "+
			"session that was left open: see pg_stat_activity, and run it again", rebuildLockTimeout)
	}
	return fmt.Errorf("rebuilding: %w", err)
}

const lockNotAvailable = "55P03"

func isCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

package persist

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"stampede/engine"
)

// quarantineMax is how many events of one transaction may go into quarantine. More of them are no bad events but a wrong
// schema or program, which must not empty a journal into quarantine.
const quarantineMax = 64

// isPoison reports whether the tables refuse what an error came from, whenever it is tried: a value that a column does not
// take, a broken rule, an order that is not as its step found it. A row that exists is not among them: see passKnown.
func isPoison(err error) bool {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		// Classes 22, data exception, and 23, integrity constraint violation: PostgreSQL, appendix A.
		return pg.Code[:2] == "22" || pg.Code[:2] == "23" && pg.Code != uniqueViolation
	}
	return errors.Is(err, errStep)
}

// sift takes the events out of a run whose rows the tables refuse, found by bisection: insert tries a transaction that is
// rolled back. Steps of an order that is taken out go with it, one after the other.
func (r *run) sift(insert func(*rows) error) error {
	from := 0 // the events before it are good together
	for {
		err := insert(r.rows)
		if !isPoison(err) {
			return err
		}
		if len(r.poison) >= quarantineMax {
			return fmt.Errorf("%w: more than %d events from %v on cannot be derived, the last because of: %v; see whether the schema and this program belong together",
				ErrAlarm, quarantineMax, r.entries[0].Last, err) //nolint:errorlint // it is not to be taken for poison again
		}
		var reason, failed error
		// The shortest run from the beginning that is refused ends with the event to blame.
		n := from + sort.Search(len(r.events)-from, func(n int) bool {
			part := &run{events: append([]event(nil), r.events[:from+n+1]...)}
			part.derive()
			err := insert(part.rows)
			switch {
			case isPoison(err):
				reason = err
				return true
			case err != nil:
				failed = err
			}
			return failed != nil
		})
		if failed != nil {
			return failed
		}
		if reason == nil || n == len(r.events) {
			return fmt.Errorf("%w: the events from %v on are refused, though each of them is taken: %v", ErrAlarm, r.entries[0].Last, err) //nolint:errorlint // as above
		}
		r.poison = append(r.poison, poison{r.events[n].at, reason.Error()})
		r.events = append(r.events[:n:n], r.events[n+1:]...)
		r.derive()
		from = min(n, len(r.events))
	}
}

// rollBack runs insertions in a transaction and takes them back: they were tried.
func rollBack(ctx context.Context, conn *pgx.Conn, insert func(pgx.Tx) error) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	err = insert(tx)
	return errors.Join(err, tx.Rollback(ctx))
}

// putInQuarantine notes the events that nothing was derived of. They stand in the journal.
func putInQuarantine(ctx context.Context, tx pgx.Tx, partition int, poisoned []poison) error {
	if len(poisoned) == 0 {
		return nil
	}
	epochs, seqs, reasons := make([]int64, 0, len(poisoned)), make([]int64, 0, len(poisoned)), make([]string, 0, len(poisoned))
	for _, p := range poisoned {
		epochs, seqs = append(epochs, p.at.Epoch), append(seqs, p.at.Seq)
		// What a column refuses may stand in the reason too.
		reasons = append(reasons, strings.ToValidUTF8(strings.ReplaceAll(p.reason, "\x00", "\ufffd"), "\ufffd"))
	}
	_, err := tx.Exec(ctx, `INSERT INTO quarantine (partition, epoch, seq, reason)
		SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[])
		ON CONFLICT (partition, epoch, seq) DO UPDATE SET reason = excluded.reason`, partition, epochs, seqs, reasons)
	return err
}

// inQuarantine returns the events of a partition that nothing was derived of.
func inQuarantine(ctx context.Context, q querier, partition int) (positions, error) {
	found, err := q.Query(ctx, "SELECT epoch, seq FROM quarantine WHERE partition = $1", partition)
	if err != nil {
		return nil, fmt.Errorf("reading the quarantine: %w", err)
	}
	var at engine.Position
	all := positions{}
	_, err = pgx.ForEachRow(found, []any{&at.Epoch, &at.Seq}, func() error {
		all[at] = true
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the quarantine: %w", err)
	}
	return all, nil
}

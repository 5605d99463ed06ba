package persist

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// derivedTable is one whose rows all follow from the journal.
type derivedTable struct {
	name string
	key  string // columns of the primary key
	same string // when two rows of one key, n and t, are the same
}

// Bit by bit the same, NULL too; see "Row-wise Comparison" in the PostgreSQL manual.
const sameRow = "n *= t"

var derivedTables = []derivedTable{
	{"orders", "id", sameRow},
	{"order_items", "order_id, product_id", sameRow},
	{"order_history", "order_id, step", sameRow},
	{"balance_ledger", "partition, epoch, seq", sameRow},
	{"stock_ledger", "partition, epoch, seq, product_id", sameRow},
	{"carts", "user_id", sameRow},
	{"cart_items", "user_id, product_id", sameRow},
	{"sales_hours", "hour, product_id, partition", sameRow},
	{"quarantine", "partition, epoch, seq", "n.seq = t.seq"}, // of the same reason since the same time
}

// derivedSums are columns that follow from the journal, of rows that do not; without an event they are 0.
var derivedSums = []struct{ table, column string }{{"users", "balance"}, {"products", "stock"}}

// makeShadows creates a temporary table under the name of each table that follows from the journal. In this session the
// name means that one, so the statements of the writer fill it; and PostgreSQL writes no WAL for it.
func (r *rebuild) makeShadows(ctx context.Context) error {
	const shadow = "CREATE TEMP TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS, PRIMARY KEY (%s));"
	var sql strings.Builder
	for _, t := range derivedTables {
		fmt.Fprintf(&sql, shadow, t.name, r.real(t.name), t.key)
	}
	for _, s := range derivedSums {
		fmt.Fprintf(&sql, shadow, s.table, r.real(s.table), "id")
	}
	_, err := r.conn.Exec(ctx, sql.String())
	return err
}

// real names the table that everybody sees.
func (r *rebuild) real(table string) string { return pgx.Identifier{r.schema, table}.Sanitize() }

// analyze has the planner know what it is to compare: nobody else does that for temporary tables.
func (r *rebuild) analyze(ctx context.Context) error {
	for _, t := range derivedTables {
		if _, err := r.conn.Exec(ctx, "ANALYZE pg_temp."+t.name); err != nil {
			return err
		}
	}
	return nil
}

// merge brings the tables into line with their shadows. Only rows that differ are touched, so that readers read on and
// a table that is as it should be stays as it is.
func (r *rebuild) merge(ctx context.Context, tx pgx.Tx) error {
	// The updates of the walk went by key. These go over whole tables: a nested loop would take for ever.
	if _, err := tx.Exec(ctx, "SET LOCAL enable_seqscan = on; SET LOCAL enable_mergejoin = on; SET LOCAL enable_nestloop = off"); err != nil {
		return err
	}
	total := int64(len(derivedTables) + len(derivedSums))
	for _, t := range derivedTables {
		done, err := r.mergeTable(ctx, tx, t)
		if err != nil {
			return fmt.Errorf("table %s: %w", t.name, err)
		}
		r.done.Tables = append(r.done.Tables, done)
		r.progress(RebuildCompares, int64(len(r.done.Tables)), total)
	}
	for _, s := range derivedSums {
		// Rows are locked in the order in which writers and others do, who meet here on them.
		tag, err := tx.Exec(ctx, fmt.Sprintf(`WITH differs AS MATERIALIZED (
				SELECT t.id, coalesce(n.%[1]s, 0) AS should FROM %[2]s t LEFT JOIN pg_temp.%[3]s n USING (id)
				WHERE t.%[1]s <> coalesce(n.%[1]s, 0) ORDER BY t.id FOR NO KEY UPDATE OF t)
			UPDATE %[2]s t SET %[1]s = d.should FROM differs d WHERE t.id = d.id`, s.column, r.real(s.table), s.table))
		if err != nil {
			return fmt.Errorf("table %s: %w", s.table, err)
		}
		r.done.Tables = append(r.done.Tables, RebuiltTable{Name: s.table, Different: tag.RowsAffected()})
		r.progress(RebuildCompares, int64(len(r.done.Tables)), total)
	}
	return nil
}

func (r *rebuild) mergeTable(ctx context.Context, tx pgx.Tx, t derivedTable) (RebuiltTable, error) {
	done := RebuiltTable{Name: t.name}
	first, _, _ := strings.Cut(t.key, ",")
	table := strings.NewReplacer("{name}", t.name, "{real}", r.real(t.name), "{key}", t.key, "{first}", first, "{same}", t.same)
	// Along both keys: half of what hashes take, and no memory.
	if _, err := tx.Exec(ctx, table.Replace(`SET LOCAL enable_hashjoin = off; SET LOCAL enable_sort = off;
		CREATE TEMP TABLE differs ON COMMIT DROP AS
		SELECT {key}, n.{first} IS NULL AS surplus, t.{first} IS NULL AS missing
		FROM pg_temp.{name} n FULL JOIN {real} t USING ({key}) WHERE ({same}) IS NOT TRUE`)); err != nil {
		return done, err
	}
	err := tx.QueryRow(ctx, `SELECT count(*) FILTER (WHERE missing), count(*) FILTER (WHERE surplus),
		count(*) FILTER (WHERE NOT missing AND NOT surplus) FROM differs`).Scan(&done.Missing, &done.Surplus, &done.Different)
	if err != nil {
		return done, err
	}
	sql := "SET LOCAL enable_hashjoin = on; SET LOCAL enable_sort = on;"
	if done.Different+done.Surplus > 0 {
		sql += "ANALYZE differs; DELETE FROM {real} WHERE ({key}) IN (SELECT {key} FROM differs WHERE NOT missing);"
	}
	if done.Different+done.Missing > 0 {
		sql += "INSERT INTO {real} SELECT n.* FROM pg_temp.{name} n JOIN differs USING ({key});"
	}
	_, err = tx.Exec(ctx, table.Replace(sql+"DROP TABLE differs"))
	return done, err
}

// count counts what the tables hold now, when nobody waits for it any more.
func (r *rebuild) count(ctx context.Context) error {
	for i, t := range derivedTables {
		rows := &r.done.Tables[i].Rows
		if err := r.conn.QueryRow(ctx, "SELECT count(*) FROM pg_temp."+t.name).Scan(rows); err != nil {
			return err
		}
	}
	return r.conn.QueryRow(ctx, "SELECT count(*) FROM quarantine").Scan(&r.done.Quarantined)
}

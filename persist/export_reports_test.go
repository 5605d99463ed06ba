package persist

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// Plan is what Postgres did for a statement.
type Plan struct {
	Scans   []string // what was read, and how, such as "Index Scan of sales_hours"
	Buffers int64    // pages of tables and indexes that were looked at
}

// ExplainSales returns what a report of sales does, statement by statement taken together.
func (b *Books) ExplainSales(ctx context.Context, q engine.SalesQuery) (p Plan, rows int, err error) {
	r := newSalesReport(q, func(engine.Sale) error { return nil })
	err = b.explained(ctx, func(e *explainer) error { return r.read(ctx, e) }, &p)
	return p, r.rows, err
}

// ExplainLedger returns what a page of a ledger does.
func (b *Books) ExplainLedger(ctx context.Context, user int64, before engine.Position, limit int) (p Plan, rows int, err error) {
	err = b.explained(ctx, func(e *explainer) error {
		postings, err := readLedger(ctx, e, user, before, limit)
		rows = len(postings)
		return err
	}, &p)
	return p, rows, err
}

// Newest is behind every position.
var Newest = newest

func (b *Books) explained(ctx context.Context, run func(*explainer) error, p *Plan) error {
	return pgx.BeginFunc(ctx, b.pool, func(tx pgx.Tx) error {
		e := &explainer{Tx: tx}
		err := errors.Join(run(e), e.err)
		*p = e.plan
		return err
	})
}

// explainer has every statement of a transaction explained, and then carried out.
type explainer struct {
	pgx.Tx
	plan Plan
	err  error
}

func (e *explainer) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	e.explain(ctx, sql, args)
	return e.Tx.Query(ctx, sql, args...)
}

func (e *explainer) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	e.explain(ctx, sql, args)
	return e.Tx.QueryRow(ctx, sql, args...)
}

type planNode struct {
	Kind     string `json:"Node Type"`
	Relation string `json:"Relation Name"`
	Hit      int64  `json:"Shared Hit Blocks"`
	Read     int64  `json:"Shared Read Blocks"`
	Plans    []planNode
}

func (e *explainer) explain(ctx context.Context, sql string, args []any) {
	var text []byte
	var found []struct{ Plan planNode }
	err := e.Tx.QueryRow(ctx, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+sql, args...).Scan(&text)
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		e.err = errors.Join(e.err, err)
		return
	}
	for _, f := range found {
		e.plan.Buffers += f.Plan.Hit + f.Plan.Read // of the nodes below too
		e.plan.note(&f.Plan)
	}
}

func (p *Plan) note(n *planNode) {
	if n.Relation != "" {
		p.Scans = append(p.Scans, n.Kind+" of "+n.Relation)
	}
	for i := range n.Plans {
		p.note(&n.Plans[i])
	}
}

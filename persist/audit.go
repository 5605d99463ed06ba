package persist

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// Violation is a row or a figure that breaks an invariant.
type Violation struct {
	Check   string `json:"check"`   // the invariant, as a short name
	Subject string `json:"subject"` // the row: table and key, or the key in Redis
	Detail  string `json:"detail"`  // what stands there and what should
}

// Checked is what a check looked at and found.
type Checked struct {
	Check      string `json:"check"`
	Rows       int64  `json:"rows"` // rows, keys or events
	Violations int64  `json:"violations"`
}

// Summary is what an audit looked at.
type Summary struct {
	Users      int64     `json:"users"`
	Products   int64     `json:"products"`
	Orders     int64     `json:"orders"`
	Events     int64     `json:"events"`
	Violations int64     `json:"violations"`
	Checks     []Checked `json:"checks"`
}

// Progress is how far an audit has come with one of its steps.
type Progress struct {
	Step        string
	Done, Total int64 // rows, keys or checks; 0 of 0 where it cannot be told
}

// ErrNotAudited wraps why an audit could not look at everything.
var ErrNotAudited = errors.New("could not audit")

// auditSettings give a statement that goes over whole tables memory before it takes to the disk; a hash may take twice as
// much. The transaction is idle while Redis is looked at.
const auditSettings = "SET LOCAL work_mem = '64MB'; SET LOCAL idle_in_transaction_session_timeout = 0"

// audit is one on its way. The tables are read in one snapshot, so that a running writer changes nothing under it; Redis
// is read piece by piece, each piece together with the position of the events it reflects. What it remembers of what it
// has seen does not grow with the number of orders.
type audit struct {
	books      *Books
	redis      redis.UniversalClient
	keys       *engine.Keys
	report     func(Violation)
	progress   func(Progress)
	snapshot   pgx.Tx
	chunk      int  // rows or keys looked at together
	optimistic bool // Redis is read without transactions
	copy       bytes.Buffer
	patience   time.Duration // for the writer to pass a position
	followed   int64         // events that a comparison follows from the books to Redis at most
	sum        Summary
	checks     map[string]*Checked
	expected   counts
	layouts    layouts

	doors       []door
	users       idSet   // whose balances were compared
	products    idSet   // whose shares and records were compared
	open        idSet   // users whose cart, as far as the walk has come, holds something that no row shows
	minutesSeen []idSet // by partition: minutes of sales that were compared
}

// newAudit returns an audit that reads the tables by a transaction.
func (b *Books) newAudit(client redis.UniversalClient, snapshot pgx.Tx, report func(Violation), progress func(Progress)) *audit {
	a := &audit{
		books: b, redis: client, keys: b.engine.Keys(), progress: progress, snapshot: snapshot, chunk: auditChunk, patience: auditPatience, followed: followMax,
		checks: map[string]*Checked{}, users: idSet{}, products: idSet{}, open: idSet{},
	}
	a.doors = make([]door, a.keys.Partitions())
	for range a.keys.Partitions() {
		a.minutesSeen = append(a.minutesSeen, idSet{})
	}
	a.report = func(v Violation) {
		a.sum.Violations++
		a.looked(v.Check, 0).Violations++
		report(v)
	}
	return a
}

// Audit proves the books: the journal is dense and readable, the tables are what it says, money and stock add up, and
// Redis holds the same. It reports each violation, on a running shop as on a quiet one.
func (b *Books) Audit(ctx context.Context, client redis.UniversalClient, report func(Violation)) (Summary, error) {
	return b.WatchedAudit(ctx, client, report, func(Progress) {})
}

// WatchedAudit is Audit for someone who wants to be told how far it is. Both functions are called one at a time.
func (b *Books) WatchedAudit(ctx context.Context, client redis.UniversalClient, report func(Violation), progress func(Progress)) (Summary, error) {
	tx, err := b.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrNotAudited, err)
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // it only read
	a := b.newAudit(client, tx, report, progress)
	err = a.all(ctx)
	return a.summary(), err
}

func (a *audit) all(ctx context.Context) error {
	_, err := a.snapshot.Exec(ctx, auditSettings)
	if err == nil {
		a.layouts, err = readLayouts(ctx, a.snapshot)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotAudited, err)
	}
	steps := []struct {
		name string
		run  func(context.Context) error
	}{
		{"doors", a.lookAtDoors},
		{"journal", a.journals},
		{"tables", a.tables},
		{"balances", a.balances},
		{"products", a.stocks},
		{"transfers", a.transfers},
		{"catalogue", a.catalogue},
		{"unpaid orders", a.holds},
		{"carts", a.carts},
		{"top five", a.sales},
		{"keys of Redis", a.redisKeys},
	}
	for _, step := range steps {
		a.progress(Progress{Step: step.name})
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrNotAudited, step.name, err)
		}
	}
	return nil
}

func (a *audit) violated(check, subject, format string, args ...any) {
	a.report(Violation{Check: check, Subject: subject, Detail: fmt.Sprintf(format, args...)})
}

// looked notes that a check has looked at so many more rows.
func (a *audit) looked(check string, rows int64) *Checked {
	c := a.checks[check]
	if c == nil {
		c = &Checked{Check: check}
		a.checks[check] = c
	}
	c.Rows += rows
	return c
}

func (a *audit) summary() Summary {
	for _, name := range auditChecks {
		if c := a.checks[name]; c != nil {
			a.sum.Checks = append(a.sum.Checks, *c)
		}
	}
	return a.sum
}

// The checks, by the names that stand in violations and in the summary.
const (
	checkDoors      = "doors"
	checkEpochs     = "epochs"
	checkDense      = "dense events"
	checkReadable   = "readable events"
	checkDerived    = "every event is derived"
	checkCheckpoint = "checkpoint"
	checkStream     = "journal = stream"
	checkTables     = "tables follow the journal"
	checkNoEvent    = "rows without an event"
	checkShapes     = "shape of postings"
	checkChains     = "postings follow each other"
	checkStates     = "order states"
	checkTotals     = "order total = its lines"
	checkPostings   = "order = its postings"
	checkBalances   = "balance = postings"
	checkStocks     = "stock = postings"
	checkUnpaid     = "holds = unpaid orders"
	checkOversell   = "no oversell"
	checkTransfers  = "received = sent"
	checkMoney      = "money"
	checkHours      = "sales by hour = orders"
	checkCarts      = "carts"
	checkKeys       = "answers under keys"
	checkRBalances  = "balance in Redis = Postgres"
	checkRStocks    = "stock in Redis = Postgres"
	checkRTransfers = "transfers in Redis = Postgres"
	checkRCatalogue = "catalogue in Redis = Postgres"
	checkRHolds     = "holds in Redis = Postgres"
	checkROrders    = "orders in Redis"
	checkRCarts     = "carts in Redis = Postgres"
	checkTop        = "top five = Postgres"
	checkStray      = "keys in Redis have a row"
)

// auditChecks is the order of the summary.
var auditChecks = []string{
	checkDoors, checkEpochs, checkDense, checkReadable, checkDerived, checkCheckpoint, checkStream, checkTables, checkNoEvent,
	checkShapes, checkChains, checkStates, checkTotals, checkPostings, checkBalances, checkStocks, checkUnpaid, checkOversell,
	checkTransfers, checkMoney, checkHours, checkCarts, checkKeys, checkRBalances, checkRStocks, checkRTransfers, checkRCatalogue, checkRHolds, checkROrders,
	checkRCarts, checkTop, checkStray,
}

// idSet is a set of ids, which lie close together: about a bit each.
type idSet map[int64]uint64

func (s idSet) add(id int64) { s[id>>6] |= 1 << (id & 63) }

func (s idSet) has(id int64) bool { return s[id>>6]&(1<<(id&63)) != 0 }

func (s idSet) remove(id int64) {
	if s[id>>6] &^= 1 << (id & 63); s[id>>6] == 0 {
		delete(s, id>>6)
	}
}

func (s idSet) each(visit func(id int64)) {
	for word, bits := range s {
		for bit := range int64(64) {
			if bits&(1<<bit) != 0 {
				visit(word<<6 | bit)
			}
		}
	}
}

package persist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

// sampleEvery is the rhythm of a sampler; tests set it.
var sampleEvery = time.Second

const (
	samplePatience   = time.Second     // for the writer to pass a position
	sampleMax        = 5 * time.Second // one sample
	sampleFollowMax  = 50_000          // events between the books and Redis
	sampleEntries    = 4               // journal rows
	sampleRecent     = 10_000          // half of the runs begin within so many of the last events
	sampleViolations = 100             // of one sample
	violationsMax    = 1000            // remembered
)

// Sampler audits a running shop all the time, a small piece every second, by the checks of a whole audit. One process
// samples a partition. It reports only what it finds twice, with the door open all the while, and gives a piece up where
// Redis, Postgres or the writer lets it wait: a sample neither slows a sale nor alarms because of a fault that is dealt
// with elsewhere.
type Sampler struct {
	books   *Books
	redis   redis.UniversalClient
	metrics *samplerMetrics
	found   map[Violation]bool // without details

	conn    *pgxpool.Conn // holds the locks of the partitions that this process samples
	leads   []bool
	turn    int
	cursors map[string]*cursor
}

// NewSampler returns a sampler that reads by a client of the caller's.
func NewSampler(b *Books, client redis.UniversalClient) *Sampler {
	return &Sampler{
		books: b, redis: client, metrics: newSamplerMetrics(), found: map[Violation]bool{}, cursors: map[string]*cursor{},
		leads: make([]bool, b.engine.Keys().Partitions()),
	}
}

// Run samples until ctx ends.
func (s *Sampler) Run(ctx context.Context) {
	defer s.release()
	for every := sampleEvery; ; {
		if pause(ctx, every); ctx.Err() != nil {
			return
		}
		if err := s.sample(ctx); err != nil && ctx.Err() == nil {
			s.metrics.skipped.Inc()
			s.books.log.Debug("nothing audited just now", "reason", err)
			var lost *connError
			if errors.As(err, &lost) {
				s.release()
			}
		}
	}
}

// connError is a failure of the sampler's own connection.
type connError struct{ error }

func (e *connError) Unwrap() error { return e.error }

// release gives connection and locks back.
func (s *Sampler) release() {
	if s.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	if _, err := s.conn.Exec(ctx, "SELECT pg_advisory_unlock_all()"); err != nil {
		_ = s.conn.Conn().Close(ctx) // it is broken already, and the locks end with it
	}
	s.conn.Release()
	s.conn = nil
	clear(s.leads)
}

// lead tries to become the one that samples the partitions that nobody does, and reports whether there is any to sample.
func (s *Sampler) lead(ctx context.Context) (bool, error) {
	if s.conn == nil {
		conn, err := s.books.pool.Acquire(ctx)
		if err != nil {
			return false, err
		}
		s.conn = conn
	}
	var free []int
	leads := false
	for p, mine := range s.leads {
		if leads = leads || mine; !mine {
			free = append(free, p)
		}
	}
	if len(free) == 0 {
		return true, nil
	}
	rows, err := s.conn.Query(ctx, "SELECT p, pg_try_advisory_lock($1, p) FROM unnest($2::int[]) AS p", lockSampler, free)
	if err != nil {
		return false, &connError{err}
	}
	var p int
	var mine bool
	_, err = pgx.ForEachRow(rows, []any{&p, &mine}, func() error {
		s.leads[p] = mine
		leads = leads || mine
		return nil
	})
	if err != nil {
		return false, &connError{err}
	}
	return leads, nil
}

// lockSampler is the class of the locks; see those of books.go.
const lockSampler = 0x5354_0010

// sample looks at the next piece.
func (s *Sampler) sample(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, sampleMax)
	defer cancel()
	if leads, err := s.lead(ctx); err != nil || !leads {
		return err
	}
	piece := pieces[s.turn%len(pieces)]
	p := s.partition(s.turn / len(pieces))
	s.turn++
	look, err := piece.choose(s, ctx, p)
	if err != nil || look == nil {
		return err
	}
	first, err := s.look(ctx, look)
	if err == nil {
		s.metrics.samples[piece.name].Inc()
	}
	if err != nil || len(first) == 0 {
		return err
	}
	return s.confirm(ctx, look, first)
}

// partition returns the n-th of those that this process samples, over and over.
func (s *Sampler) partition(n int) int {
	var mine []int
	for p, leads := range s.leads {
		if leads {
			mine = append(mine, p)
		}
	}
	return mine[n%len(mine)]
}

// look runs the checks of a piece, and returns what they found.
func (s *Sampler) look(ctx context.Context, look sampled) (found map[Violation]string, err error) {
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, &connError{err}
	}
	defer func() {
		if rolled := tx.Rollback(context.WithoutCancel(ctx)); rolled != nil {
			err = &connError{errors.Join(err, rolled)}
		}
	}()
	if _, err := tx.Exec(ctx, walkPlans); err != nil {
		return nil, &connError{err}
	}
	found = map[Violation]string{}
	a := s.books.newAudit(s.redis, tx, func(v Violation) {
		if len(found) < sampleViolations {
			found[Violation{Check: v.Check, Subject: v.Subject}] = v.Detail
		}
	}, func(Progress) {})
	if a.layouts, err = readLayouts(ctx, tx); err != nil {
		return nil, &connError{err}
	}
	a.chunk, a.optimistic, a.patience, a.followed = sampleChunk, true, samplePatience, sampleFollowMax
	books, err := readCheckpoints(ctx, tx)
	if err != nil {
		return nil, &connError{err}
	}
	for p := range a.doors {
		a.doors[p] = door{skip: !s.leads[p] || p >= len(books) || books[p].fence == 0}
		if !a.doors[p].skip {
			a.doors[p].epoch, a.doors[p].seen = books[p].fence, books[p].events
		}
	}
	return found, look(ctx, a)
}

// confirm looks once more: what it finds again, in a Redis that did not turn meanwhile, is a violation.
func (s *Sampler) confirm(ctx context.Context, look sampled, first map[Violation]string) error {
	before, err := s.standing(ctx)
	if err != nil {
		return err
	}
	second, err := s.look(ctx, look)
	if err != nil {
		return err
	}
	after, err := s.standing(ctx)
	if err != nil {
		return err
	}
	for p := range before {
		if before[p].Run != after[p].Run || before[p].Epoch != after[p].Epoch {
			return errTurned
		}
	}
	for v, detail := range second {
		if _, again := first[v]; again {
			s.note(v, detail)
		}
	}
	return nil
}

// standing reads the doors that this process samples, which must all be open.
func (s *Sampler) standing(ctx context.Context) (map[int]engine.DoorView, error) {
	doors := map[int]engine.DoorView{}
	for p, mine := range s.leads {
		if !mine {
			continue
		}
		v, err := s.books.engine.Look(ctx, p)
		if err != nil {
			return nil, err
		}
		if !v.Standing {
			return nil, fmt.Errorf("the door of partition %d is shut", p)
		}
		if s.books.engine.LeftBehind(p) {
			return nil, fmt.Errorf("partition %d is fenced: another Redis sells", p)
		}
		doors[p] = v
	}
	return doors, nil
}

// note logs and counts a violation that is new.
func (s *Sampler) note(v Violation, detail string) {
	if s.found[v] || len(s.found) >= violationsMax {
		return
	}
	s.found[v] = true
	s.metrics.violations.Set(float64(len(s.found)))
	s.books.log.Error("the books do not hold: run `stampede audit`",
		slog.String("check", v.Check), slog.String("subject", v.Subject), slog.String("detail", detail))
}

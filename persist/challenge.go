package persist

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"stampede/engine"
)

// wentAstray refuses a Redis that holds events which the books do not have under their seqs, as an old master does that was left
// behind by a failover, or a copy: to replay the journal would mix them with those of the books.
func (r *repair) wentAstray(ctx context.Context, tx pgx.Tx, found engine.DoorView, at checkpoint) error {
	var end *int64
	err := tx.QueryRow(ctx, "SELECT last_seq FROM epochs WHERE partition = $1 AND epoch = $2", r.partition, found.Epoch).Scan(&end)
	switch {
	case err != nil && !errors.Is(err, pgx.ErrNoRows):
		return unavailable("reading the end of an epoch", err)
	case end != nil && found.Seq > *end && found.Compare(at.Position) < 0:
		return errAstray(r.partition, fmt.Sprintf("epoch %d, seq %d to %d", found.Epoch, *end+1, found.Seq))
	}
	// Two Redises that went on from the same event differ in all that came after: ids and times do. So one entry shows it.
	last := at.Position
	if found.Compare(last) < 0 {
		last = found.Position
	}
	if last.Seq == 0 {
		return nil
	}
	held, err := r.books.engine.EntryAt(ctx, r.partition, last)
	if errors.Is(err, engine.ErrCorrupt) {
		return nil // what cannot be read proves nothing, and the journal has the event
	}
	if err != nil || held == nil {
		return err // trimmed, or replayed from the journal
	}
	written, err := journal(ctx, tx, r.partition, engine.Position{Epoch: last.Epoch, Seq: last.Seq - 1}, 1)
	if err != nil {
		return unavailable("comparing with the journal", err)
	}
	if len(written) == 0 || written[0].Last.Epoch != last.Epoch || written[0].First > last.Seq || written[0].Equal(held) {
		return nil
	}
	return errAstray(r.partition, fmt.Sprintf("epoch %d, up to seq %d", last.Epoch, found.Seq))
}

// errAstray names a way out that deletes nothing: what this Redis holds may be the only copy of acknowledged events.
func errAstray(partition int, events string) error {
	return fmt.Errorf("%w: partition %d: it holds events that the books do not have (%s), since another Redis sold in its place: correct the "+
		"Redis URL; to sell from this server, keep a copy of its data directory first, then make it a replica of the Redis that sells, or "+
		"start it with an empty data directory and run `stampede restore`", errStray, partition, events)
}

var errStray = fmt.Errorf("%w: %w", ErrRefused, engine.ErrStray)

var errOtherSells = fmt.Errorf("%w at this moment: let the Redis URL name that one, or make this one its replica; or stop those processes, if this is "+
	"the one that should sell", errStray)

const (
	oldAnswerMax   = 2 * time.Second // for an answer of the release before, which looks at the books every half second
	answerMax      = 5 * time.Second // for an answer of a process that lives
	challengePause = 100 * time.Millisecond
	answerPause    = 10 * time.Millisecond // between looks for answers
)

// challengeChannel wakes processes that may have to answer.
const challengeChannel = "stampede_challenge"

// mayOpen makes sure that no other Redis sells. What is at hand may be a copy of it, an old dump, or an old master that was
// started again while its replica sells in its place, and to open it would end what the other processes do. Those are asked,
// through the books, all that live: a single one is not waited for.
//
// A replica that was promoted is not asked for: the failover was decided elsewhere, and each order that the old master
// still takes is one more to lose.
func (r *repair) mayOpen(ctx context.Context, found engine.DoorView) error {
	at, err := readCheckpoint(ctx, r.conn, r.partition, "")
	switch {
	case err != nil:
		return err
	case at.fence == 0, found.Promoted && found.Epoch >= at.fence:
		return nil
	case !r.copied && found.Open && found.Run == found.IsRun && found.Epoch == at.fence: // a first replica attached
		return nil
	}
	// A repair was at work on this server since it started, and died: it has waited for the release before.
	again := found.Renewed == found.IsRun && (!found.Open || found.Run != found.IsRun)
	a := &question{repair: r, token: r.token + " " + found.IsRun, old: !again}
	genuine := r.books.engine.SoldIn(r.partition) == at.fence && !r.copied
	if !genuine {
		if a.grace, err = r.grace(ctx, found); err != nil {
			return err
		}
	}
	err = a.ask(ctx)
	refused := &r.books.attendance.refused[r.partition]
	if errors.Is(err, errOtherSells) {
		now := time.Now()
		refused.Store(&now)
	}
	if last := refused.Load(); err == nil && !genuine && last != nil && time.Since(*last) < holdOff {
		return fmt.Errorf("%w: none of those answers any more; this one is opened if they do not come back within %v", errStray, holdOff)
	}
	return err
}

// holdOff is how long a process whose Redis was refused leaves those that sold from another one to start again. Tests set it.
var holdOff = 30 * time.Second

// startGrace is how long processes that start together may be apart.
const startGrace = 2 * time.Second

// grace is how long to wait for processes that start together with this one, where the books have moved on from this Redis. It may have
// lost its last writes, but it may as well be a copy of one that sells.
func (r *repair) grace(ctx context.Context, found engine.DoorView) (time.Duration, error) {
	var token string
	err := r.conn.QueryRow(ctx, "SELECT pulse FROM pulses WHERE partition = $1", r.partition).Scan(&token)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return 0, unavailable("reading the pulse", err)
	}
	if r.books.attendance.node.Load() >= 0 && !r.copied && found.Outpaced(token) {
		return startGrace, nil
	}
	return 0, nil
}

// question is put to all processes that live.
type question struct {
	*repair
	token string // challenge: with the run id of the server that would be opened, for those that sold from it
	old   bool   // processes of the release before are to be waited for
	grace time.Duration
}

// selectUnanswered reads whether the question is still open, whether processes of the release before have leases, and which living
// processes have not answered yet.
const selectUnanswered = `SELECT coalesce(c.challenge = $2, false), EXISTS (SELECT FROM nodes WHERE leased_until > now() AND answers IS DISTINCT FROM holder),
	coalesce((SELECT string_agg(coalesce(n.holder, '?'), ', ') FROM pg_locks l LEFT JOIN nodes n ON n.node = l.objid::bigint
		WHERE l.locktype = 'advisory' AND l.classid = $3::bigint::oid AND l.objsubid = 2 AND l.granted AND l.objid::bigint <> $4
		AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
		AND NOT EXISTS (SELECT FROM challenge_answers a WHERE a.partition = $1 AND a.token = $2 AND a.node = l.objid::bigint)), '')
	FROM checkpoints c WHERE c.partition = $1`

func (a *question) look(ctx context.Context) (standing, old bool, silent string, err error) {
	err = a.conn.QueryRow(ctx, selectUnanswered, a.partition, a.token, lockAlive, a.books.attendance.node.Load()).Scan(&standing, &old, &silent)
	if err != nil {
		err = unavailable("asking other processes", err)
	}
	return standing, old && a.old, silent, err
}

func (a *question) ask(ctx context.Context) error {
	_, old, silent, err := a.look(ctx)
	if err != nil || silent == "" && !old && a.grace == 0 {
		return err
	}
	for _, sql := range []string{
		"DELETE FROM challenge_answers WHERE partition = $1 AND token <> $2",
		"UPDATE checkpoints SET challenge = $2 WHERE partition = $1",
	} {
		if _, err := a.conn.Exec(ctx, sql, a.partition, a.token); err != nil {
			return unavailable("asking other processes", err)
		}
	}
	if _, err := a.conn.Exec(ctx, "SELECT pg_notify($1, '')", challengeChannel); err != nil {
		return unavailable("asking other processes", err)
	}
	for asked := time.Now(); ; pause(ctx, answerPause) {
		standing, old, silent, err := a.look(ctx)
		switch waited := time.Since(asked); {
		case err != nil:
			return err
		case !standing:
			return errOtherSells
		case silent == "" && waited >= a.grace && (!old || waited > oldAnswerMax):
			return a.withdraw(ctx)
		case waited > answerMax:
			if err := a.withdraw(ctx); err != nil {
				return err
			}
			return fmt.Errorf("%w: not opened, since %s may sell from another Redis and does not answer: see whether it hangs or cannot reach its "+
				"Redis, and stop it if so", engine.ErrUnavailable, silent)
		}
	}
}

// withdraw takes the question back, unless a process has answered it at last.
func (a *question) withdraw(ctx context.Context) error {
	tag, err := a.conn.Exec(ctx, "UPDATE checkpoints SET challenge = NULL WHERE partition = $1 AND challenge = $2", a.partition, a.token)
	if err == nil && tag.RowsAffected() == 0 {
		return errOtherSells
	}
	if err == nil {
		_, err = a.conn.Exec(ctx, "DELETE FROM challenge_answers WHERE partition = $1", a.partition)
	}
	if err != nil {
		return unavailable("asking other processes", err)
	}
	return nil
}

// answer is what a process says to a repair that asks who sells.
type answer int

const (
	answerLater answer = iota // not known yet
	answerSells               // this process, from its own Redis
	answerNot
)

// unreachableMax is how long a Redis may be out of reach before the process that sold from it counts as one that does not sell.
const unreachableMax = 3 * time.Second

// answerTo finds the answer to a challenge, from what a beat found. Where Redis restarts, the process that sold from it says so:
// else a copy that asks just then would take the sale over.
func (b *Books) answerTo(challenge string, n int, s *step) answer {
	e := b.engine
	_, asking, _ := strings.Cut(challenge, " ")
	sold := e.SoldIn(n) == s.fence
	switch {
	case s.err == nil && s.Copied, s.err == nil && e.Copied(n, s.fence) && !s.InStep:
		return answerNot
	case s.err == nil && s.Standing && s.Epoch == s.fence:
		if s.InStep || s.Silent {
			return answerSells
		}
		return answerLater
	case s.err == nil && sold && s.Epoch == s.fence && s.Run != asking && !e.LeftBehind(n):
		return answerSells
	case s.err == nil, !sold:
		return answerNot
	case engine.IsLoading(s.err):
		return answerSells
	case time.Since(b.attendance.heard[n]) < unreachableMax:
		return answerLater
	}
	return answerNot
}

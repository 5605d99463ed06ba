package persist

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"stampede/engine"
)

// attendance is how this process shows that it lives: by a session of its own, which holds an advisory lock named by its node number
// and ends soon after the process dies or is frozen. The beats go through the same session. So a repair knows whom to wait for.
type attendance struct {
	node  atomic.Int64 // -1: this process sells nothing
	mu    sync.Mutex   // beats
	conn  *pgxpool.Conn
	shown int64       // the node whose lock conn holds
	heard []time.Time // when each partition's Redis answered last

	refused []atomic.Pointer[time.Time] // when a repair of each was refused last, since another process sells
}

const (
	beatRedisMax = time.Second     // for Redis: a server that hangs must not keep the partitions of others
	attendMax    = 2 * time.Second // for a ghost of this node number to end
	// holdAttendance ends the session of a process that is frozen. A beat comes every half second.
	holdAttendance = "SET idle_session_timeout = '3s'; SET idle_in_transaction_session_timeout = '3s'; SET statement_timeout = '5s'"
)

// attend returns the session, and begins it if there is none.
func (b *Books) attend(ctx context.Context) (*pgxpool.Conn, error) {
	a := &b.attendance
	node := a.node.Load()
	if a.conn != nil && (a.shown != node || a.conn.Conn().IsClosed()) {
		b.leave()
	}
	if a.conn != nil {
		return a.conn, nil
	}
	conn, err := b.acquire(ctx)
	if err != nil {
		return nil, unavailable("connecting", err)
	}
	a.conn, a.shown = conn, node
	if node < 0 {
		return conn, nil
	}
	if _, err := conn.Exec(ctx, holdAttendance); err != nil {
		b.leave()
		return nil, unavailable("showing that this process lives", err)
	}
	for begun := time.Now(); ; pause(ctx, doorPause) {
		var mine bool
		err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1, $2)", lockAlive, node).Scan(&mine)
		if err == nil && !mine && time.Since(begun) < attendMax {
			continue
		}
		if err == nil && !mine {
			err = errors.New("another session has the lock of this node number")
		}
		if err != nil {
			b.leave()
			return nil, unavailable("showing that this process lives", err)
		}
		return conn, nil
	}
}

// leave ends the session.
func (b *Books) leave() {
	a := &b.attendance
	if a.conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
	defer cancel()
	_ = a.conn.Conn().Close(ctx) // and with it the lock
	a.conn.Release()
	a.conn = nil
}

// Attend has the engine answer repairs at once, until ctx ends: those announce their questions.
func (b *Books) Attend(ctx context.Context) {
	for ctx.Err() == nil {
		if err := b.listen(ctx); err != nil && ctx.Err() == nil {
			b.log.Debug("questions of repairs are seen by the next beat only", "error", err)
		}
		pause(ctx, syncEvery)
	}
}

func (b *Books) listen(ctx context.Context) error {
	conn, err := b.acquire(ctx)
	if err != nil {
		return unavailable("connecting", err)
	}
	defer conn.Release()
	defer func() { // it listens: the pool opens another
		ctx, cancel := context.WithTimeout(context.Background(), unlockTimeout)
		defer cancel()
		_ = conn.Conn().Close(ctx)
	}()
	if _, err := conn.Exec(ctx, "LISTEN "+challengeChannel); err != nil {
		return unavailable("listening", err)
	}
	for {
		b.engine.Attend()
		if err := awaitQuestion(ctx, conn); err != nil {
			return unavailable("listening", err)
		}
	}
}

// listenMax is how long a session listens before it is asked whether it still lives. It is well within silenceMax, after which a
// connection that says nothing is given up.
const listenMax = silenceMax / 2

// awaitQuestion returns when a repair asks who sells, or after a while.
func awaitQuestion(ctx context.Context, conn *pgxpool.Conn) error {
	while, cancel := context.WithTimeout(ctx, listenMax)
	defer cancel()
	err := conn.Conn().PgConn().WaitForNotification(while)
	if err == nil || while.Err() == nil || ctx.Err() != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(ctx, connectMax)
	defer cancel()
	return conn.Ping(ctx)
}

// step is what a beat knows of a partition.
type step struct {
	engine.PulseView
	engine.Beat
	fence     int64
	known     *string // token of the books; nil: no row
	challenge *string
	err       error // of Redis
}

// in is the token of the books as it counts in the epoch of Redis.
func (s *step) in() string {
	if s.known == nil {
		return ""
	}
	return engine.PulseOf(*s.known, s.Epoch)
}

const selectPulses = `SELECT c.fence, c.challenge, p.pulse FROM checkpoints c LEFT JOIN pulses p USING (partition)
	WHERE c.partition < $1 ORDER BY c.partition`

// Beat reads the epochs in which the partitions sell, moves the pulse of those that are open here, finds out whether Redis is a copy,
// and answers repairs that ask who sells.
//
// The next token is in Redis before the books take it, so the books always hold the pulse or the next token of the Redis that
// sells. Tokens never come back. So if the books hold neither, before the look at Redis and after it the same, then this is not it.
func (b *Books) Beat(ctx context.Context) ([]engine.Beat, error) {
	a := &b.attendance
	for !a.mu.TryLock() {
		if pause(ctx, doorPause); ctx.Err() != nil {
			return nil, unavailable("waiting for another beat", ctx.Err())
		}
	}
	defer a.mu.Unlock()
	conn, err := b.attend(ctx)
	if err != nil {
		return nil, err
	}
	steps, err := b.beat(ctx, conn)
	if err != nil {
		b.leave()
		return nil, err
	}
	beats := make([]engine.Beat, len(steps))
	for n := range steps {
		beats[n] = steps[n].Beat
	}
	return beats, nil
}

func (b *Books) beat(ctx context.Context, conn *pgxpool.Conn) ([]step, error) {
	steps, err := b.pulses(ctx, conn)
	if err != nil {
		return nil, err
	}
	b.movePulses(ctx, steps)
	if err := b.takePulses(ctx, conn, steps); err != nil {
		return nil, err
	}
	if err := b.confirmCopies(ctx, conn, steps); err != nil {
		return nil, err
	}
	return steps, b.answer(ctx, conn, steps)
}

func (b *Books) pulses(ctx context.Context, conn *pgxpool.Conn) ([]step, error) {
	rows, _ := conn.Query(ctx, selectPulses, b.engine.Keys().Partitions()) // CollectRows returns the error
	steps, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s step, err error) {
		err = row.Scan(&s.fence, &s.challenge, &s.known)
		s.Fence = s.fence
		return s, err
	})
	if err != nil {
		return nil, unavailable("reading the fences", err)
	}
	return steps, nil
}

// movePulses moves them in Redis.
func (b *Books) movePulses(ctx context.Context, steps []step) {
	ctx, cancel := context.WithTimeout(ctx, beatRedisMax)
	defer cancel()
	a := &b.attendance
	_ = b.engine.Each(func(n int) error {
		if n >= len(steps) {
			return nil
		}
		s, known := &steps[n], ""
		if s.known != nil {
			known = *s.known
		}
		s.PulseView, s.err = b.engine.MovePulse(ctx, n, known)
		if s.err == nil {
			a.heard[n] = time.Now()
			s.InStep = s.selling() && s.Pulse == s.in()
		}
		return nil
	})
}

// selling reports whether Redis is open in the epoch of the books, and its pulse known.
func (s *step) selling() bool {
	return s.err == nil && s.Standing && !s.Silent && s.Epoch == s.fence
}

// moveTokens moves tokens from where the beat found them. Rows are locked in their order, which processes meet on.
const moveTokens = `WITH n AS (SELECT * FROM unnest($1::smallint[], $2::text[], $3::text[]) AS n(partition, was, next)),
	locked AS MATERIALIZED (SELECT p.partition FROM pulses p JOIN n USING (partition) ORDER BY p.partition FOR NO KEY UPDATE OF p)
	UPDATE pulses p SET pulse = n.next FROM n, locked WHERE p.partition = n.partition AND p.partition = locked.partition AND p.pulse = n.was
	RETURNING p.partition`

// takePulses moves the tokens of the books to those that Redis has noted.
func (b *Books) takePulses(ctx context.Context, conn *pgxpool.Conn, steps []step) error {
	var fresh, partitions []int16
	var was, next []string
	for n := range steps {
		s := &steps[n]
		if !s.InStep || s.Next == "" {
			continue
		}
		s.Agreed = engine.PulseSeq(s.Pulse)
		token := ""
		if s.known == nil {
			fresh = append(fresh, int16(n)) //nolint:gosec // at most PartitionsMax
		} else {
			token = *s.known
		}
		partitions, was, next = append(partitions, int16(n)), append(was, token), append(next, s.Next) //nolint:gosec // ditto
	}
	if len(partitions) == 0 {
		return nil
	}
	if len(fresh) > 0 {
		_, err := conn.Exec(ctx, "INSERT INTO pulses SELECT unnest($1::smallint[]), '' ORDER BY 1 ON CONFLICT DO NOTHING", fresh)
		if err != nil {
			return unavailable("beginning the pulses", err)
		}
	}
	rows, _ := conn.Query(ctx, moveTokens, partitions, was, next) // CollectRows returns the error
	moved, err := pgx.CollectRows(rows, pgx.RowTo[int16])
	if err != nil {
		return unavailable("moving the pulses", err)
	}
	for _, n := range moved {
		steps[n].Agreed = engine.PulseSeq(steps[n].Next)
	}
	if len(moved) == len(partitions) {
		return nil
	}
	// Another process was faster: one at this Redis, which has brought the same token, or one at a copy.
	now, err := b.pulses(ctx, conn)
	if err != nil {
		return err
	}
	for _, n := range partitions {
		if !slices.Contains(moved, n) && int(n) < len(now) {
			steps[n].InStep = now[n].known != nil && *now[n].known == steps[n].Next
		}
	}
	return nil
}

// confirmCopies marks the partitions whose Redis is a copy for certain.
func (b *Books) confirmCopies(ctx context.Context, conn *pgxpool.Conn, steps []step) error {
	suspected := func(s step) bool { return s.selling() && !s.InStep }
	if !slices.ContainsFunc(steps, suspected) {
		return nil
	}
	after, err := b.pulses(ctx, conn)
	if err != nil {
		return err
	}
	for n := range steps[:min(len(steps), len(after))] {
		s, now := &steps[n], &after[n]
		if !suspected(*s) {
			continue
		}
		same := now.fence == s.fence && (now.known == nil) == (s.known == nil) && (now.known == nil || *now.known == *s.known)
		if s.Copied = same; same && !b.engine.Copied(n, s.fence) {
			b.log.Error("this Redis is a copy of the one that sells from these books: it is fenced; correct the Redis URL",
				"partition", n, "epoch", s.fence, "pulse", s.Pulse, "pulse_of_the_books", s.in())
		}
	}
	return nil
}

// insertAnswer leaves no answer to a question that was withdrawn, as far as it can see; the next question deletes the rest.
const insertAnswer = `INSERT INTO challenge_answers (partition, token, node)
	SELECT partition, challenge, $3::smallint FROM checkpoints WHERE partition = $1 AND challenge = $2 ON CONFLICT DO NOTHING`

// answer answers the repairs that ask.
func (b *Books) answer(ctx context.Context, conn *pgxpool.Conn, steps []step) error {
	for n := range steps {
		s := &steps[n]
		if s.challenge == nil {
			continue
		}
		sql, args := "", []any{n, *s.challenge}
		switch b.answerTo(*s.challenge, n, s) {
		case answerSells:
			sql, args = "UPDATE checkpoints SET challenge = NULL WHERE partition = $1 AND challenge = $2 AND fence = $3", append(args, s.fence)
		case answerNot:
			sql, args = insertAnswer, append(args, b.attendance.shown)
		case answerLater:
			continue
		}
		if _, err := conn.Exec(ctx, sql, args...); err != nil {
			return unavailable("answering a repair", err)
		}
	}
	return nil
}

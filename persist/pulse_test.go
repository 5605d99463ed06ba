package persist

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

// fixture is a Redis that sells, processes at it, and perhaps a clone with processes of its own. A database of Redis plays a server:
// all databases have the node and run id in common, as a machine and its clone do.
type fixture struct {
	t      *testing.T
	random *rand.Rand
	url    string
	pool   *pgxpool.Pool
	redis  [2]redis.UniversalClient
	at     [2][]*beater
	epoch  int64
	cloned bool
	meta   string
}

// beater is a process that may stop between any two steps of a beat, and go on much later or never.
type beater struct {
	*Books
	conn  *pgxpool.Conn
	next  int // step of its beat
	steps []step
	found bool // that its Redis is a copy
}

const beatSteps = 4

// advance takes the next step of the process' beat.
func (w *fixture) advance(b *beater) {
	w.t.Helper()
	ctx, err := w.t.Context(), error(nil)
	switch b.next {
	case 0:
		b.steps, err = b.pulses(ctx, b.conn)
	case 1:
		b.movePulses(ctx, b.steps)
		err = b.steps[0].err
	case 2:
		err = b.takePulses(ctx, b.conn, b.steps)
	case 3:
		err = b.confirmCopies(ctx, b.conn, b.steps)
		b.found = b.found || b.steps[0].Copied
	}
	if err != nil {
		w.t.Fatal(err)
	}
	b.next = (b.next + 1) % beatSteps
}

func (w *fixture) process(at int) *beater {
	w.t.Helper()
	client, err := engine.Connect(engine.Redis{URL: fmt.Sprintf("%s/%d", w.url, at)}, 2, 5*time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Redis: client, Partitions: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	conn, err := w.pool.Acquire(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	b := &beater{Books: &Books{pool: w.pool, log: slog.New(slog.DiscardHandler)}, conn: conn}
	b.Attach(e)
	w.t.Cleanup(func() {
		conn.Release()
		_ = e.Close()
	})
	return b
}

// raise begins an epoch, as any release does: the fields of the pulse stay as they are.
func (w *fixture) raise(at int) {
	w.t.Helper()
	w.epoch++
	if _, err := w.pool.Exec(w.t.Context(), "UPDATE checkpoints SET fence = $1", w.epoch); err != nil {
		w.t.Fatal(err)
	}
	w.set(at, "epoch", w.epoch, "seq", 0)
}

func (w *fixture) set(at int, fields ...any) {
	w.t.Helper()
	if err := w.redis[at].HSet(w.t.Context(), w.meta, fields...).Err(); err != nil {
		w.t.Fatal(err)
	}
}

// clone copies the Redis to the second database as it is at this instant.
func (w *fixture) clone() {
	w.t.Helper()
	ctx := w.t.Context()
	all, err := w.redis[0].HGetAll(ctx, w.meta).Result()
	if err == nil {
		err = w.redis[1].Del(ctx, w.meta).Err()
	}
	if err == nil {
		err = w.redis[1].HSet(ctx, w.meta, all).Err()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.cloned = true
}

// inLineage reports whether Postgres holds a token of a Redis.
func (w *fixture) inLineage(at int) bool {
	w.t.Helper()
	var token string
	if err := w.pool.QueryRow(w.t.Context(), "SELECT coalesce((SELECT pulse FROM pulses), '')").Scan(&token); err != nil {
		w.t.Fatal(err)
	}
	held, err := w.redis[at].HMGet(w.t.Context(), w.meta, "pulse", "pulse_next").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	pulse, _ := held[0].(string)
	next, _ := held[1].(string)
	token, pulse, next = engine.PulseOf(token, w.epoch), engine.PulseOf(pulse, w.epoch), engine.PulseOf(next, w.epoch)
	return token == pulse || (next != "" && token == next)
}

// Processes beat in any order, each of them stopping between any two steps, and some for good. A single Redis is never taken for a
// copy; of a Redis and its clone one at most stays in step, and processes at the other find out.
func TestPulse_InAnyOrderOfSteps(t *testing.T) {
	t.Parallel()
	servers := stacktest.Start(t, stack.Options{})
	books, err := Open(t.Context(), servers.PostgresURL(), 1, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(books.Close)
	if err := books.found(t.Context(), engine.Deployment{ID: "model", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	w := &fixture{t: t, random: rand.New(rand.NewPCG(seed, 0)), url: servers.RedisURL(), pool: books.pool}
	w.url = w.url[:len(w.url)-len("/0")]
	for n := range w.redis {
		if w.redis[n], err = engine.Connect(engine.Redis{URL: fmt.Sprintf("%s/%d", w.url, n)}, 1, 5*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.redis[n].Close() })
		for range 3 {
			w.at[n] = append(w.at[n], w.process(n))
		}
	}
	w.meta = w.at[0][0].engine.Keys().Meta(0)
	info := w.redis[0].InfoMap(t.Context(), "replication").Item("Replication", "master_replid")
	w.set(0, "open", 1, "node", info)
	for range 40 {
		w.round()
	}
}

// round is an epoch: a while alone, and a while beside a clone.
func (w *fixture) round() {
	w.t.Helper()
	w.raise(0)
	w.cloned = false
	for n := range w.at {
		for _, b := range w.at[n] {
			b.found = false
			if w.random.IntN(2) == 0 {
				b.next = 0 // it died, and another has its place
			} // else it is frozen in the middle of a beat of an earlier epoch
		}
	}
	for range w.random.IntN(40) {
		w.advance(w.at[0][w.random.IntN(3)])
		w.set(0, "seq", w.random.IntN(1000))
		if !w.inLineage(0) {
			w.t.Fatalf("epoch %d: Postgres holds no token of the only Redis", w.epoch)
		}
	}
	for _, b := range w.at[0] {
		if b.found {
			w.t.Fatalf("epoch %d: the only Redis is taken for a copy", w.epoch)
		}
	}
	w.clone()
	for range 20 + w.random.IntN(60) {
		n := w.random.IntN(2)
		w.advance(w.at[n][w.random.IntN(3)])
		if !w.inLineage(0) && !w.inLineage(1) {
			w.t.Fatalf("epoch %d: Postgres holds a token of neither Redis", w.epoch)
		}
	}
	// Left alone, each with two whole beats after the one that it is in the middle of, both sides settle.
	for range 3 {
		for n := range w.at {
			for _, b := range w.at[n] {
				for w.advance(b); b.next != 0; {
					w.advance(b)
				}
			}
		}
	}
	for n := range w.at {
		copies := 0
		for _, b := range w.at[n] {
			if b.found {
				copies++
			}
		}
		if want := map[bool]int{false: 3}[w.inLineage(n)]; copies != want {
			w.t.Fatalf("epoch %d: Redis %d is in step: %t, and %d of its 3 processes take it for a copy", w.epoch, n, w.inLineage(n), copies)
		}
	}
	if w.inLineage(0) == w.inLineage(1) {
		w.t.Fatalf("epoch %d: the two are in step: %t and %t", w.epoch, w.inLineage(0), w.inLineage(1))
	}
}

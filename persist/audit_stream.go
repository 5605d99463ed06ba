package persist

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"stampede/engine"
)

const streamChunk = 250 // entries looked at together

// stream walks over what the stream still holds: dense, and up to the checkpoint the same as the journal.
func (a *audit) stream(ctx context.Context, p int) error {
	if a.doors[p].skip {
		return nil
	}
	to, err := readCheckpoint(ctx, a.snapshot, p, "")
	if err != nil {
		return err
	}
	var before *engine.Entry
	for from := "-"; ; {
		messages, err := a.redis.XRangeN(ctx, a.keys.Events(p), from, "+", streamChunk).Result()
		if err != nil {
			return fmt.Errorf("reading the stream: %w", err)
		}
		if len(messages) == 0 {
			return nil
		}
		if before, err = a.streamEntries(ctx, p, to, before, messages); err != nil {
			return err
		}
		from = "(" + messages[len(messages)-1].ID
	}
}

func (a *audit) streamEntries(ctx context.Context, p int, to checkpoint, before *engine.Entry, messages []redis.XMessage) (*engine.Entry, error) {
	entries := make([]engine.Entry, 0, len(messages))
	for _, m := range messages {
		subject := a.keys.Events(p) + " " + m.ID
		e, err := engine.ParseEntry(m.ID, m.Values)
		if err != nil {
			a.violated(checkReadable, subject, "%v", err)
			continue
		}
		if before != nil && before.Last.Epoch == e.Last.Epoch && e.First != before.Last.Seq+1 {
			// The writer may have trimmed the stream up to here since the entry before was read.
			left, err := a.redis.XRange(ctx, a.keys.Events(p), before.Last.String(), before.Last.String()).Result()
			if err != nil {
				return nil, fmt.Errorf("reading the stream: %w", err)
			}
			if len(left) > 0 {
				a.violated(checkDense, subject, "begins with seq %d, %d expected", e.First, before.Last.Seq+1)
			}
		}
		before = &e
		if e.Last.Compare(to.Position) <= 0 {
			entries = append(entries, e)
		}
	}
	a.looked(checkStream, int64(len(entries)))
	return before, a.inJournal(ctx, p, entries)
}

// inJournal makes sure that the journal holds the same entries. Between two of them it may hold more: what a repair replayed
// went into the keys, not into the stream.
func (a *audit) inJournal(ctx context.Context, p int, entries []engine.Entry) error {
	for len(entries) > 0 {
		from := entries[0].Last
		from.Seq--
		found, err := journal(ctx, a.snapshot, p, from, len(entries))
		if err != nil {
			return err
		}
		same := 0
		for same < len(found) && found[same].Equal(&entries[same]) {
			same++
		}
		if same == 0 {
			a.violated(checkStream, a.keys.Events(p)+" "+entries[0].Last.String(), "the journal holds no row or another one for this entry")
			same = 1
		}
		entries = entries[same:]
	}
	return nil
}

// countersChunk is how many entries may lie between books and Redis for the counters to be compared.
const countersChunk = 1000

// counters compares what meta counts with the books: the events of earlier epochs, and those of this one and the bytes of
// all, by what the stream holds behind the checkpoint.
func (a *audit) counters(ctx context.Context, p int) error {
	if a.doors[p].skip {
		return nil
	}
	books, err := readCheckpoint(ctx, a.books.pool, p, "")
	if err != nil {
		return err
	}
	var behind *redis.XMessageSliceCmd
	at, err := a.at(ctx, p, func(pipe redis.Pipeliner) {
		behind = pipe.XRangeN(ctx, a.keys.Events(p), "("+books.String(), "+", countersChunk)
	})
	if err != nil {
		return err
	}
	a.looked(checkDoors, 1)
	// Later, so that it cannot be behind what the writer has noted in Redis.
	after, err := readCheckpoint(ctx, a.books.pool, p, "")
	if err != nil {
		return err
	}
	if at.done > after.bytes {
		a.violated(checkDoors, a.keys.Meta(p), "says that the books hold %d bytes of events, they hold %d", at.done, after.bytes)
	}
	var base int64
	err = a.books.pool.QueryRow(ctx, "SELECT coalesce(sum(last_seq), 0) FROM epochs WHERE partition = $1 AND epoch < $2", p, at.Epoch).Scan(&base)
	if err != nil {
		return fmt.Errorf("reading epochs: %w", err)
	}
	if at.base != base {
		a.violated(checkDoors, a.keys.Meta(p), "counts %d events of earlier epochs, the books %d", at.base, base)
	}
	messages := behind.Val()
	if len(messages) == countersChunk {
		return nil // the writer is too far behind
	}
	for _, m := range messages {
		e, err := engine.ParseEntry(m.ID, m.Values)
		if err != nil {
			return nil //nolint:nilerr // stream names it
		}
		books = books.behind([]engine.Entry{e})
	}
	if books.events != at.Events || books.bytes != at.bytes {
		a.violated(checkDoors, a.keys.Meta(p), "counts %d events and %d bytes up to %v, books and stream together have %d and %d up to %v",
			at.Events, at.bytes, at.Position, books.events, books.bytes, books.Position)
	}
	return nil
}

package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"stampede/lua"
)

// Node and epoch do not distinguish a Redis from its copy: a copied disk has the same epoch, and a cloned machine the same run id
// and replication id as well. The pulse does. It moves by compare-and-swap in Redis and in Postgres, at least every half second,
// and a process whose Redis is out of step with Postgres fences the partition: see lua/pulse.lua and persist.Books.Beat.

// Beat is what one look at the books found of a partition.
type Beat struct {
	Fence  int64 // epoch in which the books believe it to sell
	InStep bool  // the pulse of the Redis at hand is that of the books
	Copied bool  // it is not, and that is certain: another Redis has moved on
	Agreed int64 // the original and a copy, of which this may be either, have the same events at least up to this seq
}

// ErrStray is the error of a repair that found another Redis to be the one that sells from these books.
var ErrStray = errors.New("this Redis is a copy of the one that sells from these books, or older than the one that other processes sell from")

// errCopied is why a partition is fenced whose Redis is a copy.
var errCopied = fmt.Errorf("%w at this moment: correct the Redis URL, or stop the processes at the other Redis", ErrStray)

// PulseView is the pulse of a partition as Redis holds it.
type PulseView struct {
	Epoch    int64
	Standing bool   // open, on the server that answers
	Pulse    string // "": none in this epoch
	Next     string // ditto
	Run      string // id of the server that answers
	Silent   bool   // the server takes no writes now, so that the pulse is not known
}

// tokenParts are the epoch, the seq and the random part of a token.
const tokenParts = 3

// PulseOf returns a token of Postgres as it counts in an epoch: "" where it is of an earlier one.
func PulseOf(token string, epoch int64) string {
	if made, _, _ := strings.Cut(token, ":"); made == strconv.FormatInt(epoch, 10) {
		return token
	}
	return ""
}

// PulseSeq is the partition's last seq when a token was made; 0 for none.
func PulseSeq(token string) int64 {
	parts := strings.Split(token, ":")
	if len(parts) != tokenParts {
		return 0
	}
	seq, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return 0
	}
	return seq
}

// MovePulse moves the pulse of a partition in Redis one step towards the token that Postgres holds, if it is open.
func (e *Engine) MovePulse(ctx context.Context, partition int, known string) (v PulseView, err error) {
	reply, err := e.upkeep(ctx, lua.Pulse, []string{e.keys.Meta(partition)}, known, rand.Text())
	if err != nil {
		// A replica, and a server that refuses writes, can still be looked at.
		found, lookErr := e.Look(ctx, partition)
		if lookErr != nil {
			return v, err
		}
		return PulseView{Epoch: found.Epoch, Standing: found.Standing, Run: found.IsRun, Silent: true}, nil
	}
	const fields = 5
	all, ok := reply.([]any)
	if !ok || len(all) != fields {
		return v, fmt.Errorf("%w: reply of pulse.lua", ErrCorrupt)
	}
	if text, ok := all[0].(string); ok {
		if v.Epoch, err = strconv.ParseInt(text, 10, 64); err != nil {
			return v, fmt.Errorf("%w: meta of partition %d", ErrCorrupt, partition)
		}
	}
	v.Standing = all[1] == int64(1)
	v.Pulse, _ = all[2].(string)
	v.Next, _ = all[3].(string)
	v.Run, _ = all[4].(string)
	return v, nil
}

// IsLoading reports whether a server answered that it still reads its data.
func IsLoading(err error) bool { return err != nil && strings.Contains(err.Error(), ": LOADING ") }

// beat looks at the books, and moves the pulses, once. The beat began after the call.
func (e *Engine) beat(ctx context.Context) ([]Beat, error) {
	if e.cfg.Beat == nil {
		return nil, nil
	}
	beats, err := e.beats.Do(ctx, e.cfg.OperationTimeout, e.cfg.Beat)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	for n, p := range e.partitions[:min(len(beats), len(e.partitions))] {
		b := &beats[n]
		p.door.fenced(b.Fence)
		switch {
		case b.Copied:
			p.door.copied(b.Fence)
		case b.InStep:
			p.door.inStep(b, now)
		}
	}
	return beats, nil
}

// copied fences a partition whose Redis is a copy of the one that sells in an epoch.
func (d *door) copied(epoch int64) {
	d.copy.Store(epoch)
	d.left.Store(true)
	for s := d.state.Load(); s.open && s.epoch == epoch; s = d.state.Load() {
		if d.state.CompareAndSwap(s, &doorState{reason: errCopied.Error()}) {
			d.doubt()
		}
	}
}

// inStep notes that the Redis at hand is the one that sells, as the URL may lead to another than before.
func (d *door) inStep(b *Beat, at time.Time) {
	d.copy.CompareAndSwap(b.Fence, 0)
	d.beaten.Store(&at)
	if s := d.state.Load(); s.open && s.epoch == b.Fence {
		s.acks.agree(b.Agreed)
	}
}

// Copied reports whether the Redis at hand is a copy of the one that sells in an epoch, as far as this process knows.
func (e *Engine) Copied(partition int, epoch int64) bool {
	return epoch > 0 && e.partitions[partition].door.copy.Load() == epoch
}

// SoldIn is the epoch in which this process sold last from the Redis at hand; 0: it has not sold yet.
func (e *Engine) SoldIn(partition int) int64 { return e.partitions[partition].door.sold.Load() }

// pulseFresh is how long a beat vouches for the next write into the books.
const pulseFresh = 2 * doorEvery

// InStep makes sure that the Redis at hand is the one that sells: by a beat of the last second or, with now, by one that begins after
// the call. A writer that a frozen machine gave back to life must not write down what a copy did.
func (e *Engine) InStep(ctx context.Context, partition int, now bool) error {
	d := &e.partitions[partition].door
	if at := d.beaten.Load(); !now && at != nil && time.Since(*at) < pulseFresh {
		return nil
	}
	if e.cfg.Beat == nil {
		return nil
	}
	if _, err := e.beat(ctx); err != nil {
		return err
	}
	if e.LeftBehind(partition) {
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrStray)
	}
	return nil
}

// FenceBefore notes that nothing sells in epochs before fence any more.
func (e *Engine) FenceBefore(partition int, fence int64) { e.partitions[partition].door.fenced(fence) }

// Attend answers a repair that asks who sells, soon.
func (e *Engine) Attend() {
	select {
	case e.asked <- struct{}{}:
	default:
	}
}

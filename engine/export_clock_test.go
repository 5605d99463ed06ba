package engine

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis names scripts by it
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"stampede/lua"
)

// still are kinds whose scripts take what is the clock's offset elsewhere for the time itself: it stands still.
var still = map[*kind]*kind{}

func init() {
	const reads, stands = "local time_ms = t[1] * 1000 + math.floor(t[2] / 1000) + offset_ms\n", "local time_ms = offset_ms\n"
	for _, k := range slices.Clone(kinds) {
		text := strings.Replace(k.script.Text, reads, stands, 1)
		if text == k.script.Text {
			panic("the prelude reads the time in another way")
		}
		sum := sha1.Sum([]byte(text)) //nolint:gosec // ditto
		s := *k
		s.script = &lua.Script{Name: k.script.Name, Text: text, SHA: hex.EncodeToString(sum[:])}
		still[k] = &s
		kinds = append(kinds, &s)
	}
}

// SendAt is Send at a time that stands still. The engine must not be running.
func (e *Engine) SendAt(epoch int64, at time.Time, ops ...*Op) []Outcome {
	was := e.clockOffset.Swap(at.UnixMilli())
	defer e.clockOffset.Store(was)
	for _, o := range ops {
		if s, runs := still[o.op.kind]; runs {
			o.op.kind = s
		}
	}
	return e.Send(epoch, ops...)
}

// RollAt takes minutes that have left the window at that time out of a partition's totals, in calls that look at
// so many minutes, from the first that counts on. each, if any, runs after every call.
func (e *Engine) RollAt(epoch int64, at time.Time, partition int, first, minutes int64, each func()) (calls int, err error) {
	next := rollOp{first: first, cursor: "0", minutes: minutes}
	for {
		op := next
		if got := e.SendAt(epoch, at, &Op{newDirect(rollKind, &op), partition})[0]; got.Err != nil {
			return calls, got.Err
		}
		if calls++; each != nil {
			each()
		}
		if op.rolled >= op.horizon {
			return calls, nil
		}
		next.first, next.cursor = op.rolled, op.cursor
	}
}

// Due looks for holds that are due, as a sweeper does.
func (e *Engine) Due(ctx context.Context, partition int) error {
	_, err := e.partitions[partition].due(ctx)
	return err
}

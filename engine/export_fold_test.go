package engine

import (
	"fmt"

	"github.com/tinylib/msgp/msgp"
)

// Assignment is one of those that a repair hands to lua/replay.lua. Only the figures of its kind are set.
type Assignment struct {
	Key    string
	Value  string // set
	Delete bool
	Field  string // of a hash, to add Delta to
	Member string // of a sorted set: to stand at Rank, to go, or to be moved by Delta
	Rank   int64
	Unrank bool
	Delta  int64
	Moves  *Transfers
}

// Fold is what a repair would write for the entries. letGo leaves orders out that have ended.
func (e *Engine) Fold(partition int, entries []Entry, letGo bool) ([]Assignment, error) {
	set, _, err := e.foldEntries(partition, entries, letGo)
	if err != nil {
		return nil, err
	}
	all := make([]Assignment, len(set.keys))
	for i, key := range set.keys {
		d := &decoder{b: []byte(set.args[i].(string))}
		a := Assignment{Key: key}
		switch kind := d.int(); kind {
		case assignSet:
			a.Value = d.string()
		case assignAdd:
			a.Field, a.Delta = d.string(), d.int()
		case assignDelete:
			a.Delete = true
		case assignRank:
			a.Member, a.Rank = d.string(), d.int()
		case assignUnrank:
			a.Member, a.Unrank = d.string(), true
		case assignScore:
			a.Member, a.Delta = d.string(), d.int()
		case assignMoves:
			record := appendInt(msgp.AppendArrayHeader(nil, 3), 0)
			moves, err := DecodeTransfers(string(append(record, d.b...)))
			if err != nil {
				return nil, err
			}
			a.Moves, d.b = &moves, nil
		default:
			return nil, fmt.Errorf("unknown assignment %d", kind)
		}
		if d.err != nil || len(d.b) > 0 {
			return nil, fmt.Errorf("assignment to %s: %d bytes left, %w", key, len(d.b), d.err)
		}
		all[i] = a
	}
	return all, nil
}

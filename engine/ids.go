package engine

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

// Order and charge ids: 63 bits, time-ordered: 41 bits of milliseconds since idEpoch, 10 bits of a node number
// leased in Postgres, 12 bits of a counter (the layout of Twitter's Snowflake, 2010).
const (
	idNodeBits    = 10
	idCounterBits = 12

	// NodesMax is how many node numbers there are.
	NodesMax = 1 << idNodeBits
)

var idEpoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// idSource hands out ids. They grow even when the clock steps back, and a full counter borrows from the next
// millisecond.
type idSource struct {
	mu      sync.Mutex
	node    int64
	ms      int64
	counter int64
	now     func() time.Time
}

func newIDSource(node int, now func() time.Time) (*idSource, error) {
	if node < 0 || node >= NodesMax {
		return nil, errors.New("the node number of an engine must be 0 to 1023")
	}
	return &idSource{node: int64(node), now: now}, nil
}

func (s *idSource) next() int64 {
	ms := s.now().UnixMilli() - idEpoch
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case ms > s.ms:
		s.ms, s.counter = ms, 0
	case s.counter < 1<<idCounterBits-1:
		s.counter++
	default:
		s.ms, s.counter = s.ms+1, 0
	}
	return s.ms<<(idNodeBits+idCounterBits) | s.node<<idCounterBits | s.counter
}

// setNode changes the node number after the lease of the old one was lost.
func (s *idSource) setNode(node int) {
	s.mu.Lock()
	s.node = int64(node)
	s.mu.Unlock()
}

// appendID encodes an id as the 8 bytes in which it passes the scripts: Lua's doubles would round it.
func appendID(b []byte, id int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(id))
}

func readID(b []byte) (int64, error) {
	if len(b) != 8 {
		return 0, errors.New("an id is not 8 bytes")
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

package engine

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// clock is a time that a test turns.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) turn(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func testSource(t *testing.T, node int) (*idSource, *clock) {
	t.Helper()
	c := &clock{at: time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)}
	s, err := newIDSource(node, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func wantAbove(t *testing.T, what string, id, last int64) {
	t.Helper()
	if id <= last {
		t.Fatalf("%s: id %d after %d", what, id, last)
	}
}

func TestIDs_GrowWhateverTheClockDoes(t *testing.T) {
	s, c := testSource(t, 7)
	last := int64(0)
	for _, step := range []time.Duration{0, time.Millisecond, 0, -time.Hour, time.Minute, -time.Millisecond, 2 * time.Hour, -72 * time.Hour, 0} {
		c.turn(step)
		for range 3 {
			id := s.next()
			wantAbove(t, "clock turned by "+step.String(), id, last)
			last = id
		}
	}
}

func TestIDs_GrowWhenTheCounterOverflows(t *testing.T) {
	s, c := testSource(t, 7)
	begin, last := c.now().UnixMilli()-idEpoch, int64(0)
	const perMillisecond = 1 << idCounterBits
	for i := range int64(3 * perMillisecond) {
		id := s.next()
		wantAbove(t, "within one millisecond", id, last)
		if ms := id >> (idNodeBits + idCounterBits); ms != begin+i/perMillisecond {
			t.Fatalf("id %d says %d ms after the first", i, ms-begin)
		}
		last = id
	}
	c.turn(time.Millisecond) // still behind what was borrowed
	wantAbove(t, "behind the borrowed time", s.next(), last)
	c.turn(time.Second)
	id := s.next()
	if ms := id >> (idNodeBits + idCounterBits); ms != begin+1001 {
		t.Errorf("the clock is ahead again, but the id says %d ms", ms-begin)
	}
}

func TestIDs_AreUniqueOverGoroutinesAndNodes(t *testing.T) {
	const goroutines, each = 8, 5000
	var mu sync.Mutex
	seen := make(map[int64]bool, 2*goroutines*each)
	var group sync.WaitGroup
	for _, node := range []int{0, NodesMax - 1} {
		s, err := newIDSource(node, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		for range goroutines {
			group.Go(func() {
				ids := make([]int64, each)
				for i := range ids {
					ids[i] = s.next()
				}
				if !slices.IsSorted(ids) {
					t.Error("the ids of one caller do not grow")
				}
				mu.Lock()
				defer mu.Unlock()
				for _, id := range ids {
					if seen[id] || id <= 0 || id>>idCounterBits&(NodesMax-1) != int64(node) {
						t.Errorf("id %d of node %d", id, node)
					}
					seen[id] = true
				}
			})
		}
	}
	group.Wait()
}

func TestIDs_GoOnUnderAnotherNode(t *testing.T) {
	s, _ := testSource(t, 1)
	before := s.next()
	s.setNode(1000)
	after := s.next()
	wantAbove(t, "another node", after, before)
	if node := after >> idCounterBits & (NodesMax - 1); node != 1000 {
		t.Errorf("node %d", node)
	}
	for _, node := range []int{-1, NodesMax} {
		if _, err := newIDSource(node, time.Now); err == nil {
			t.Errorf("node %d was accepted", node)
		}
	}
}

func TestIDs_SurviveTheirEightBytes(t *testing.T) {
	for _, id := range []int64{0, 1, 1<<53 + 1, 1<<63 - 1, 255, 117973794689122317} {
		got, err := readID(appendID(nil, id))
		if err != nil || got != id {
			t.Errorf("%d became %d, %v", id, got, err)
		}
	}
	for _, b := range [][]byte{nil, make([]byte, 7), make([]byte, 9)} {
		if _, err := readID(b); err == nil {
			t.Errorf("%d bytes are an id", len(b))
		}
	}
}

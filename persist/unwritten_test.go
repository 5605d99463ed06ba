package persist

import (
	"testing"
	"time"
)

func TestUnwritten_KnowsTheAgeOfTheOldest(t *testing.T) {
	t.Parallel()
	u := newUnwritten(2)
	if age := u.age(); age != 0 {
		t.Errorf("of nothing: %v", age)
	}
	u.holds(0, 0) // what Postgres has is not known yet
	time.Sleep(2 * time.Millisecond)
	if age := u.age(); age < time.Millisecond {
		t.Errorf("before Postgres was asked: %v", age)
	}
	u.wrote(0, 0)
	u.wrote(1, 5)
	u.holds(0, 0)
	u.holds(1, 5)
	if age := u.age(); age != 0 {
		t.Errorf("of what is all written: %v", age)
	}
	if age := u.atMost(1, time.Hour); age > time.Minute {
		t.Errorf("of an event that a clock set ahead makes an hour old: %v", age)
	}
	if age := newUnwritten(1).atMost(0, time.Hour); age != time.Hour {
		t.Errorf("of an event that was there before this process: %v", age)
	}
	ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	u.partitions[1].seen = []seen{{7, ago(time.Minute)}, {9, ago(time.Second)}}
	if age := u.age(); age < time.Minute || age > 2*time.Minute {
		t.Errorf("of an event seen a minute ago: %v", age)
	}
	u.holds(1, 8) // a Redis that lost the ninth
	u.wrote(1, 7)
	if age := u.age(); age < time.Second || age > time.Minute {
		t.Errorf("of an event seen a second ago: %v", age)
	}
	u.wrote(1, 8)
	if age := u.age(); age != 0 {
		t.Errorf("once all is written: %v", age)
	}
}

func TestUnwritten_RemembersABoundedNumber(t *testing.T) {
	t.Parallel()
	u := newUnwritten(1)
	u.wrote(0, 0)
	first := time.Now().Add(-time.Hour)
	for n := range 10 * seenMax {
		u.holds(0, int64(n+1))
		w := &u.partitions[0]
		w.seen[len(w.seen)-1].at = first.Add(time.Duration(n) * time.Second)
		if len(w.seen) > seenMax {
			t.Fatalf("%d are remembered", len(w.seen))
		}
	}
	if age := u.age(); age < time.Hour {
		t.Errorf("the oldest is forgotten: %v", age)
	}
}

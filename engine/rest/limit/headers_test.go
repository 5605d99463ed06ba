package limit_test

import (
	"maps"
	"testing"
	"time"

	"stampede/engine/rest/limit"
)

func headers(d limit.Decision, policy string) map[string]string {
	set := map[string]string{}
	d.Headers(policy, func(name string, value []byte) { set[name] = string(value) })
	return set
}

func TestHeaders(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name   string
		d      limit.Decision
		policy string
		want   map[string]string
	}{
		{"admitted", limit.Decision{OK: true, Limit: 100, Remaining: 57, Next: 10 * ms, Reset: 430 * ms, Window: time.Second}, "user", map[string]string{
			"RateLimit-Limit": "100", "RateLimit-Remaining": "57", "RateLimit-Reset": "1",
			"RateLimit-Policy": `"user";q=100;w=1`, "RateLimit": `"user";r=57;t=1`,
		}},
		{"refused", limit.Decision{Limit: 300, RetryAfter: 1001 * ms, Next: 1001 * ms, Reset: 30 * time.Second, Window: 30 * time.Second}, "ip", map[string]string{
			"RateLimit-Limit": "300", "RateLimit-Remaining": "0", "RateLimit-Reset": "30",
			"RateLimit-Policy": `"ip";q=300;w=30`, "RateLimit": `"ip";r=0;t=2`, "Retry-After": "2",
		}},
		{"seconds are rounded up", limit.Decision{Limit: 3, RetryAfter: 1, Next: 1, Reset: 2*time.Second + 1, Window: 2*time.Second + 1}, "a b", map[string]string{
			"RateLimit-Limit": "3", "RateLimit-Remaining": "0", "RateLimit-Reset": "3",
			"RateLimit-Policy": `"a b";q=3;w=3`, "RateLimit": `"a b";r=0;t=1`, "Retry-After": "1",
		}},
		{"a window is no less than a second", limit.Decision{OK: true, Limit: 1, Next: ms, Reset: ms, Window: ms}, "p", map[string]string{
			"RateLimit-Limit": "1", "RateLimit-Remaining": "0", "RateLimit-Reset": "1",
			"RateLimit-Policy": `"p";q=1;w=1`, "RateLimit": `"p";r=0;t=1`,
		}},
		{"the largest", limit.Decision{Limit: limit.RateMax, Remaining: limit.RateMax, RetryAfter: time.Hour, Next: time.Hour, Reset: limit.RateMax * time.Second, Window: limit.RateMax * time.Second}, "a policy whose name is longer than most", map[string]string{
			"RateLimit-Limit": "1000000000", "RateLimit-Remaining": "1000000000", "RateLimit-Reset": "1000000000",
			"RateLimit-Policy": `"a policy whose name is longer than most";q=1000000000;w=1000000000`,
			"RateLimit":        `"a policy whose name is longer than most";r=1000000000;t=3600`, "Retry-After": "3600",
		}},
	} {
		if got := headers(c.d, c.policy); !maps.Equal(got, c.want) {
			t.Errorf("%s:\n got %v\nwant %v", c.name, got, c.want)
		}
	}
}

func TestHeaders_OfABucket(t *testing.T) {
	b := limit.NewBuckets[int](2, 5, plenty)
	for range 4 {
		b.Take(1, start)
	}
	common := func(more map[string]string) map[string]string {
		maps.Copy(more, map[string]string{"RateLimit-Limit": "5", "RateLimit-Reset": "3", "RateLimit-Policy": `"user";q=5;w=3`, "RateLimit-Remaining": "0", "RateLimit": `"user";r=0;t=1`})
		return more
	}
	for _, want := range []map[string]string{common(map[string]string{}), common(map[string]string{"Retry-After": "1"})} {
		if got := headers(b.Take(1, start), "user"); !maps.Equal(got, want) {
			t.Errorf("\n got %v\nwant %v", got, want)
		}
	}
}

// Every request pays for this: a decision is made and told with one allocation at most.
func TestHeaders_AreCheap(t *testing.T) {
	b := limit.NewBuckets[int](1000, 0, plenty)
	bytes := 0
	set := func(name string, value []byte) { bytes += len(name) + len(value) }
	b.Take(1, start)
	if n := testing.AllocsPerRun(1000, func() { b.Take(1, start) }); n != 0 {
		t.Errorf("Take allocates %v times", n)
	}
	d := b.Take(1, start)
	if n := testing.AllocsPerRun(1000, func() { d.Headers("user", set) }); n > 1 {
		t.Errorf("Headers allocates %v times", n)
	}
}

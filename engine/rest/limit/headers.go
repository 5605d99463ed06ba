package limit

import (
	"strconv"
	"time"
)

// Headers tells a client the decision, in whole seconds that are rounded up:
//
//	RateLimit-Limit: 100                         as earlier drafts had it, and most clients read it
//	RateLimit-Remaining: 57
//	RateLimit-Reset: 1                           until the bucket is full
//	RateLimit-Policy: "user";q=100;w=1           draft-ietf-httpapi-ratelimit-headers-10
//	RateLimit: "user";r=57;t=1                   t: until there is one more
//	Retry-After: 1                               where it was refused, and at least 1
//
// A client that keeps to q requests in any w seconds is never refused. The policy is a name in printable ASCII without
// quotes and backslashes. A value is set's only until it returns.
func (d Decision) Headers(policy string, set func(name string, value []byte)) {
	var space [64]byte
	value := space[:0]
	number := func(name string, n int64) {
		value = strconv.AppendInt(value[:0], n, 10)
		set(name, value)
	}
	parameter := func(name string, n int64) {
		value = strconv.AppendInt(append(value, name...), n, 10)
	}
	item := func() {
		value = append(append(append(value[:0], '"'), policy...), '"')
	}

	number("RateLimit-Limit", int64(d.Limit))
	number("RateLimit-Remaining", int64(d.Remaining))
	number("RateLimit-Reset", seconds(d.Reset))

	item()
	parameter(";q=", int64(d.Limit))
	parameter(";w=", max(1, seconds(d.Window)))
	set("RateLimit-Policy", value)

	item()
	parameter(";r=", int64(d.Remaining))
	parameter(";t=", seconds(d.Next))
	set("RateLimit", value)

	if !d.OK {
		// Never before t: the draft wants that.
		number("Retry-After", max(1, seconds(d.RetryAfter)))
	}
}

// seconds rounds up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

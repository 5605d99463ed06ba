// Package limit holds what a server counts in its own process to stay usable: requests by key, and connections by
// address. It knows neither routes nor the HTTP server.
//
//	buckets.go     how many requests a key may make: token buckets
//	headers.go     how a client is told: Retry-After and the RateLimit fields
//	client.go      who the client is, also behind load balancers
//	listener.go    how many connections there may be
//	refuse.go      how one too many is turned away
//
// # Token buckets
//
// Each key has a bucket of burst tokens, into which perSecond of them flow; a request takes one or is refused. This is
// the GCRA (ITU-T I.371) written as a debt: the state of a bucket is what it lacks and since when, two integers. A
// nanosecond pays perSecond units and a request costs 10^9 of them, so nothing is ever rounded: at 3 a second the third
// token is there after exactly 10^9 ns, not after 999,999,999.
//
// A bucket that is full again is as good as none, so nothing is lost with it. Keys stand in two generations: a key in
// use moves to the young one, and each time as long has passed as an empty bucket takes to fill, the young one becomes
// the old one and the old one is dropped whole. What is in it has not been used for that long, so all of it is full. No
// call ever walks over the keys.
//
// A generation also ends when it holds half of keysMax. Then buckets that are not full are forgotten too, those that
// were used longest ago, and their keys begin anew with a full one. This takes more than keysMax/2 other keys since
// that use, within the time a bucket takes to fill; whoever has that many keys gains little by it. A key that keeps
// knocking is never forgotten.
//
// A generation keeps a 64-bit hash in place of the key, under a seed of the process. A million keys take less than
// 60 MB whatever a key is, and the garbage collector has no pointers to follow. Two keys with one hash share a bucket: among a
// million, that there are two such is a chance of 3 in 10^8, and nobody outside can find them.
//
// golang.org/x/time/rate would be the library to take. Its limiter is a value of 80 bytes behind a pointer: with the key
// in a map, a million of them were measured at 164 MB. It has no keys and forgets none, counts in floating point, and
// says when to come back only by a reservation that is taken and given back. Around it would stand the same two
// generations.
//
// # Connections
//
// [Listener] stands below TLS and the HTTP server. fasthttp's own MaxConnsPerIP counts single IPv6 addresses, of which
// each customer has 2^64, answers in plain text, and closes before it has read the request: the reset that follows can
// take the answer away from the client.
package limit

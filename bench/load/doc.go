// Package load puts load on an HTTP server and counts what comes back. A Pacer plans when hits are due, a Scenario writes
// their requests, a Generator sends them in an open or a closed loop and asks again for what was left open, a Recorder counts
// what became of each. It knows the requests of a shop, but nothing of how a server is started, measured or reported:
// that is the command's.
package load

// Package load puts load on an HTTP server and counts what comes back. It knows the requests of a shop, but nothing of
// how a server is started, measured or reported: that is the command's.
package load

package rest

import (
	"bufio"
	"bytes"
	"net"
	"syscall"

	"github.com/valyala/fasthttp"

	"stampede/engine/rest/limit"
)

const (
	connsPerIPMax = 10_000
	connsMax      = 200_000
	// filesSpared of the files that this process may have open are for Redis, Postgres and the rest.
	filesSpared = 1024
)

// bound puts limits on the connections that a listener takes.
func (s *Server) bound(ln net.Listener) *limit.Listener {
	refusal := func(perIP bool) []byte {
		if perIP {
			return tooManyFromIP
		}
		return tooMany
	}
	if s.cfg.TLS {
		refusal = nil // nothing can be said before the handshake
	}
	return limit.NewListener(ln, s.cfg.ConnsPerIP, roomForConns(), refusal)
}

// roomForConns returns how many connections there is room for.
func roomForConns() int {
	var files syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files) != nil {
		return connsMax
	}
	if files.Cur < 2*filesSpared {
		return int(files.Cur / 2) //nolint:gosec // below 2,048
	}
	return int(min(files.Cur-filesSpared, connsMax)) //nolint:gosec // at most connsMax
}

var (
	tooManyFromIP = whole(rateLimited.with("This address has %d connections open, the most it may have.", connsPerIPMax))
	tooMany       = whole(overloaded)
)

// whole is a problem as a whole answer, for a connection whose request is not read.
func whole(p *problem) []byte {
	var r fasthttp.Response
	r.Header.SetNoDefaultContentType(true)
	secure(&r.Header)
	p.write(&r)
	r.Header.Set(fasthttp.HeaderRetryAfter, "1")
	r.SetConnectionClose()
	var text bytes.Buffer
	w := bufio.NewWriter(&text)
	if r.Write(w) != nil || w.Flush() != nil {
		panic("an answer cannot be written to memory")
	}
	return text.Bytes()
}

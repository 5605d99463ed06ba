package rest

import (
	"bufio"
	"bytes"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"stampede/engine/rest/limit"
)

const (
	connsPerIPMax = 10_000
	connsMax      = 200_000
	// filesSpared of the files that this process may have open are for Redis, Postgres and the rest.
	filesSpared = 1024
)

// conns are the connections of a server.
type conns struct {
	listener      atomic.Pointer[limit.Listener] // nil until Serve
	open, refused *prometheus.Desc
}

func newConns() *conns {
	return &conns{
		open: prometheus.NewDesc("stampede_http_connections", "Connections of clients that are open.", nil, nil),
		refused: prometheus.NewDesc("stampede_http_connections_refused_total",
			"Connections turned away: one address had too many (ip), or all together did (all).", []string{"reason"}, nil),
	}
}

// Describe is for the registry.
func (c *conns) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.open
	descs <- c.refused
}

// Collect counts.
func (c *conns) Collect(samples chan<- prometheus.Metric) {
	var open int
	var perIP, total uint64
	if ln := c.listener.Load(); ln != nil {
		open = ln.Open()
		perIP, total = ln.Refused()
	}
	samples <- prometheus.MustNewConstMetric(c.open, prometheus.GaugeValue, float64(open))
	samples <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(perIP), "ip")
	samples <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(total), "all")
}

// bound puts limits on the connections that a listener takes.
func (s *Server) bound(ln net.Listener) net.Listener {
	refusal := func(perIP bool) []byte {
		if perIP {
			return tooManyFromIP
		}
		return tooMany
	}
	if s.cfg.TLS {
		refusal = nil // nothing can be said before the handshake
	}
	bounded := limit.NewListener(ln, s.cfg.ConnsPerIP, roomForConns(), refusal)
	s.conns.listener.Store(bounded)
	return bounded
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

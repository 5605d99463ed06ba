package rest

import (
	"context"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

func (s *Server) healthz(ctx *fasthttp.RequestCtx, _ caller) error {
	return reply(ctx, fasthttp.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// LagUnknown stands for a lag that could not be measured: 0 would promise that everything is in the tables.
const LagUnknown = -1

// Readiness is how the shop does, part by part: what is wrong there and what an operator does about it, nothing where
// all is well. Everyone may read it, so it holds no secrets.
type Readiness struct {
	// NoOrders says that this process can take no orders at all. Whatever else is wrong, it sells: a load balancer that
	// took it out of service would end that.
	NoOrders bool

	LagEvents  int64   // events in Redis that Postgres lacks; LagUnknown
	LagSeconds float64 // age of the oldest of them, as far as it is known

	Opening    []string // why the shop is not open yet
	Redis      []string
	Partitions []string
	Postgres   []string
	Writer     []string

	// Warnings are what an operator must look at though no part is to blame.
	Warnings []string
}

// checks are the parts as /readyz shows them: "ok", or what is wrong.
type checks struct {
	Opening    string `json:"opening,omitempty"`
	Redis      string `json:"redis"`
	Partitions string `json:"partitions"`
	Postgres   string `json:"postgres"`
	Writer     string `json:"writer"`
}

// readyz says whether orders can be placed, and what is wrong.
func (s *Server) readyz(ctx *fasthttp.RequestCtx, _ caller) error {
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	found := s.cfg.Health.Check(bound)
	body := struct {
		Status     string   `json:"status"`
		LagEvents  int64    `json:"writer_lag_events"`
		LagSeconds float64  `json:"writer_lag_seconds"`
		Checks     checks   `json:"checks"`
		Problems   []string `json:"problems"`
		Warnings   []string `json:"warnings"`
	}{
		"ready", found.LagEvents, found.LagSeconds,
		checks{strings.Join(found.Opening, "; "), shown(found.Redis), shown(found.Partitions), shown(found.Postgres), shown(found.Writer)},
		[]string{},
		[]string{},
	}
	status, wrong := fasthttp.StatusOK, slices.Concat(found.Opening, found.Redis, found.Partitions, found.Postgres, found.Writer)
	switch {
	case found.NoOrders:
		status, body.Status = fasthttp.StatusServiceUnavailable, "not ready"
		body.Problems, body.Warnings = append(body.Problems, wrong...), append(body.Warnings, found.Warnings...)
	case len(wrong)+len(found.Warnings) > 0:
		body.Status = "degraded"
		body.Warnings = append(append(body.Warnings, wrong...), found.Warnings...)
	}
	return reply(ctx, status, body)
}

func shown(problems []string) string {
	if len(problems) == 0 {
		return "ok"
	}
	return strings.Join(problems, "; ")
}

func (s *Server) serveMetrics(ctx *fasthttp.RequestCtx, _ caller) error {
	s.metrics.exposition(ctx)
	return nil
}

func exposition(cfg Config) fasthttp.RequestHandler {
	return fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // one measure that cannot be had must not hide the others
	}))
}

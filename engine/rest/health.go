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
// all is well. Anybody may read it, so it tells no secrets.
type Readiness struct {
	LagEvents  int64   // events in Redis that Postgres lacks; LagUnknown
	LagSeconds float64 // age of the oldest of them; LagUnknown

	Opening  []string // why the shop is not open yet
	Redis    []string
	Doors    []string
	Postgres []string
	Writer   []string

	// Warnings are what an operator must look at though orders can be placed.
	Warnings []string
}

// checks are the parts as /readyz tells them: "ok", or what is wrong.
type checks struct {
	Opening  string `json:"opening,omitempty"`
	Redis    string `json:"redis"`
	Doors    string `json:"doors"`
	Postgres string `json:"postgres"`
	Writer   string `json:"writer"`
}

// readyz says whether orders can be placed, and what is wrong where they cannot.
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
		checks{strings.Join(found.Opening, "; "), told(found.Redis), told(found.Doors), told(found.Postgres), told(found.Writer)},
		append([]string{}, slices.Concat(found.Opening, found.Redis, found.Doors, found.Postgres, found.Writer)...),
		append([]string{}, found.Warnings...),
	}
	status := fasthttp.StatusOK
	if len(body.Problems) > 0 {
		status, body.Status = fasthttp.StatusServiceUnavailable, "not ready"
	}
	return reply(ctx, status, body)
}

func told(problems []string) string {
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

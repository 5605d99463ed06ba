package rest

import (
	"context"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"
)

func (s *Server) healthz(ctx *fasthttp.RequestCtx) error {
	return reply(ctx, fasthttp.StatusOK, struct {
		Status string `json:"status"`
	}{"ok"})
}

// readyz says whether orders can be placed, and what is wrong where they cannot.
func (s *Server) readyz(ctx *fasthttp.RequestCtx) error {
	bound, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	lag, problems := s.cfg.Health.Check(bound)
	body := struct {
		Status   string   `json:"status"`
		Lag      int64    `json:"writer_lag_events"`
		Problems []string `json:"problems"`
	}{"ready", lag, make([]string, 0, len(problems))}
	status := fasthttp.StatusOK
	for _, p := range problems {
		status, body.Status = fasthttp.StatusServiceUnavailable, "not ready"
		body.Problems = append(body.Problems, p.Error())
	}
	return reply(ctx, status, body)
}

func (s *Server) serveMetrics(ctx *fasthttp.RequestCtx) error {
	s.metrics.exposition(ctx)
	return nil
}

func exposition(cfg Config) fasthttp.RequestHandler {
	return fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		ErrorHandling: promhttp.ContinueOnError, // one measure that cannot be had must not hide the others
	}))
}

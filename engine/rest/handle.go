package rest

import (
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"

	"github.com/valyala/fasthttp"
)

// handler answers a request of a caller whom its route lets in, or returns why not.
type handler func(ctx *fasthttp.RequestCtx, who caller) error

// noRoute stands for the route of what has none.
const noRoute = "none"

// serve wraps a handler with what all routes share. name is the route as metrics and logs call it.
func (s *Server) serve(name string, access access, next handler) fasthttp.RequestHandler {
	observe := s.metrics.route(name)
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		s.head(ctx)
		if err := s.guarded(ctx, access, next); err != nil {
			s.refuse(ctx, name, asProblem(ctx, err), err)
		}
		observe(ctx.Response.StatusCode(), time.Since(start))
	}
}

// guarded turns a panic into an error: one request must not end the others.
func (s *Server) guarded(ctx *fasthttp.RequestCtx, access access, next handler) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v\n%s", reason, debug.Stack())
		}
	}()
	return s.attempt(ctx, access, next)
}

// attempt lets a request through the gates, in the order of what they cost.
func (s *Server) attempt(ctx *fasthttp.RequestCtx, access access, next handler) error {
	if err := wellFormed(ctx); err != nil {
		return err
	}
	if access != probe {
		if err := s.limits.address(ctx); err != nil {
			return err
		}
	}
	who, err := s.identify(ctx, access)
	if err != nil {
		return err
	}
	return next(ctx, who)
}

var (
	headerNoSniff   = []byte("X-Content-Type-Options")
	noSniff         = []byte("nosniff")
	headerCache     = []byte(fasthttp.HeaderCacheControl)
	noStore         = []byte("no-store")
	headerTransport = []byte("Strict-Transport-Security")
	transportOnly   = []byte("max-age=31536000")
)

// head sets the headers of every answer.
func (s *Server) head(ctx *fasthttp.RequestCtx) {
	h := &ctx.Response.Header
	secure(h)
	if s.cfg.TLS {
		h.SetCanonical(headerTransport, transportOnly)
	}
	s.ids.name(ctx)
}

// secure keeps answers from being kept, and from being taken for what they are not.
func secure(h *fasthttp.ResponseHeader) {
	h.SetCanonical(headerNoSniff, noSniff)
	h.SetCanonical(headerCache, noStore)
}

// refuse answers with a problem.
func (s *Server) refuse(ctx *fasthttp.RequestCtx, route string, p *problem, err error) {
	if p.status != wrongMethod.status {
		ctx.Response.Header.Del(fasthttp.HeaderAllow) // the router has set it before other gates were passed
	}
	p.write(&ctx.Response)
	s.noted(ctx, route, p, err)
}

// noted counts a problem, and logs it where an operator should hear of it.
func (s *Server) noted(ctx *fasthttp.RequestCtx, route string, p *problem, err error) {
	s.metrics.refused(p.code)
	s.refusals.note(ctx, s.limits.client(ctx), route, p, err)
}

// protocolError answers what could not be read as a request. It never repeats the parser's text, which repeats the
// request.
func (s *Server) protocolError(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	p := validationFailed.with("The request is not well-formed HTTP.")
	switch {
	case errors.As(err, &small):
		p = headersTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		p = bodyTooLarge
	case errors.As(err, &network) && network.Timeout():
		p = requestTooSlow
	}
	// Only before a handler's answer is it set anew: what is left of the last one may be over.
	_ = ctx.Conn().SetWriteDeadline(time.Now().Add(s.cfg.ReadTimeout))
	s.head(ctx)
	s.refuse(ctx, noRoute, p, err)
	s.metrics.unreadable(p.status)
	ctx.SetConnectionClose()
	linger(ctx)
}

// linger keeps the rest of a request that is not read from taking the answer away from the client.
func linger(ctx *fasthttp.RequestCtx) {
	if conn, ok := ctx.Conn().(interface{ Linger() }); ok {
		conn.Linger()
	}
}

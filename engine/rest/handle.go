package rest

import (
	"bytes"
	"errors"
	"time"

	"github.com/valyala/fasthttp"
)

// handler answers a request, or returns why not.
type handler func(ctx *fasthttp.RequestCtx) error

const routeKey = "route"

func routeOf(ctx *fasthttp.RequestCtx) string {
	name, _ := ctx.UserValue(routeKey).(string)
	return name
}

// route wraps a handler with what all routes share. name is the route as metrics and logs call it.
func (s *Server) route(name string, next handler) fasthttp.RequestHandler {
	observe := s.metrics.route(name)
	return func(ctx *fasthttp.RequestCtx) {
		start := time.Now()
		h := &ctx.Response.Header
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set(fasthttp.HeaderCacheControl, "no-store")
		err := smuggled(ctx)
		if err == nil {
			err = next(ctx)
		}
		if err != nil {
			ctx.SetUserValue(routeKey, name)
			s.asProblem(ctx, err).answer(ctx)
		}
		observe(ctx.Response.StatusCode(), time.Since(start))
	}
}

var contentLength = []byte("content-length")

// smuggled refuses a request with both Content-Length and Transfer-Encoding: the parser takes it, and another server
// on the way may have cut it elsewhere (RFC 9112, 6.1).
func smuggled(ctx *fasthttp.RequestCtx) error {
	if ctx.Request.Header.ContentLength() != -1 {
		return nil // not chunked
	}
	for line := range bytes.Lines(ctx.Request.Header.RawHeaders()) {
		name, _, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(bytes.TrimSpace(name), contentLength) {
			ctx.SetConnectionClose()
			return validationFailed.with("Content-Length and Transfer-Encoding exclude each other.")
		}
	}
	return nil
}

func (s *Server) notFound(*fasthttp.RequestCtx) error { return pathNotFound }

func (s *Server) methodNotAllowed(*fasthttp.RequestCtx) error { return wrongMethod }

// protocolError answers what could not be read as a request. It never repeats the parser's text, which repeats the
// request.
func (s *Server) protocolError(ctx *fasthttp.RequestCtx, err error) {
	var small *fasthttp.ErrSmallBuffer
	p := validationFailed.with("The request is not well-formed HTTP.")
	switch {
	case errors.As(err, &small):
		p = headersTooLarge
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		p = bodyTooLarge
	}
	h := &ctx.Response.Header
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set(fasthttp.HeaderCacheControl, "no-store")
	p.answer(ctx)
	ctx.SetConnectionClose()
}

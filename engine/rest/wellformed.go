package rest

import (
	"bytes"

	"github.com/valyala/fasthttp"
)

// The parser of requests takes more than RFC 9112 does. What another server on the way may read in another way is
// refused here, and the connection closed: else one could see two requests where the other sees one, and hide a
// request, or who makes it, from a gateway.

var (
	crlf             = []byte("\r\n")
	contentLength    = []byte(fasthttp.HeaderContentLength)
	contentType      = []byte(fasthttp.HeaderContentType)
	transferEncoding = []byte(fasthttp.HeaderTransferEncoding)
	chunked          = []byte("chunked")
	http10           = []byte("HTTP/1.0")
	http11           = []byte("HTTP/1.1")
)

// wellFormed refuses a request that can be read in two ways.
func wellFormed(ctx *fasthttp.RequestCtx) error {
	h := &ctx.Request.Header
	old := bytes.Equal(h.Protocol(), http10)
	var why string
	switch {
	case !old && !bytes.Equal(h.Protocol(), http11):
		why = "The request must be HTTP/1.1 or HTTP/1.0."
	case len(h.PeekTrailerKeys()) > 0:
		// They would count as headers, behind the back of a gateway that has checked those.
		why = "A request must not have trailers."
	default:
		why = ambiguous(h.RawHeaders(), old)
	}
	if why == "" {
		return nil
	}
	ctx.SetConnectionClose()
	return validationFailed.with("%s", why)
}

// ambiguous looks at the header lines as they came (RFC 9112, 2.2, 5 and 6).
func ambiguous(raw []byte, old bool) string {
	lengths, types, encoding := 0, 0, false
	for line := range bytes.Lines(raw) {
		if line[0] == ' ' || line[0] == '\t' {
			return "A header must not continue on a further line."
		}
		if !bytes.HasSuffix(line, crlf) {
			return "Every header line must end in CR LF."
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.IndexByte(name, ' ') >= 0 || bytes.IndexByte(name, '\t') >= 0:
			return "The name of a header must not hold spaces."
		case bytes.EqualFold(name, contentLength):
			lengths++
		case bytes.EqualFold(name, contentType):
			types++
		case bytes.EqualFold(name, transferEncoding):
			if encoding || old || !bytes.EqualFold(bytes.TrimSpace(value), chunked) {
				return "The only Transfer-Encoding is chunked, once, in HTTP/1.1."
			}
			encoding = true
		}
	}
	switch {
	case lengths > 0 && encoding:
		return "Content-Length and Transfer-Encoding exclude each other."
	case lengths > 1:
		return "Content-Length stands in the request more than once."
	case types > 1:
		return "Content-Type stands in the request more than once."
	}
	return ""
}

// expect answers Expect: 100-continue, so that no client sends a body that will not be read.
func (s *Server) expect(ctx *fasthttp.RequestCtx) (status int) {
	if ctx.Request.Header.ContentLength() <= s.bodyLimit(&ctx.Request.Header) {
		return fasthttp.StatusContinue
	}
	s.head(ctx)
	s.refuse(ctx, noRoute, bodyTooLarge, bodyTooLarge)
	s.metrics.unreadable(bodyTooLarge.status)
	linger(ctx)
	return bodyTooLarge.status
}

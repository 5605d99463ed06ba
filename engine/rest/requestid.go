package rest

import (
	"crypto/rand"
	"strconv"
	"sync/atomic"

	"github.com/valyala/fasthttp"
)

// requestIDMax is the longest id that is taken over from a client.
const requestIDMax = 64

const requestIDName = "X-Request-Id"

var headerRequestID = []byte(requestIDName)

// requestIDs gives every request an id that stands in its answer and in the log lines about it: the one that it
// brings, so that a gateway's id goes through, or a new one.
type requestIDs struct {
	process string // tells the ids of one process from those of others
	count   atomic.Uint64
}

func newRequestIDs() *requestIDs { return &requestIDs{process: rand.Text()[:10] + "-"} }

// name sets the answer's X-Request-Id.
func (r *requestIDs) name(ctx *fasthttp.RequestCtx) {
	if given := ctx.Request.Header.PeekAll(requestIDName); len(given) == 1 && acceptable(given[0]) {
		ctx.Response.Header.SetCanonical(headerRequestID, given[0])
		return
	}
	var room [32]byte
	made := strconv.AppendUint(append(room[:0], r.process...), r.count.Add(1), 36)
	ctx.Response.Header.SetCanonical(headerRequestID, made)
}

// acceptable keeps out of headers and logs what could break their lines or flood them.
func acceptable(id []byte) bool {
	if len(id) == 0 || len(id) > requestIDMax {
		return false
	}
	for _, c := range id {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '.':
		default:
			return false
		}
	}
	return true
}

// requestID is the id that name gave.
func requestID(ctx *fasthttp.RequestCtx) string {
	return string(ctx.Response.Header.PeekBytes(headerRequestID))
}

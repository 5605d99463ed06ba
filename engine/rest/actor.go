package rest

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/valyala/fasthttp"
)

// In trusted mode a gateway in front of Stampede has authenticated the buyer and names them in X-User-Id, or the
// request names them in user_id; where both stand they must agree.

// buyer returns who acts; named is user_id of body or query, empty where none stands.
func buyer(ctx *fasthttp.RequestCtx, named string) (int64, error) {
	headers := ctx.Request.Header.PeekAll("X-User-Id")
	if len(headers) > 1 {
		return 0, validationFailed.with("X-User-Id stands in the request more than once.")
	}
	var header string
	if len(headers) == 1 {
		header = string(headers[0])
	}
	if header == "" && named == "" {
		return 0, validationFailed.with("The request names no user: send X-User-Id or user_id.")
	}
	if named == "" {
		return parseID("X-User-Id", header)
	}
	user, err := parseID("user_id", named)
	if err != nil || header == "" {
		return user, err
	}
	acting, err := parseID("X-User-Id", header)
	if err != nil {
		return 0, err
	}
	if acting != user {
		return 0, forbidden.with("X-User-Id and user_id name different users.")
	}
	return user, nil
}

// keyedBuyer returns who acts and under which idempotency key.
func keyedBuyer(ctx *fasthttp.RequestCtx, named string) (user int64, key string, err error) {
	if user, err = buyer(ctx, named); err != nil {
		return 0, "", err
	}
	key, err = idempotencyKey(ctx)
	return user, key, err
}

func queryUser(ctx *fasthttp.RequestCtx) string {
	return string(ctx.QueryArgs().Peek("user_id"))
}

// admin lets only the admin token pass.
func (s *Server) admin(next handler) handler {
	return func(ctx *fasthttp.RequestCtx) error {
		if !s.isAdmin(ctx) {
			return unauthorized.with("This route wants Authorization: Bearer with the admin token.")
		}
		return next(ctx)
	}
}

var bearer = []byte("Bearer ")

// isAdmin compares digests, so that the time taken tells nothing of the token, not even its length.
func (s *Server) isAdmin(ctx *fasthttp.RequestCtx) bool {
	token, found := bytes.CutPrefix(ctx.Request.Header.Peek(fasthttp.HeaderAuthorization), bearer)
	if !found {
		return false
	}
	given, want := sha256.Sum256(token), sha256.Sum256([]byte(s.cfg.AdminToken))
	return subtle.ConstantTimeCompare(given[:], want[:]) == 1
}

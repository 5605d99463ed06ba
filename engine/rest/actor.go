package rest

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"

	"github.com/valyala/fasthttp"
)

// In trusted mode a gateway in front of Stampede has authenticated the buyer and names them in X-User-Id, or the
// request names them in user_id; where both stand they must agree.

// buyer returns who acts; body is the user_id of the request's body, empty where none stands.
func buyer(ctx *fasthttp.RequestCtx, body id) (int64, error) {
	named, err := bodyOrQuery(ctx, "user_id", body)
	if err != nil {
		return 0, err
	}
	acting, err := actingUser(ctx)
	switch {
	case err != nil:
		return 0, err
	case acting == 0 && named == 0:
		return 0, validationFailed.with("The request names no user: send X-User-Id or user_id.")
	case acting != 0 && named != 0 && acting != named:
		return 0, forbidden.with("X-User-Id and user_id name different users.")
	}
	return max(acting, named), nil
}

// actingUser returns X-User-Id, 0 where the header does not stand. An empty one is refused: a gateway that found
// nobody must not leave the choice to user_id.
func actingUser(ctx *fasthttp.RequestCtx) (int64, error) {
	headers := ctx.Request.Header.PeekAll("X-User-Id")
	switch len(headers) {
	case 0:
		return 0, nil
	case 1:
		return parseID("X-User-Id", string(headers[0]))
	}
	return 0, validationFailed.with("X-User-Id stands in the request more than once.")
}

// keyedBuyer returns who acts and under which idempotency key.
func keyedBuyer(ctx *fasthttp.RequestCtx, body id) (user int64, key string, err error) {
	if user, err = buyer(ctx, body); err != nil {
		return 0, "", err
	}
	key, err = idempotencyKey(ctx)
	return user, key, err
}

// adminOrBuyer returns who acts on a route that takes either. A buyer acts for themselves; an admin for the user_id
// that the request names, or for whoever it is: 0.
func (s *Server) adminOrBuyer(ctx *fasthttp.RequestCtx, body id) (user int64, admin bool, err error) {
	if admin, err = s.credential(ctx); err != nil {
		return 0, false, err
	}
	if admin {
		named, err := bodyOrQuery(ctx, "user_id", body)
		if err != nil || named == 0 {
			return 0, true, err
		}
	}
	user, err = buyer(ctx, body)
	return user, admin, err
}

// credential tells whether an admin acts, where a buyer may as well. A token that is not valid is refused: whoever
// sent it believes to be somebody else than the buyer that the request would pass for.
func (s *Server) credential(ctx *fasthttp.RequestCtx) (admin bool, err error) {
	if s.isAdmin(ctx) {
		return true, nil
	}
	if len(ctx.Request.Header.PeekAll(fasthttp.HeaderAuthorization)) > 0 {
		return false, unauthorized.with("The token is not valid.")
	}
	return false, nil
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

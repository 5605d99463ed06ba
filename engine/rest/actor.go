package rest

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine/rest/token"
)

// Who acts is whom the credential names.
//
// In trusted mode a gateway in front of Stampede has authenticated the buyer and names them in X-User-Id, or the
// request names them in user_id. With Config.Tokens it is the subject of a Bearer token. Where a request names a user
// more than once, all must agree.

// caller is who makes a request, as far as its headers tell.
type caller struct {
	user  int64 // 0: the headers name none
	admin bool
}

// identify reads the credential that a route wants.
func (s *Server) identify(ctx *fasthttp.RequestCtx, access access) (who caller, err error) {
	if access == public || access == probe {
		return caller{}, nil
	}
	text, given, err := bearer(&ctx.Request.Header)
	if err != nil {
		return caller{}, err
	}
	who.admin = access != buyerOnly && s.isAdmin(text)
	switch {
	case access == adminOnly && who.admin:
		return who, nil
	case s.cfg.Tokens != nil && !who.admin:
		if who.user, err = s.buyerOf(text, given); err != nil {
			return caller{}, err
		}
		if access == adminOnly {
			return caller{}, forbidden.with("This route is for admins; the token is a buyer's.")
		}
	case access == adminOnly && !given:
		return caller{}, unauthorized.with("This route wants Authorization: Bearer with the admin token.")
	case access == adminOnly, access == adminOrBuyer && given && !who.admin:
		// Whoever sent it believes to be somebody else than the buyer that the request would pass for.
		return caller{}, invalidToken.with("The token is not the admin token.")
	}
	named, err := headerUser(ctx)
	switch {
	case err != nil:
		return caller{}, err
	case who.user != 0 && named != 0 && who.user != named:
		return caller{}, forbidden.with("X-User-Id names another user than the token.")
	}
	who.user = max(who.user, named)
	return who, nil
}

// buyerOf returns the subject of a buyer's token.
func (s *Server) buyerOf(text []byte, given bool) (int64, error) {
	if !given {
		return 0, unauthorized.with("This route wants Authorization: Bearer with a token.")
	}
	user, err := s.cfg.Tokens.User(text, time.Now())
	if err != nil {
		reason := strings.TrimPrefix(err.Error(), token.ErrInvalid.Error()+": ")
		return 0, invalidToken.with("This token is not accepted: %s.", reason)
	}
	return user, nil
}

// acting returns the user who acts; body is the user_id of the request's body, 0 where none stands. A buyer acts
// for themselves; an admin for the user_id that the request names, or for whoever it is: 0.
func (s *Server) acting(ctx *fasthttp.RequestCtx, who caller, body id) (int64, error) {
	named, err := bodyOrQuery(ctx, "user_id", body)
	switch {
	case err != nil:
		return 0, err
	case named != 0 && who.user != 0 && named != who.user:
		return 0, forbidden.with("The request names different users.")
	case who.admin:
		return named, nil
	case named == 0 && who.user == 0:
		return 0, validationFailed.with("The request names no user: send X-User-Id or user_id.")
	}
	user := max(named, who.user)
	return user, s.limits.user(ctx, user)
}

// actingWithKey returns who acts and under which idempotency key.
func (s *Server) actingWithKey(ctx *fasthttp.RequestCtx, who caller, body id) (user int64, key string, err error) {
	if user, err = s.acting(ctx, who, body); err != nil {
		return 0, "", err
	}
	key, err = idempotencyKey(ctx)
	return user, key, err
}

// headerUser returns X-User-Id, 0 where the header does not stand. An empty one is refused: a gateway that found
// nobody must not leave the choice to user_id.
func headerUser(ctx *fasthttp.RequestCtx) (int64, error) {
	headers := ctx.Request.Header.PeekAll("X-User-Id")
	switch len(headers) {
	case 0:
		return 0, nil
	case 1:
		return parseID("X-User-Id", headers[0])
	}
	return 0, validationFailed.with("X-User-Id stands in the request more than once.")
}

var scheme = []byte("Bearer ")

// bearer returns the request's token, nil where it brings another credential or none.
func bearer(h *fasthttp.RequestHeader) (token []byte, given bool, err error) {
	headers := h.PeekAll(fasthttp.HeaderAuthorization)
	switch len(headers) {
	case 0:
		return nil, false, nil
	case 1:
		if h := headers[0]; len(h) > len(scheme) && bytes.EqualFold(h[:len(scheme)], scheme) {
			token = h[len(scheme):]
		}
		return token, true, nil
	}
	return nil, false, invalidToken.with("Authorization stands in the request more than once.")
}

// isAdmin compares digests, so that the time taken tells nothing of the token, not even its length.
func (s *Server) isAdmin(token []byte) bool {
	given := sha256.Sum256(token)
	return subtle.ConstantTimeCompare(given[:], s.adminDigest[:]) == 1
}

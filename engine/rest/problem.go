package rest

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// problem is an answer that is no success: application/problem+json (RFC 9457) with a code of the contract.
type problem struct {
	status int
	code   string
	title  string
	detail string
	// extra holds the figures a client needs to act, by field.
	extra map[string]any
	// retryAfter in seconds, 0 for none.
	retryAfter int
	// challenge says how to authenticate: WWW-Authenticate, RFC 6750.
	challenge string
}

// Error is the detail.
func (p *problem) Error() string { return p.detail }

func (p *problem) with(format string, args ...any) *problem {
	q := *p
	q.detail = fmt.Sprintf(format, args...)
	return &q
}

func (p *problem) field(name string, value any) *problem {
	q := *p
	q.extra = map[string]any{name: value}
	for k, v := range p.extra {
		q.extra[k] = v
	}
	return &q
}

// Every refusal there is: status, code and title meet here. The detail is added where one is made.
var (
	invalidJSON      = &problem{status: 400, code: "invalid_json", title: "The body is not acceptable JSON"}
	validationFailed = &problem{status: 400, code: "validation_failed", title: "A value is not acceptable"}
	missingKey       = &problem{status: 400, code: "missing_idempotency_key", title: "Idempotency-Key is missing", detail: "This request moves money or stock: send an Idempotency-Key header of 1 to 255 printable characters, the same one on each retry."}
	unauthorized     = &problem{status: 401, code: "unauthorized", title: "No valid credential", challenge: "Bearer"}
	invalidToken     = &problem{status: 401, code: "unauthorized", title: "No valid credential", challenge: `Bearer error="invalid_token"`}
	lackOfBalance    = &problem{status: 402, code: "insufficient_balance", title: "The balance does not cover the total"}
	forbidden        = &problem{status: 403, code: "forbidden", title: "Not allowed"}
	userNotFound     = &problem{status: 404, code: "user_not_found", title: "No such user", detail: "There is no user with this id."}
	productNotFound  = &problem{status: 404, code: "product_not_found", title: "No such product"}
	orderNotFound    = &problem{status: 404, code: "order_not_found", title: "No such order", detail: "There is no order with this id, or it is not this user's."}
	pathNotFound     = &problem{status: 404, code: "not_found", title: "No such path", detail: "There is nothing at this path."}
	wrongMethod      = &problem{status: 405, code: "method_not_allowed", title: "Method not allowed", detail: "This path does not take this method; the Allow header names those it takes."}
	outOfStock       = &problem{status: 409, code: "out_of_stock", title: "Not enough stock"}
	balanceLimit     = &problem{status: 409, code: "balance_limit", title: "Balance limit reached"}
	notPayable       = &problem{status: 409, code: "order_not_payable", title: "The order cannot be paid"}
	notCancelable    = &problem{status: 409, code: "order_not_cancelable", title: "The order cannot be cancelled"}
	cartEmpty        = &problem{status: 409, code: "cart_empty", title: "The cart is empty", detail: "There is nothing in the cart to order."}
	emailTaken       = &problem{status: 409, code: "email_taken", title: "Email is taken", detail: "Another user has this email."}
	requestTooSlow   = &problem{status: 408, code: "request_timeout", title: "The request took too long to arrive", detail: "A request must have arrived within 15 seconds. It was not carried out."}
	bodyTooLarge     = &problem{status: 413, code: "payload_too_large", title: "The body is too large", detail: "A body has at most 64 KiB; that of POST /orders/batch, sent with the admin token, 1 MiB."}
	wrongMediaType   = &problem{status: 415, code: "unsupported_media_type", title: "The body must be JSON", detail: "Send the body as Content-Type: application/json."}
	keyReused        = &problem{status: 422, code: "idempotency_key_reused", title: "Idempotency-Key was used before", detail: "This key was used with another method, path or body. Use a new key for a new request."}
	headersTooLarge  = &problem{status: 431, code: "headers_too_large", title: "The headers are too large", detail: "Request line and headers have at most 8 KiB together."}
	rateLimited      = &problem{status: 429, code: "rate_limited", title: "Too many requests"}
	internal         = &problem{status: 500, code: "internal", title: "Something broke"}
	overloaded       = &problem{status: 503, code: "overloaded", title: "Not done", detail: "The request was not carried out. Send it again in a moment.", retryAfter: 1}
	timedOut         = &problem{status: 504, code: "timeout", title: "Outcome unknown", detail: "The request may or may not have been carried out. Send it again with the same Idempotency-Key to learn which."}
)

// byError says which problem an error of the engine is. Where an error carries figures, figures adds them.
var byError = []struct {
	err     error
	problem *problem
}{
	{engine.ErrInvalid, validationFailed},
	{engine.ErrKeyReused, keyReused},
	{engine.ErrUserNotFound, userNotFound},
	{engine.ErrProductNotFound, productNotFound},
	{engine.ErrOrderNotFound, orderNotFound},
	{engine.ErrOutOfStock, outOfStock},
	{engine.ErrInsufficientBalance, lackOfBalance},
	{engine.ErrBalanceLimit, balanceLimit},
	{engine.ErrStockLimit, validationFailed},
	{engine.ErrOrderLimit, validationFailed},
	{engine.ErrNotPayable, notPayable},
	{engine.ErrNotCancelable, notCancelable},
	{engine.ErrCartEmpty, cartEmpty},
	{engine.ErrCartFull, validationFailed},
	{engine.ErrEmailTaken, emailTaken},
	{engine.ErrOverloaded, overloaded},
	{engine.ErrUnavailable, overloaded},
	{engine.ErrElsewhere, overloaded},
	{engine.ErrUnknown, timedOut},
}

// asProblem turns any error into one. What is not known becomes a 500 that tells nothing of the inside but an id
// that stands in the log.
func asProblem(ctx *fasthttp.RequestCtx, err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	for _, known := range byError {
		if errors.Is(err, known.err) {
			return figures(known.problem, err)
		}
	}
	id := requestID(ctx)
	return internal.with("The request failed for a reason on our side. Its id in the log is %s.", id).field("id", id)
}

// body is the problem as JSON has it.
func (p *problem) body() map[string]any {
	body := map[string]any{
		"type": "urn:stampede:problem:" + p.code, "title": p.title, "status": p.status, "code": p.code, "detail": p.detail,
	}
	for name, value := range p.extra {
		body[name] = value
	}
	return body
}

// write makes the problem the answer.
func (p *problem) write(r *fasthttp.Response) {
	if p.retryAfter > 0 {
		r.Header.Set(fasthttp.HeaderRetryAfter, strconv.Itoa(p.retryAfter))
	}
	if p.challenge != "" {
		r.Header.Set(fasthttp.HeaderWWWAuthenticate, p.challenge)
	}
	text, err := encoder.Marshal(p.body())
	if err != nil {
		text = nil // a map of strings and numbers always encodes
	}
	r.ResetBody()
	r.SetStatusCode(p.status)
	r.Header.SetContentType("application/problem+json")
	r.SetBody(text)
}

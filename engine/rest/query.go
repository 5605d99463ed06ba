package rest

import (
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// queryValue returns a parameter of the query, empty where it does not stand. One that stands twice is refused:
// whoever reads the same request elsewhere may take the other.
func queryValue(ctx *fasthttp.RequestCtx, name string) (string, error) {
	args := ctx.QueryArgs()
	if args.Len() == 0 {
		return "", nil // most requests
	}
	values := args.PeekMulti(name)
	switch {
	case len(values) == 0:
		return "", nil
	case len(values) > 1:
		return "", validationFailed.with("%s stands in the query more than once.", name)
	case len(values[0]) == 0:
		return "", validationFailed.with("%s is empty; leave it out or give it a value.", name)
	}
	return string(values[0]), nil
}

// bodyOrQuery returns an id that stands in the body, in the query or equally in both; 0 where it does not stand.
func bodyOrQuery(ctx *fasthttp.RequestCtx, name string, body id) (int64, error) {
	text, err := queryValue(ctx, name)
	if err != nil {
		return 0, err
	}
	var query int64
	if text != "" {
		if query, err = parseID(name, text); err != nil {
			return 0, err
		}
	}
	switch {
	case body == 0:
		return query, nil
	case query != 0 && query != int64(body):
		return 0, validationFailed.with("Body and query give different values for %s.", name)
	}
	return body.must(name)
}

// page is the answer of every list.
type page[T any] struct {
	Items      []T     `json:"items"`
	NextCursor *string `json:"next_cursor"`
}

const (
	limitDefault = 50
	limitMax     = 200
)

// limitOf returns how many items are asked for, standard where nothing is said.
func limitOf(ctx *fasthttp.RequestCtx, standard, most int) (int, error) {
	text, err := queryValue(ctx, "limit")
	if err != nil || text == "" {
		return standard, err
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most || strconv.Itoa(n) != text {
		return 0, validationFailed.with("limit must be 1 to %d.", most)
	}
	return n, nil
}

// list names what a cursor walks through, so that the cursor of one list does not pass in another.
type list string

const (
	productList list = "products:"
	orderList   list = "orders:"
)

// cursor stands for the last id of a page. It is opaque to clients.
func (l list) cursor(last int64) *string {
	text := base64.RawURLEncoding.EncodeToString(strconv.AppendInt([]byte(l), last, 10))
	return &text
}

// last returns the id that the request's cursor stands for, 0 where there is none.
func (l list) last(ctx *fasthttp.RequestCtx) (int64, error) {
	text, err := queryValue(ctx, "cursor")
	if err != nil || text == "" {
		return 0, err
	}
	if plain, err := base64.RawURLEncoding.Strict().DecodeString(text); err == nil {
		if last, of := strings.CutPrefix(string(plain), string(l)); of {
			// What the decoder skips, such as line breaks, was not in what the list returned.
			if n, err := parseID("cursor", last); err == nil && *l.cursor(n) == text {
				return n, nil
			}
		}
	}
	return 0, validationFailed.with("cursor is not one that this list returned.")
}

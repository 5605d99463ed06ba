package rest

import (
	"bytes"
	"math"
	"mime"
	"strings"
	"unsafe"

	"github.com/bytedance/sonic"
	"github.com/valyala/fasthttp"

	"stampede/engine"
)

// decoder accepts exactly the fields there are, spelled as they are. What it lets pass all the same, strict refuses.
var decoder = sonic.Config{
	CopyString:            true, // request memory is reused
	ValidateString:        true,
	DisallowUnknownFields: true,
	UseInt64:              true,
	CaseSensitive:         true,
}.Froze()

var encoder = sonic.Config{SortMapKeys: true}.Froze()

// id is a 64-bit id of a request: a decimal string or an integer there. 0 stands for one that is missing.
type id int64

const (
	malformedID id = -1 // another string or integer
	mistypedID  id = -2 // neither of them
)

// UnmarshalJSON takes whatever stands there; what is no id is refused where its name is known.
func (i *id) UnmarshalJSON(b []byte) error {
	text := b
	if len(b) > 2 && b[0] == '"' && b[len(b)-1] == '"' {
		text = b[1 : len(b)-1]
	}
	n, ok := digits(text)
	switch {
	case ok:
		*i = id(n)
	case b[0] == '"' || len(bytes.Trim(b, "-0123456789")) == 0:
		*i = malformedID
	default:
		*i = mistypedID
	}
	return nil
}

// must returns the id, which has to be there.
func (i id) must(name string) (int64, error) {
	if i <= 0 {
		return 0, noID(name)
	}
	return int64(i), nil
}

// parseID reads a decimal id without sign, leading zero or anything else around it.
func parseID[T string | []byte](name string, text T) (int64, error) {
	n, ok := digits(text)
	if !ok {
		return 0, noID(name)
	}
	return n, nil
}

func noID(name string) error {
	return validationFailed.with("%s must be a positive integer of at most 19 digits, as a number or a string.", name)
}

// digits reads a positive 64-bit integer: digits only, the first not 0.
func digits[T string | []byte](text T) (n int64, ok bool) {
	if len(text) == 0 || len(text) > 19 || text[0] == '0' {
		return 0, false
	}
	for i := range len(text) {
		d := int64(text[i]) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// decode reads the body of a request into v.
func decode(ctx *fasthttp.RequestCtx, v any) error {
	if !isJSON(ctx.Request.Header.ContentType()) {
		return wrongMediaType
	}
	if len(ctx.Request.Header.ContentEncoding()) > 0 {
		return wrongMediaType.with("Send the body as it is, without Content-Encoding.")
	}
	body := ctx.PostBody()
	if err := strict(body); err != nil {
		return err
	}
	// A view, not a copy: the decoder copies what it keeps.
	if err := decoder.UnmarshalFromString(unsafe.String(unsafe.SliceData(body), len(body)), v); err != nil {
		return decodeProblem(err)
	}
	return nil
}

// decodeOptional is decode for a request whose body may be missing, because nothing in it must be said.
func decodeOptional(ctx *fasthttp.RequestCtx, v any) error {
	if len(ctx.PostBody()) == 0 {
		return nil
	}
	return decode(ctx, v)
}

// decodeProblem says what was wrong without repeating the body, as the decoder's own text would.
func decodeProblem(err error) error {
	text := err.Error()
	switch {
	case strings.Contains(text, "unknown field"):
		if name := quoted(text); name != "" {
			return validationFailed.with("The field %q is not one of this request.", name)
		}
		return validationFailed.with("The body has a field that is not one of this request.")
	case strings.Contains(text, "ismatch"): // sonic's mismatch of types
		return validationFailed.with("A field has the wrong type: quantities, prices and amounts are plain integers, names are strings.")
	}
	return invalidJSON.with("The body is not valid JSON.")
}

// quoted returns the first text between double quotes if it is short and plain.
func quoted(s string) string {
	_, rest, _ := strings.Cut(s, `"`)
	name, _, ok := strings.Cut(rest, `"`)
	if !ok || len(name) > 64 {
		return ""
	}
	for _, r := range name {
		if r < ' ' || r > '~' {
			return ""
		}
	}
	return name
}

var plainJSON = []byte("application/json")

func isJSON(contentType []byte) bool {
	if bytes.Equal(contentType, plainJSON) {
		return true
	}
	media, params, err := mime.ParseMediaType(string(contentType))
	if err != nil || media != "application/json" {
		return false
	}
	charset, given := params["charset"]
	return !given || strings.EqualFold(charset, "utf-8")
}

// reply writes a success.
func reply(ctx *fasthttp.RequestCtx, status int, v any) error {
	body, err := encoder.Marshal(v)
	if err != nil {
		return err
	}
	ctx.SetStatusCode(status)
	ctx.SetContentType("application/json")
	ctx.SetBody(body)
	return nil
}

// replyOnce is reply for an answer that is stored under a key.
func replyOnce(ctx *fasthttp.RequestCtx, status int, replayed bool, v any) error {
	markReplay(ctx, replayed)
	return reply(ctx, status, v)
}

func markReplay(ctx *fasthttp.RequestCtx, replayed bool) {
	if replayed {
		ctx.Response.Header.Set("Idempotent-Replayed", "true")
	}
}

// idempotencyKey returns the request's idempotency key.
func idempotencyKey(ctx *fasthttp.RequestCtx) (string, error) {
	values := ctx.Request.Header.PeekAll("Idempotency-Key")
	switch {
	case len(values) == 0 || len(values[0]) == 0:
		return "", missingKey
	case len(values) > 1:
		return "", validationFailed.with("Idempotency-Key stands in the request more than once.")
	case len(values[0]) > 4*engine.KeyMax:
		return "", validationFailed.with("An idempotency key has 1 to %d printable characters.", engine.KeyMax)
	}
	return string(values[0]), nil
}

// optionalKey returns the request's idempotency key, empty where it has none. A header without a key is refused: its
// sender counts on one.
func optionalKey(ctx *fasthttp.RequestCtx) (string, error) {
	values := ctx.Request.Header.PeekAll("Idempotency-Key")
	switch {
	case len(values) == 0:
		return "", nil
	case len(values[0]) == 0:
		return "", validationFailed.with("Idempotency-Key is empty; leave it out or give it 1 to %d printable characters.", engine.KeyMax)
	}
	return idempotencyKey(ctx)
}

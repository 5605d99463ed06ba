package token

import (
	"bytes"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"
)

// timeMax is the last second of the year 9999, in Unix time. A time in milliseconds lies beyond it.
const timeMax = 253_402_300_799

var (
	errPayload  = refusal("the token's payload is not a JSON object that names each claim once")
	errIssuer   = refusal("the token's iss is not the issuer that this server trusts")
	errAudience = refusal("the token's aud does not name this server")
	errSubject  = refusal("the token has no sub that is a user id")
	errNoExpiry = refusal("the token has no exp")
	errTimes    = refusal("the token's exp, nbf and iat must be whole seconds since 1970")
)

// grant is what a token says: this user, at from <= now < expires, in seconds of Unix time.
type grant struct {
	user, from, expires int64
}

// check tells whether the grant holds.
func (g grant) check(now time.Time) error {
	// Unix rounds down, and with whole limits that changes neither comparison.
	switch second := now.Unix(); {
	case second >= g.expires:
		return errExpired
	case second < g.from:
		return errEarly
	}
	return nil
}

// grant reads the claims of a token whose signature holds.
func (c *Config) grant(payload []byte) (grant, error) {
	claims, ok := members(payload)
	if !ok {
		return grant{}, errPayload
	}
	if issuer, _ := text(claims["iss"]); c.Issuer != "" && issuer != c.Issuer {
		return grant{}, errIssuer
	}
	if c.Audience != "" && !audience(claims["aud"], c.Audience) {
		return grant{}, errAudience
	}
	var g grant
	if g.user, ok = userID(claims["sub"]); !ok {
		return grant{}, errSubject
	}
	expires, given := claims["exp"]
	if !given {
		return grant{}, errNoExpiry
	}
	if g.expires, ok = seconds(expires); !ok {
		return grant{}, errTimes
	}
	for _, name := range []string{"nbf", "iat"} {
		if begin, given := claims[name]; given {
			from, ok := seconds(begin)
			if !ok {
				return grant{}, errTimes
			}
			g.from = max(g.from, from)
		}
	}
	return g, nil
}

// members returns the values of a JSON object by their names. Not ok is anything else, a name that stands twice and
// text that is not UTF-8.
func members(object []byte) (values map[string]json.RawMessage, ok bool) {
	if !utf8.Valid(object) {
		return nil, false
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if begin, err := d.Token(); err != nil || begin != json.Delim('{') {
		return nil, false
	}
	values = make(map[string]json.RawMessage)
	for d.More() {
		token, err := d.Token()
		name, isName := token.(string)
		if _, twice := values[name]; err != nil || !isName || twice {
			return nil, false
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, false
		}
		values[name] = value
	}
	if _, err := d.Token(); err != nil { // the closing brace
		return nil, false
	}
	_, err := d.Token()
	return values, err == io.EOF //nolint:errorlint // the decoder's own, unwrapped
}

// text reads a JSON string. null reads as an empty one, which no caller takes; a missing value is not ok.
func text(value json.RawMessage) (s string, ok bool) {
	err := json.Unmarshal(value, &s)
	return s, err == nil
}

// audience tells whether aud, a string or a list of strings, contains name.
func audience(aud json.RawMessage, name string) bool {
	if one, ok := text(aud); ok {
		return one == name
	}
	var list []string
	return json.Unmarshal(aud, &list) == nil && slices.Contains(list, name)
}

// userID reads a decimal string without sign, leading zero or anything else around it.
func userID(sub json.RawMessage) (id int64, ok bool) {
	s, ok := text(sub)
	if !ok || s == "" || s[0] < '1' {
		return 0, false
	}
	id, err := strconv.ParseInt(s, 10, 64)
	return id, err == nil
}

// seconds reads a time. RFC 7519 also allows fractions; whoever writes one, or an exponent, is refused rather than
// rounded.
func seconds(value json.RawMessage) (unix int64, ok bool) {
	unix, err := strconv.ParseInt(string(value), 10, 64)
	return unix, err == nil && unix >= 0 && unix <= timeMax
}

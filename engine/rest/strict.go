package rest

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

const depthMax = 8 // the deepest body of the API nests five levels

// strict refuses what JSON decoders wave through and this API does not: a body that is no object, duplicate keys,
// null, invalid UTF-8, NUL and lone surrogates in strings, deep nesting. It checks tokens, not grammar: that is the
// decoder's.
func strict(body []byte) error {
	s := scanner{b: body}
	s.space()
	if s.at >= len(body) || body[s.at] != '{' {
		return invalidJSON.with("The body must be a JSON object.")
	}
	if !utf8.Valid(body) {
		return invalidJSON.with("The body is not valid UTF-8.")
	}
	return s.value(0)
}

// scanner walks over a body. Where the grammar is broken it stops without complaint.
type scanner struct {
	b  []byte
	at int
}

func (s *scanner) space() {
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ' ', '\t', '\n', '\r':
			s.at++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	if depth > depthMax {
		return invalidJSON.with("The body nests deeper than %d levels.", depthMax)
	}
	s.space()
	if s.at >= len(s.b) {
		return nil
	}
	switch s.b[s.at] {
	case '{':
		return s.object(depth)
	case '[':
		return s.array(depth)
	case '"':
		_, _, err := s.string()
		return err
	case 'n':
		return invalidJSON.with("null is not a value of any field; leave the field out.")
	}
	for s.at < len(s.b) {
		switch s.b[s.at] {
		case ',', '}', ']', ' ', '\t', '\n', '\r':
			return nil
		}
		s.at++
	}
	return nil
}

func (s *scanner) object(depth int) error {
	s.at++
	// Objects of the API have a handful of keys: looking through them beats a map.
	var room [8][]byte
	seen := room[:0]
	for {
		s.space()
		if s.at >= len(s.b) || s.b[s.at] != '"' {
			return s.skip()
		}
		name, err := s.key()
		if err != nil {
			return err
		}
		for _, other := range seen {
			if bytes.Equal(other, name) {
				return invalidJSON.with("The body names a key twice.")
			}
		}
		if len(seen) == cap(room) {
			return invalidJSON.with("The body has more fields than any request.")
		}
		seen = append(seen, name)
		s.space()
		if s.at >= len(s.b) || s.b[s.at] != ':' {
			return nil
		}
		s.at++
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if !s.more() {
			return s.skip()
		}
	}
}

func (s *scanner) array(depth int) error {
	s.at++
	for {
		s.space()
		if s.at >= len(s.b) || s.b[s.at] == ']' {
			return s.skip()
		}
		before := s.at
		if err := s.value(depth + 1); err != nil {
			return err
		}
		if s.at == before || !s.more() {
			return s.skip()
		}
	}
}

// more steps over a comma.
func (s *scanner) more() bool {
	s.space()
	if s.at < len(s.b) && s.b[s.at] == ',' {
		s.at++
		return true
	}
	return false
}

// skip steps over a closing bracket.
func (s *scanner) skip() error {
	if s.at < len(s.b) {
		s.at++
	}
	return nil
}

// key steps over a key and returns its text, decoded where it could hide behind escapes.
func (s *scanner) key() ([]byte, error) {
	raw, escaped, err := s.string()
	if err != nil || !escaped {
		return raw, err
	}
	var text string
	if err := decoder.UnmarshalFromString(`"`+string(raw)+`"`, &text); err != nil {
		return nil, invalidJSON.with("A key is not a valid string.")
	}
	return []byte(text), nil
}

// string steps over a string and returns what stands between its quotes.
func (s *scanner) string() (raw []byte, escaped bool, err error) {
	s.at++
	start := s.at
	for s.at < len(s.b) && s.b[s.at] != '"' {
		if s.b[s.at] != '\\' {
			s.at++
			continue
		}
		escaped = true
		if err := s.escape(); err != nil {
			return nil, true, err
		}
	}
	raw = s.b[start:min(s.at, len(s.b))]
	if s.at < len(s.b) {
		s.at++
	}
	return raw, escaped, nil
}

// escape steps over one escape, or over the two of a surrogate pair.
func (s *scanner) escape() error {
	r, ok := s.unicode()
	switch {
	case !ok:
		if s.at+1 < len(s.b) && strings.IndexByte(`"\/bfnrt`, s.b[s.at+1]) < 0 {
			return invalidJSON.with("A string has an escape that JSON does not know.")
		}
		s.at += 2
		return nil
	case r == 0:
		return invalidJSON.with("A string holds the character U+0000.")
	case r >= 0xdc00 && r <= 0xdfff:
		return errLoneSurrogate
	case r >= 0xd800 && r <= 0xdbff:
		if low, ok := s.unicode(); !ok || low < 0xdc00 || low > 0xdfff {
			return errLoneSurrogate
		}
	}
	return nil
}

var errLoneSurrogate = invalidJSON.with("A string holds half a surrogate pair.")

// unicode reads a \uXXXX escape.
func (s *scanner) unicode() (rune, bool) {
	if s.at+6 > len(s.b) || s.b[s.at] != '\\' || s.b[s.at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s.b[s.at+2 : s.at+6] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	s.at += 6
	return r, true
}

package engine

import (
	"crypto/sha256"
	"strconv"
	"unicode"
	"unicode/utf8"
)

// Fingerprint tells two requests under one idempotency key apart: 128 bits of SHA-256 over method, path, acting
// user and decoded body.
type Fingerprint [16]byte

func fingerprint(route string, scope int64, fields ...string) Fingerprint {
	b := make([]byte, 0, 256)
	b = appendField(b, route)
	b = strconv.AppendInt(b, scope, 10)
	for _, f := range fields {
		b = appendField(b, f)
	}
	sum := sha256.Sum256(b)
	return Fingerprint(sum[:16])
}

func fingerprintLines(route string, user int64, lines []Line) Fingerprint {
	var text [1024]byte
	b := appendField(text[:0], route)
	b = strconv.AppendInt(b, user, 10)
	for _, l := range lines {
		b = append(b, '|')
		b = strconv.AppendInt(b, l.ProductID, 10)
		b = append(b, 'x')
		b = strconv.AppendInt(b, l.Quantity, 10)
	}
	sum := sha256.Sum256(b)
	return Fingerprint(sum[:16])
}

// appendField writes the length first, so that no two lists of fields read alike.
func appendField(b []byte, s string) []byte {
	b = append(b, '|')
	b = strconv.AppendInt(b, int64(len(s)), 10)
	b = append(b, ':')
	return append(b, s...)
}

func checkUser(id int64) error {
	if id < 1 {
		return invalid("user_id must be a positive integer")
	}
	if id > IDMax {
		return ErrUserNotFound
	}
	return nil
}

func checkKey(key string) error {
	if key == "" || !utf8.ValidString(key) || utf8.RuneCountInString(key) > KeyMax {
		return invalid("an idempotency key has 1 to %d printable characters", KeyMax)
	}
	for _, r := range key {
		if !unicode.IsPrint(r) {
			return invalid("an idempotency key has printable characters only")
		}
	}
	return nil
}

package engine

import (
	"errors"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// A key is 1 to 255 printable characters; what is refused says so and repeats nothing of the key.
func FuzzKey(f *testing.F) {
	for _, seed := range []string{
		"k", "", " ", "a b", "a\tb", "a\x00b", "a\x7fb", "\xff", "a\u00a0b", "a\u200bb", "\u202e", "\ufffd", "{p0}:b:1",
		strings.Repeat("k", KeyMax), strings.Repeat("k", KeyMax+1), strings.Repeat("ж", KeyMax), strings.Repeat("ж", KeyMax+1),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, key string) {
		characters, printable := 0, utf8.ValidString(key)
		for _, r := range key {
			characters++
			printable = printable && unicode.IsPrint(r)
		}
		sound := printable && characters >= 1 && characters <= KeyMax
		err := checkKey(key)
		if (err == nil) != sound {
			t.Fatalf("%q: %v, want it taken: %v", key, err, sound)
		}
		if err != nil && !errors.Is(err, ErrInvalid) {
			t.Fatalf("%q: %v", key, err)
		}
	})
}

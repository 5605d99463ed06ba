package stack

import (
	"bytes"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// isTorn reports whether the rest of an AOF, from where it is no longer whole, is what a write leaves
// that was cut short: the beginning of one command, or of one transaction. Anything else is damage,
// and may have whole changes after it. Zeros at the end are room that the file system gave to a
// write which never came.
func isTorn(rest *io.SectionReader) (bool, error) {
	if rest.Size() > tornBytesMax {
		return false, nil
	}
	text, err := io.ReadAll(rest)
	if err != nil {
		return false, err
	}
	if _, err := rest.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	return tornAtEnd(bytes.TrimRight(text, "\x00")), nil
}

// tornAtEnd reads commands as Redis does, up to the one that is not whole.
func tornAtEnd(text []byte) bool {
	tail := aofTail{text: text}
	for n := 0; ; n++ {
		name, state := tail.command()
		switch {
		case state != aofWhole:
			return state == aofCut
		case n == 0 && !strings.EqualFold(name, "MULTI"):
			return false // whole, and yet the check stopped before it
		case n > 0 && (strings.EqualFold(name, "MULTI") || strings.EqualFold(name, "EXEC")):
			return false // another transaction
		}
	}
}

// States of what was read.
const (
	aofWhole = iota
	aofCut   // the text ended in it
	aofOther // it is no command
)

// aofTail reads commands in the format of Redis: *<arguments>, and for each $<bytes> and the bytes,
// all ended by CR LF. Lines that begin with # are notes.
type aofTail struct{ text []byte }

// commandHead is how a command begins after another one.
var commandHead = regexp.MustCompile(`\r\n\*[1-9][0-9]*\r\n\$[1-9][0-9]*\r\n`)

// command reads one, and returns its first argument.
func (t *aofTail) command() (name string, state int) {
	for len(t.text) > 0 && t.text[0] == '#' {
		end := bytes.IndexByte(t.text, '\n')
		if end < 0 {
			return "", aofCut
		}
		t.text = t.text[end+1:]
	}
	count, state := t.number('*')
	if state != aofWhole {
		return "", state
	}
	for i := range count {
		length, state := t.number('$')
		if state != aofWhole {
			return "", state
		}
		if length+2 > len(t.text) {
			return "", t.cutWithin()
		}
		if string(t.text[length:length+2]) != "\r\n" {
			return "", aofOther
		}
		if i == 0 {
			name = string(t.text[:length])
		}
		t.text = t.text[length+2:]
	}
	return name, aofWhole
}

// cutWithin judges an argument that is longer than what is left. A damaged length swallows the
// commands after it.
func (t *aofTail) cutWithin() int {
	if commandHead.Match(t.text) {
		return aofOther
	}
	return aofCut
}

// number reads a line that is a mark and a number.
func (t *aofTail) number(mark byte) (n, state int) {
	const digitsMax = 10
	line, rest, ended := bytes.Cut(t.text, []byte("\r\n"))
	if len(line) > 0 && line[0] != mark {
		return 0, aofOther
	}
	if !ended {
		// The CR may be there without its LF.
		digits := strings.TrimSuffix(strings.TrimPrefix(string(line), string(mark)), "\r")
		if _, err := strconv.ParseUint(digits, 10, 32); err != nil && digits != "" {
			return 0, aofOther
		}
		return 0, aofCut
	}
	if len(line) < 2 || len(line) > digitsMax+1 {
		return 0, aofOther
	}
	value, err := strconv.ParseUint(string(line[1:]), 10, 31)
	if err != nil {
		return 0, aofOther
	}
	t.text = rest
	return int(value), aofWhole
}

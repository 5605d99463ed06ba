package stack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

const (
	productRedis  = "Redis"
	productValkey = "Valkey"

	// releaseFile holds which server wrote the directory, in its home.
	releaseFile = "server.version"
)

// release is a version of Redis or Valkey; the zero value is an unknown one.
type release struct {
	product      string
	major, minor int
	text         string // of the version
}

func (r release) String() string { return r.product + " " + r.text }

func (r release) known() bool { return r.product != "" }

// atLeast compares the versions of one product.
func (r release) atLeast(major, minor int) bool {
	return r.major > major || r.major == major && r.minor >= minor
}

var releasePattern = regexp.MustCompile(`^(\w+) ((\d+)\.(\d+)\S*)$`)

// parseRelease reads what String writes.
func parseRelease(text string) (release, bool) {
	match := releasePattern.FindStringSubmatch(strings.TrimSpace(text))
	if match == nil {
		return release{}, false
	}
	major, err1 := strconv.Atoi(match[3])
	minor, err2 := strconv.Atoi(match[4])
	return release{product: match[1], major: major, minor: minor, text: match[2]}, err1 == nil && err2 == nil
}

// rdbFormat is that of an RDB file, by the magic word and the number with which it begins.
type rdbFormat struct {
	magic  string
	number int
}

func (f rdbFormat) String() string {
	if f.magic == magicValkey {
		return fmt.Sprintf("%s%03d", f.magic, f.number)
	}
	return fmt.Sprintf("%s%04d", f.magic, f.number)
}

const (
	magicRedis  = "REDIS"
	magicValkey = "VALKEY"
)

// writes is the format in which a release writes. One newer than those that were looked at is
// taken to write what the newest of them does.
func (r release) writes() rdbFormat {
	switch {
	case r.product == productValkey && r.atLeast(9, 0):
		return rdbFormat{magicValkey, 80}
	case r.product == productValkey:
		return rdbFormat{magicRedis, 11}
	case r.atLeast(7, 4):
		return rdbFormat{magicRedis, 12}
	case r.atLeast(7, 2):
		return rdbFormat{magicRedis, 11}
	}
	return rdbFormat{magicRedis, 10}
}

// reads reports whether a release can read a format: its own, and the older ones from which that was
// developed. Redis and Valkey parted after format 11: neither reads what the other has added since.
func (r release) reads(f rdbFormat) bool {
	switch {
	case r.product == productValkey && f.magic == magicRedis:
		return f.number <= 11
	case r.product == productValkey:
		return r.atLeast(9, 0)
	case r.product == productRedis && f.magic == magicValkey:
		return false
	case r.product == productRedis && !r.atLeast(8, 3):
		return f.number <= r.writes().number
	}
	return true // a server that was not looked at: what it cannot read it refuses itself
}

// written is what is known of the server that wrote a directory.
type written struct {
	by     release   // unknown for a new directory
	format rdbFormat // of its base file; the zero value if there is none
}

// openable says why a release must not open a directory; nil if it may.
//
// A server reads what an older one of its kind wrote, and promises nothing about newer ones: their
// commands may be in the AOF, and their types in the base file. What another product can read is a
// matter of the format alone.
func (w written) openable(r release) error {
	if w.format != (rdbFormat{}) && !r.reads(w.format) {
		return fmt.Errorf("%s does not read the format %s", r, w.format)
	}
	if !w.by.known() {
		return nil
	}
	if w.by.product == r.product {
		if !r.atLeast(w.by.major, w.by.minor) {
			return fmt.Errorf("%s is older", r)
		}
		return nil
	}
	if !r.reads(w.by.writes()) {
		return fmt.Errorf("%s does not read the format %s", r, w.by.writes())
	}
	return nil
}

// refusal says that no server which was found can open the directory.
func (w written) refusal(home string, reasons []string) error {
	who, wanted := w.by.String(), fmt.Sprintf("%s %d.%d or newer", w.by.product, w.by.major, w.by.minor)
	if !w.by.known() {
		who, wanted = "a server that writes the format "+w.format.String(), "that server"
	}
	return &ConfigError{
		What: fmt.Sprintf("the data in %s was written by %s: %s", home, who, strings.Join(reasons, "; ")),
		Do: fmt.Sprintf("nothing was changed; have %s in PATH and start again, "+
			"or take another directory with --data-dir", wanted),
	}
}

// whoWrote reads the record in the home of a server, and the head of its base file: that may be
// newer than the record after a kill, and a directory of the release before has no record.
func whoWrote(home string) (written, error) {
	var w written
	path := filepath.Join(home, releaseFile)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return w, unusable(path, err)
	}
	if err == nil {
		if by, ok := parseRelease(string(text)); ok {
			w.by = by
		}
	}
	bases, err := manifestFiles(filepath.Join(home, aofDir), manifestBase)
	if err != nil || len(bases) == 0 {
		return w, err
	}
	by, format, err := readBase(bases[0])
	if err != nil {
		return w, err
	}
	w.format = format
	if !w.by.known() || w.by.product == by.product && by.atLeast(w.by.major, w.by.minor) {
		w.by = by
	}
	return w, nil
}

// readBase reads the head of a base file. The zero values mean that it is no RDB file, or that it is
// missing: Redis says so.
func readBase(path string) (release, rdbFormat, error) {
	const headBytes = 64
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return release{}, rdbFormat{}, nil
	}
	if err != nil {
		return release{}, rdbFormat{}, unusable(path, err)
	}
	defer func() { _ = file.Close() }()
	head := make([]byte, headBytes)
	n, err := io.ReadFull(file, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return release{}, rdbFormat{}, unusable(path, err)
	}
	by, format := parseBase(head[:n])
	return by, format, nil
}

// rdbHead is how an RDB file begins: magic word and number.
var rdbHead = regexp.MustCompile(`^(?:(REDIS)([0-9]{4})|(VALKEY)([0-9]{3}))`)

// parseBase reads the head of an RDB file and the note after it, which names the writer: 0xfa, the
// length of a name, the name, the length of a version, the version.
func parseBase(head []byte) (release, rdbFormat) {
	const (
		noteMark = 0xfa
		nameAt   = 11
	)
	match := rdbHead.FindSubmatch(head)
	if match == nil {
		return release{}, rdbFormat{}
	}
	format := rdbFormat{magic: string(match[1]) + string(match[3])}
	format.number, _ = strconv.Atoi(string(match[2]) + string(match[4])) // they are digits
	if len(head) <= nameAt || head[nameAt-2] != noteMark {
		return release{}, format
	}
	name, rest, found := strings.Cut(string(head[nameAt:]), "-ver")
	if !found || len(rest) == 0 || int(rest[0]) >= len(rest) {
		return release{}, format
	}
	products := map[string]string{"redis": productRedis, "valkey": productValkey}
	by, ok := parseRelease(products[name] + " " + rest[1:1+int(rest[0])])
	if !ok {
		return release{}, format
	}
	return by, format
}

// recordRelease asks the server which one it is, and writes it down if that is news. The server has
// read the directory by then, and begins to write to it.
func (r *redisServer) recordRelease(ctx context.Context) error {
	by, err := r.askRelease(ctx)
	if err != nil {
		return err
	}
	path := filepath.Join(r.home, releaseFile)
	line := by.String() + "\n"
	if text, err := os.ReadFile(path); err == nil && string(text) == line {
		return nil
	}
	if err := writeFile(path, line); err != nil {
		return unusable(path, err)
	}
	return nil
}

func (r *redisServer) askRelease(ctx context.Context) (by release, err error) {
	client := redis.NewClient(r.clientOptions())
	defer func() { err = errors.Join(err, client.Close()) }()
	info, err := client.InfoMap(ctx, "server").Result()
	if err != nil {
		return release{}, fmt.Errorf("ask %s for its version: %w", r.program, err)
	}
	server := info["Server"]
	product, version := productRedis, server["redis_version"]
	if server["server_name"] == "valkey" {
		product, version = productValkey, server["valkey_version"]
	}
	by, ok := parseRelease(product + " " + version)
	if !ok {
		return release{}, fmt.Errorf("ask %s for its version: it answers %q", r.program, version)
	}
	return by, nil
}

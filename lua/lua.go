// Package lua holds the scripts that decide: one file a script, embedded in the binary.
//
// A script that sells starts with the prelude door.lua, which keeps the door, reads the shared arguments
// and writes the stream entry. Repair and upkeep scripts (look, claim, open, leave, replay, begin, load, trim and others) work without it.
package lua

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts by SHA-1; nothing is protected by it.
	"embed"
	"encoding/hex"
	"fmt"
	"strings"
)

//go:embed *.lua
var files embed.FS

// Script is a Lua script as Redis runs it.
type Script struct {
	Name string // file name without .lua
	Text string // what EVAL takes
	SHA  string // what EVALSHA takes: lower-case hex
}

// Scripts that sell, behind the door.
var (
	Place    = guarded("place", "sale")
	Reserve  = guarded("reserve", "sale")
	Debit    = guarded("debit", "sale")
	Rollback = guarded("rollback", "sale")
	Cart     = guarded("cart", "sale")
	Charge   = guarded("charge")
	Restock  = guarded("restock")
	List     = guarded("list")
	Enroll   = guarded("enroll")
	Roll     = guarded("roll", "sale")
	Lend     = guarded("lend", "transfer")
	Credit   = guarded("credit", "transfer")
	Settle   = guarded("settle", "transfer")
)

// Scripts of repair and upkeep.
var (
	Look   = timed("look")
	Claim  = plain("claim")
	Open   = timed("open")
	Leave  = plain("leave")
	Pulse  = plain("pulse")
	Replay = timed("replay")
	Begin  = plain("begin")
	Load   = plain("load")
	Trim   = plain("trim")
	Forget = plain("forget")
	Lapse  = plain("lapse")
	Due    = timed("due")
	Top    = timed("top")
	Rights = plain("rights")
	Tells  = plain("tells")
)

// All lists every script, for loading ahead and for tests.
func All() []*Script {
	return []*Script{
		Place, Reserve, Debit, Rollback, Cart, Charge, Restock, List, Enroll, Roll, Lend, Credit, Settle,
		Look, Claim, Open, Leave, Pulse, Replay, Begin, Load, Trim, Forget, Lapse, Due, Top, Rights, Tells,
	}
}

// Commands are those of Redis that scripts call.
var Commands = []string{
	"DEL", "EXISTS", "HDEL", "HGET", "HINCRBY", "HMGET", "HSCAN", "HSET", "HSETNX", "INFO", "MGET", "MSET", "SET", "TIME",
	"UNLINK", "XADD", "XTRIM", "ZADD", "ZCARD", "ZINCRBY", "ZMSCORE", "ZRANGE", "ZREM", "ZREMRANGEBYSCORE",
}

func plain(name string) *Script {
	return script(name, source(name))
}

// timed is a script that reads the partition's clock.
func timed(name string) *Script { return prefixed(name, "clock") }

// guarded is a script with the clock, the prelude, and further parts that several scripts share.
func guarded(name string, parts ...string) *Script {
	return prefixed(name, append([]string{"clock", "door"}, parts...)...)
}

// prefixed puts parts after the script's first line, which must stay the shebang: without it Redis would neither refuse
// work beyond maxmemory up front nor check the slots of the keys.
func prefixed(name string, parts ...string) *Script {
	first, body, ok := strings.Cut(source(name), "\n")
	if !ok || !strings.HasPrefix(first, "#!lua") {
		panic(fmt.Sprintf("lua: %s.lua does not begin with #!lua", name))
	}
	shared := ""
	for _, part := range parts {
		shared += source(part)
	}
	return script(name, first+"\n"+shared+body)
}

func script(name, text string) *Script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see the import
	return &Script{Name: name, Text: text, SHA: hex.EncodeToString(sum[:])}
}

func source(name string) string {
	text, err := files.ReadFile(name + ".lua")
	if err != nil {
		panic(fmt.Sprintf("lua: %v", err)) // embedded at build time
	}
	return string(text)
}

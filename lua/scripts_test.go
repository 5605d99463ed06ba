package lua_test

import (
	"context"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/lua"
)

func TestScripts_AreAllThereIs(t *testing.T) {
	var names []string
	for _, s := range lua.All() {
		names = append(names, s.Name)
	}
	var files []string
	for _, s := range sources(t) {
		if !isPrelude(s.name) {
			files = append(files, s.name)
		}
	}
	slices.Sort(names)
	if !slices.Equal(names, files) {
		t.Errorf("scripts %v, files %v", names, files)
	}
}

func TestScripts_CarryThePreludeExactlyWhereTheySell(t *testing.T) {
	text, err := os.ReadFile(clock + ".lua")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range lua.All() {
		first, rest, _ := strings.Cut(s.Text, "\n")
		if !strings.HasPrefix(first, "#!lua") {
			t.Errorf("%s begins with %q", s.Name, first)
		}
		sells := slices.Contains(guarded, s)
		rest, hasClock := strings.CutPrefix(rest, string(text))
		if reads := regexp.MustCompile(`\b(read|start)_clock\(`).MatchString(rest); reads != hasClock {
			t.Errorf("%s: reads the clock %t, has clock.lua %t", s.Name, reads, hasClock)
		}
		if strings.HasPrefix(rest, "-- door.lua:") != sells || strings.Count(s.Text, "local function enter()") != map[bool]int{true: 1}[sells] {
			t.Errorf("%s: guarded %t, but the prelude is not where it should be", s.Name, sells)
		}
		if sells && !strings.Contains(s.Text, "shut = enter()\nif shut then return shut end\n") {
			t.Errorf("%s does not ask at the door", s.Name)
		}
	}
}

func TestScripts_LoadIntoRedisUnderTheirNames(t *testing.T) {
	s := stacktest.Start(t, stack.Options{NoPostgres: true})
	o, err := redis.ParseURL(s.RedisURL())
	if err != nil {
		t.Fatal(err)
	}
	o.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	client := redis.NewClient(o)
	defer client.Close() //nolint:errcheck // nothing is pending
	for _, s := range lua.All() {
		sha, err := client.ScriptLoad(context.Background(), s.Text).Result()
		if err != nil {
			t.Errorf("%s: %v", s.Name, err)
			continue
		}
		if sha != s.SHA {
			t.Errorf("%s: Redis calls it %s, we call it %s", s.Name, sha, s.SHA)
		}
	}
}

// Lua prints 123456789012345 as 1.2345678901234e+14: figures are packed or handed to redis.call as they are.
func TestScripts_NeverPrintFiguresTheLuaWay(t *testing.T) {
	const figure = `(?:[\w.]*(?:balance|stock|total|amount|price|quantity|delta|_ms|seq|minute|epoch|bytes|sold|units)\w*(?:\[[^]]*\])*)`
	banned := map[string]*regexp.Regexp{
		"tostring":              regexp.MustCompile(`\btostring\b`),
		"cjson":                 regexp.MustCompile(`\bcjson\b`),
		"a figure before ..":    regexp.MustCompile(figure + `\s*\.\.[^.]`),
		"a figure behind ..":    regexp.MustCompile(`[^.]\.\.\s*` + figure + `[^\w([.]`),
		"a sum with ..":         regexp.MustCompile(`[-+*/] [\w.]+ \.\. `),
		"a key that is built":   regexp.MustCompile(`(?:KEYS\[[^]]*\]|[\w]*key)\s*\.\.`),
		"a key that is spelled": regexp.MustCompile(`redis\.call\('(?:[A-HJ-Z]\w*|I[A-MO-Z]\w*)', '`), // all but INFO
		// %d is C's long in Redis' Lua: exact for all that a double holds exactly.
		"a verb other than %.0f and %d": regexp.MustCompile(`\bformat\('[^']*%(?:016)?(?:[^.0d]|\.[^0]|\.0[^f])`),
	}
	each(t, true, func(t *testing.T, s source) {
		for what, pattern := range banned {
			if found := pattern.FindString(s.body); found != "" {
				t.Errorf("%s: %q", what, found)
			}
		}
	})
	// The patterns find what they are for.
	for what, text := range map[string]string{
		"tostring":                      "x = tostring(balance)",
		"cjson":                         "cjson.encode(x)",
		"a figure before ..":            "x = balances[user] .. ':'",
		"a figure behind ..":            "x = 'total ' .. total)",
		"a sum with ..":                 "x = a + b .. ''",
		"a key that is built":           "redis.call('GET', KEYS[1] .. 'x')",
		"a key that is spelled":         "redis.call('GET', 'meta')",
		"a verb other than %.0f and %d": "string.format('%s', x)",
	} {
		if !banned[what].MatchString(text) {
			t.Errorf("the pattern for %s passes %q", what, text)
		}
	}
}

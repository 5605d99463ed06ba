package lua_test

import (
	"regexp"
	"slices"
	"testing"

	"stampede/lua"
)

// Whoever starts a shop is asked for the right to each of them first: one that is missing here could be refused in the
// middle of a script.
func TestCommands_AreThoseThatScriptsCall(t *testing.T) {
	called := map[string]bool{}
	calls := regexp.MustCompile(`\bredis\s*\.\s*p?call\b\s*(?:\(\s*'([A-Z]+)')?`)
	for _, s := range sources(t) {
		for _, call := range calls.FindAllStringSubmatch(s.body, -1) {
			if call[1] == "" {
				t.Errorf("%s: cannot tell the command of a call", s.name)
			}
			called[call[1]] = true
		}
	}
	for command := range called {
		if !slices.Contains(lua.Commands, command) {
			t.Errorf("%s is called and not listed", command)
		}
	}
	for _, command := range lua.Commands {
		if !called[command] {
			t.Errorf("%s is listed and never called", command)
		}
	}
}

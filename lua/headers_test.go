package lua_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"stampede/lua"
)

// source is a script file, cut into what its header says and what its body does.
type source struct {
	name     string
	shebang  string
	title    string
	order    []string            // section names as they come
	sections map[string][]string // lines of each, without the comment sign
	body     string              // without comments
	guarded  bool
	shared   string // the part that it has behind the door: sale, transfer or none
}

// The preludes: files that stand before the bodies of others.
const (
	clock   = "clock" // also before the scripts that read the time without the door
	prelude = "door"
	// Behind the door, for some.
	sale     = "sale"
	transfer = "transfer"
)

func isPrelude(name string) bool {
	return name == clock || name == prelude || name == sale || name == transfer
}

var (
	sells     = []*lua.Script{lua.Place, lua.Reserve, lua.Debit, lua.Rollback, lua.Cart, lua.Roll}
	transfers = []*lua.Script{lua.Lend, lua.Credit, lua.Settle}
	guarded   = slices.Concat([]*lua.Script{lua.Charge, lua.Restock, lua.List, lua.Enroll}, sells, transfers)
)

func sources(t *testing.T) []source {
	t.Helper()
	files, err := filepath.Glob("*.lua")
	if err != nil || len(files) == 0 {
		t.Fatal("no scripts", err)
	}
	all := make([]source, len(files))
	for i, file := range files {
		all[i] = parse(t, file)
	}
	return all
}

// each runs a check as a subtest of every script; the preludes only where that is said.
func each(t *testing.T, withPreludes bool, check func(t *testing.T, s source)) {
	for _, s := range sources(t) {
		if !isPrelude(s.name) || withPreludes {
			t.Run(s.name, func(t *testing.T) { check(t, s) })
		}
	}
}

var comment = regexp.MustCompile(`(?m)\s*--.*$`)

func parse(t *testing.T, file string) source {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := source{name: strings.TrimSuffix(file, ".lua"), sections: map[string][]string{}}
	named := func(g *lua.Script) bool { return g.Name == s.name }
	s.guarded = slices.ContainsFunc(guarded, named)
	switch {
	case slices.ContainsFunc(sells, named):
		s.shared = sale
	case slices.ContainsFunc(transfers, named):
		s.shared = transfer
	}
	rest := strings.Split(string(text), "\n")
	if strings.HasPrefix(rest[0], "#!") {
		s.shebang, rest = rest[0], rest[1:]
	}
	section := ""
	for len(rest) > 0 && strings.HasPrefix(rest[0], "--") {
		line := strings.TrimPrefix(rest[0], "--")
		if rest = rest[1:]; s.title == "" {
			s.title = strings.TrimSpace(line)
		}
		switch {
		case strings.HasPrefix(line, "   ") && section != "":
			s.sections[section] = append(s.sections[section], strings.TrimPrefix(line, "   "))
		case regexp.MustCompile(`^ (KEYS|ARGV|Replies|Event)$`).MatchString(line):
			section = line[1:]
			s.order = append(s.order, section)
		default:
			section = ""
		}
	}
	s.body = comment.ReplaceAllString(strings.Join(rest, "\n"), "")
	return s
}

func TestHeader_HasItsSectionsInOrder(t *testing.T) {
	each(t, true, func(t *testing.T, s source) {
		want := []string{"KEYS", "ARGV", "Replies", "Event"}
		if isPrelude(s.name) {
			want = want[:2] // it replies and writes for the others
		}
		if !slices.Equal(s.order, want) {
			t.Errorf("sections %v, want %v", s.order, want)
		}
		for _, name := range want {
			if len(s.sections[name]) == 0 {
				t.Errorf("section %s is empty", name)
			}
		}
		if !strings.HasPrefix(s.title, s.name+".lua: ") {
			t.Errorf("the header begins with %q", s.title)
		}
		if s.body == "" {
			t.Error("no body")
		}
	})
}

func TestHeader_BeginsWithItsShebang(t *testing.T) {
	each(t, true, func(t *testing.T, s source) {
		switch {
		case isPrelude(s.name):
			if s.shebang != "" {
				t.Error("the prelude comes behind the shebang of others")
			}
		case s.guarded && s.shebang != "#!lua":
			t.Errorf("%q: a script that sells must be refused when memory is full", s.shebang)
		case !regexp.MustCompile(`^#!lua( flags=(allow-oom|no-writes))?$`).MatchString(s.shebang):
			t.Errorf("%q", s.shebang)
		}
	})
}

// arguments is what a header says of KEYS or ARGV: single ones, then perhaps groups of any length.
type arguments struct {
	fixed  int // 1 to fixed are named one by one
	groups int // behind them
}

var entry = regexp.MustCompile(`^(\d+)(\.\.)?  +\S|^then  +\S|^none$|^ `)

func (s *source) arguments(t *testing.T, section string) arguments {
	t.Helper()
	var a arguments
	for _, line := range s.sections[section] {
		m := entry.FindStringSubmatch(line)
		switch {
		case m == nil:
			t.Errorf("%s: cannot read %q", section, line)
		case m[1] != "" && (m[1] != strconv.Itoa(a.fixed+1) || a.groups > 0):
			t.Errorf("%s: %q is out of order", section, line)
		case m[2] != "":
			a.groups++
		case m[1] != "":
			a.fixed++
		case strings.HasPrefix(line, "then"):
			if a.groups++; a.groups == 1 {
				t.Errorf("%s: %q follows no group", section, line)
			}
		}
	}
	return a
}

func numbers(t *testing.T, pattern, body string) []int {
	t.Helper()
	var all []int
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(body, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, n)
	}
	return all
}

func TestHeader_NamesTheKeysAndArgumentsOfTheBody(t *testing.T) {
	door := parse(t, prelude+".lua")
	each(t, true, func(t *testing.T, s source) {
		for _, section := range []string{"KEYS", "ARGV"} {
			a, body := s.arguments(t, section), s.body
			if s.guarded {
				// The prelude comes before the body and uses the same arguments.
				body = door.body + body
				if d := door.arguments(t, section); d.fixed > a.fixed {
					t.Errorf("%s: %d named, the prelude uses %d", section, a.fixed, d.fixed)
				}
			}
			used := numbers(t, section+`\[(\d+)\]`, body)
			for n := range a.fixed {
				if !slices.Contains(used, n+1) {
					t.Errorf("%s[%d] is named and never used", section, n+1)
				}
			}
			for _, n := range used {
				if n > a.fixed {
					t.Errorf("%s[%d] is used, the header names %d", section, n, a.fixed)
				}
			}
			// A group is walked as X[fixed + i], for i = fixed+1, #X, or from <name>_at on.
			for _, n := range numbers(t, section+`\[(\d+) \+ i\]`, s.body) {
				if a.groups == 0 || n != a.fixed {
					t.Errorf("%s[%d + i] is used, the header begins its group behind %d", section, n, a.fixed)
				}
			}
			for _, n := range numbers(t, `for i = (\d+), #`+section, s.body) {
				if a.groups == 0 || n != a.fixed+1 {
					t.Errorf("%s is walked from %d on, the header begins its group behind %d", section, n, a.fixed)
				}
			}
			for _, n := range numbers(t, `#`+section+` - (\d+)`, s.body) {
				if a.groups == 0 || n != a.fixed {
					t.Errorf("#%s - %d is counted, the header names %d before the group", section, n, a.fixed)
				}
			}
			walks := section + `\[[^]]*i\]|#` + section
			if section == "KEYS" {
				walks += `|gather\(|read_shares\(`
			}
			if grouped := regexp.MustCompile(walks).MatchString(s.body); !isPrelude(s.name) && grouped != (a.groups > 0) {
				t.Errorf("%s: the body walks a group: %t, the header names %d", section, grouped, a.groups)
			}
		}
	})
}

// Bodies with several groups of keys say where each begins: <name>_at is the index before its first.
func TestHeader_NamesEachGroupOfKeys(t *testing.T) {
	declaration := regexp.MustCompile(`local ((?:\w+_at(?:, )?)+) = (\w+)`)
	each(t, false, func(t *testing.T, s source) {
		var groups []string
		first := ""
		for _, m := range declaration.FindAllStringSubmatch(s.body, -1) {
			groups = append(groups, strings.Split(m[1], ", ")...)
			if first == "" {
				first = m[2]
			}
		}
		a := s.arguments(t, "KEYS")
		if len(groups) == 0 {
			if a.groups > 1 {
				t.Errorf("%d groups of keys are named, none in the body", a.groups)
			}
			return
		}
		if len(groups) != a.groups || first != strconv.Itoa(a.fixed) {
			t.Errorf("groups %v begin behind key %s, the header names %d behind %d", groups, first, a.groups, a.fixed)
		}
	})
}

// codes reads the table of answers in the prelude.
func codes(t *testing.T) map[string]string {
	t.Helper()
	_, table, _ := strings.Cut(parse(t, prelude+".lua").body, "local code = {")
	table, _, found := strings.Cut(table, "}")
	if !found {
		t.Fatal("the prelude has no table of codes")
	}
	all := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+) = (\d+),`).FindAllStringSubmatch(table, -1) {
		all[m[1]] = m[2]
	}
	return all
}

// split cuts a list at the commas outside of brackets; it ends with the bracket that closes it.
func split(list string) []string {
	var all []string
	depth, from := 0, 0
	for i, c := range list {
		switch c {
		case '(', '[', '{':
			depth++
		case ')', ']', '}':
			if depth--; depth < 0 {
				return append(all, strings.TrimSpace(list[from:i]))
			}
		case ',':
			if depth == 0 {
				all = append(all, strings.TrimSpace(list[from:i]))
				from = i + 1
			}
		}
	}
	return append(all, strings.TrimSpace(list[from:]))
}

// joined returns the values of a piece that is packed once and joined to the one packed at a place:
// local HEAD = pack(...), local piece = pack(...), HEAD .. piece.
func joined(body string, at int) []string {
	head := regexp.MustCompile(`local (\w+) = $`).FindStringSubmatch(body[:at])
	if head == nil {
		return nil
	}
	piece := regexp.MustCompile(`\b` + head[1] + ` \.\. (\w+)`).FindStringSubmatch(body)
	if piece == nil {
		return nil
	}
	_, packed, found := strings.Cut(body, "local "+piece[1]+" = pack(")
	if !found {
		return nil
	}
	return split(packed)
}

func TestHeader_NamesTheRepliesOfTheBody(t *testing.T) {
	known := codes(t)
	each(t, false, func(t *testing.T, s source) {
		if !s.guarded {
			if strings.Contains(s.body, "code.") {
				t.Error("uses the prelude's codes and is not guarded")
			}
			return
		}
		figures := map[string]int{} // a reply's values, its code among them
		for _, line := range s.sections["Replies"] {
			m := regexp.MustCompile(`^(\w+) +(\d+)(?:, (.*))?$`).FindStringSubmatch(line)
			if m == nil {
				continue
			}
			if known[m[1]] != m[2] {
				t.Errorf("reply %s is %s in the header, %q in the prelude", m[1], m[2], known[m[1]])
			}
			figures[m[1]] = 1
			if m[3] != "" {
				figures[m[1]] += len(split(m[3]))
			}
		}
		used := map[string]bool{}
		given := map[string]bool{}
		s.sharedReplies(t, used, given)
		for _, m := range regexp.MustCompile(`code\.(\w+)`).FindAllStringSubmatch(s.body, -1) {
			used[m[1]] = true
		}
		for name := range figures {
			if !used[name] {
				t.Errorf("reply %s is named and never given", name)
			}
		}
		for name := range used {
			if figures[name] == 0 {
				t.Errorf("reply %s is given and not named", name)
			}
		}
		// pack(NAME, ...) gives as many values as the header says.
		for _, at := range regexp.MustCompile(`pack\((?:code\.)?([A-Za-z_]+)[,)]`).FindAllStringSubmatchIndex(s.body, -1) {
			name := strings.ToLower(s.body[at[2]:at[3]])
			if known[name] == "" {
				continue
			}
			given[name] = true
			values := split(s.body[at[2]:])
			values = append(values, joined(s.body, at[0])...)
			if len(values) != figures[name] {
				t.Errorf("reply %s has %d values in the header, %v in the body", name, figures[name], values)
			}
		}
		for name := range figures {
			if !given[name] {
				t.Errorf("reply %s is never packed", name)
			}
		}
		text := strings.Join(s.sections["Replies"], "\n")
		for _, name := range []string{"DOOR", "MINUTE"} {
			body := s.body
			if name == "DOOR" {
				body += parse(t, prelude+".lua").body
			}
			if strings.Contains(body, "'"+name+" ") != strings.Contains(text, "error "+name) {
				t.Errorf("error %s: header and body differ", name)
			}
		}
	})
}

// sharedReplies notes the answers that the shared part gives for a script that uses it.
func (s *source) sharedReplies(t *testing.T, used, given map[string]bool) {
	t.Helper()
	if !strings.Contains(s.body, "price_lines(") {
		return
	}
	_, body, _ := strings.Cut(parse(t, sale+".lua").body, "local function price_lines(")
	body, _, _ = strings.Cut(body, "\nend")
	for _, m := range regexp.MustCompile(`pack\(code\.(\w+)`).FindAllStringSubmatch(body, -1) {
		used[m[1]], given[m[1]] = true, true
	}
}

// The events that a body writes: kind and fields of each, by the head that is packed before them.
func (s *source) events(t *testing.T) map[string]string {
	t.Helper()
	heads := regexp.MustCompile(`(\w+)_HEAD = '\\(\d+)\\(\d{3})'`)
	written := map[string]string{} // kind to number of fields
	note := func(body string, wanted func(name string) bool) {
		for _, m := range heads.FindAllStringSubmatch(body, -1) {
			const fixarray = 0x90
			fields, err := strconv.Atoi(m[2])
			if err != nil || !wanted(m[1]) || fields < fixarray {
				continue
			}
			kind := strings.TrimLeft(m[3], "0")
			written[kind] = strconv.Itoa(fields - fixarray)
		}
	}
	note(s.body, func(string) bool { return true })
	if s.shared != "" {
		// The shared part packs an event in a function named like its head: carted for CARTED_HEAD.
		note(parse(t, s.shared+".lua").body, func(name string) bool {
			return strings.Contains(s.body, strings.ToLower(name)+"(")
		})
	}
	return written
}

func TestHeader_NamesTheEventsOfTheBody(t *testing.T) {
	named := regexp.MustCompile(`(?s)^(\d+) \w+.*?\[([^]]*)\]`)
	each(t, false, func(t *testing.T, s source) {
		text := strings.Join(s.sections["Event"], "\n")
		written := s.events(t)
		if writes := strings.Contains(s.body, "emit(") || strings.Contains(s.body, "XADD"); writes != (len(written) > 0) || writes == (text == "none") {
			t.Fatalf("writes events: %t, heads %v, header %q", writes, written, text)
		}
		if len(written) == 0 {
			return
		}
		headed := map[string]string{}
		for _, at := range regexp.MustCompile(`(?m)^\d+ \w+`).FindAllStringIndex(text, -1) {
			m := named.FindStringSubmatch(text[at[0]:])
			if m == nil {
				t.Fatalf("cannot read %q", text[at[0]:])
			}
			fields := split(m[2])
			if fields[0] != m[1] {
				t.Errorf("kind %s begins with field %s", m[1], fields[0])
			}
			headed[m[1]] = strconv.Itoa(len(fields))
		}
		if !maps.Equal(written, headed) {
			t.Errorf("kinds and fields: %v in the body, %v in the header", written, headed)
		}
	})
}

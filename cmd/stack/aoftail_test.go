package stack

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTornAtEnd_IsOneWriteCutShort(t *testing.T) {
	t.Parallel()
	const (
		multi = "*1\r\n$5\r\nMULTI\r\n"
		exec  = "*1\r\n$4\r\nEXEC\r\n"
		set   = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10\r\n0123456789\r\n"
		note  = "#TS:1796056110\r\n"
	)
	for end := range len(set) {
		for _, before := range []string{"", multi, multi + set, note + multi + note} {
			if text := before + set[:end]; !tornAtEnd([]byte(text)) {
				t.Errorf("not torn: %q", text)
			}
		}
	}
	for _, text := range []string{
		set,                 // whole
		set + set[:5],       // the check should have come further
		exec,                // of no transaction
		multi + set + exec,  // whole
		multi + multi + set, // the EXEC between them is missing
		multi + set + "*1\r\n$4\r\nEXEX\r\n" + multi + set[:9],
		"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$99\r\n0123456789\r\n" + set, // swallows the next command
		"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\n0123456789\r\n",
		"*0x3\r\n", "*12345678901\r\n", "*-1\r\n", "*\r\n", "3\r\n", "x", "*x", "$3",
	} {
		if tornAtEnd([]byte(text)) {
			t.Errorf("torn: %q", text)
		}
	}
}

func TestLastIncrement_IsTheLastOneThatHoldsAnything(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ manifest, want string }{
		"none": {"file a.2.base.rdb seq 2 type b\n", ""},
		"one":  {"file a.2.base.rdb seq 2 type b\nfile a.2.incr.aof seq 2 type i\n", "a.2.incr.aof"},
		"of Redis 8.2": {
			"file a.2.base.rdb seq 2 type b\nfile a.2.incr.aof seq 2 type i startoffset 1\n", "a.2.incr.aof",
		},
		"in a rewrite": {
			"file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type h\nfile a.2.incr.aof seq 2 type i\n" +
				"file a.3.incr.aof seq 3 type i\n", "a.3.incr.aof",
		},
		"in a rewrite that has just begun": {
			"file a.2.incr.aof seq 2 type i\nfile empty.incr.aof seq 3 type i\n", "a.2.incr.aof",
		},
		"missing":  {"file missing.incr.aof seq 2 type i\n", ""},
		"nonsense": {"nonsense\n", ""},
	} {
		dir := t.TempDir()
		for _, file := range []string{"a.1.incr.aof", "a.2.incr.aof", "a.3.incr.aof"} {
			writeFileT(t, filepath.Join(dir, file), "x")
		}
		writeFileT(t, filepath.Join(dir, "empty.incr.aof"), "")
		writeFileT(t, filepath.Join(dir, aofManifest), c.manifest)
		got, err := lastIncrement(dir)
		if got != "" {
			got = filepath.Base(got)
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
	if got, err := lastIncrement(t.TempDir()); got != "" || err != nil {
		t.Errorf("of a new directory: %q, %v", got, err)
	}
}

// Valkey 9 cannot check a base file of its own. No other can read this one either.
//
//servers:redis
func TestCutTornWrite_DoesNotLookAtTheBase(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	dir := filepath.Join(home, aofDir)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const set, base = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n", "VALKEY080\xfa\x0avalkey-ver\x059.1.2\xff"
	writeFileT(t, filepath.Join(dir, "appendonly.aof.1.base.rdb"), base)
	incr := filepath.Join(dir, "appendonly.aof.1.incr.aof")
	writeFileT(t, incr, set+"*1\r\n$5\r\nMULTI\r\n"+set+set[:9])
	writeFileT(t, filepath.Join(dir, aofManifest),
		"file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n")
	o := Options{system: system{}.withDefaults()}
	found, err := o.system.redisBinaries(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &redisServer{home: home, opts: o, binary: found[0], log: slog.New(slog.DiscardHandler)}
	if err := r.cutTornWrite(t.Context()); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{incr: set, filepath.Join(dir, "appendonly.aof.1.base.rdb"): base} {
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("%s is %q (%v), want %q", path, got, err, want)
		}
	}
}

func writeFileT(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantWords(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Error("no error")
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

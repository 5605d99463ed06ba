package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What each server does with the files of each other was tried with all of these.
func TestOpenable_IsWhatServersRead(t *testing.T) {
	t.Parallel()
	all := []string{"Redis 7.0.15", "Redis 7.4.1", "Redis 8.2.3", "Valkey 8.1.8", "Valkey 9.1.2"}
	can := map[string]string{ // by who wrote it
		"Redis 7.0.15": "Redis 7.0.15, Redis 7.4.1, Redis 8.2.3, Valkey 8.1.8, Valkey 9.1.2",
		"Redis 7.4.1":  "Redis 7.4.1, Redis 8.2.3",
		"Redis 8.2.3":  "Redis 8.2.3", // 7.4 reads the format, and is older
		"Valkey 8.1.8": "Redis 7.4.1, Redis 8.2.3, Valkey 8.1.8, Valkey 9.1.2",
		"Valkey 9.1.2": "Valkey 9.1.2",
	}
	for _, writer := range all {
		by := mustParse(t, writer)
		for _, w := range []written{{by: by}, {by: by, format: by.writes()}} {
			for _, reader := range all {
				err := w.openable(mustParse(t, reader))
				if want := strings.Contains(can[writer], reader); (err == nil) != want {
					t.Errorf("%s opens what %s wrote: %v, want %t", reader, writer, err, want)
				}
			}
		}
	}
	for _, c := range []struct {
		writer, reader string
		format         rdbFormat
		want           bool
	}{
		{"Redis 8.2.3", "Redis 8.2.1", rdbFormat{}, true}, // they change nothing within a minor version
		{"Redis 8.2.3", "Redis 8.10.0", rdbFormat{}, true},
		{"Redis 99.1.0", "Redis 99.2.0", rdbFormat{magicRedis, 99}, true},
		{"Redis 8.2.3", "Redis 8.2.3", rdbFormat{magicRedis, 99}, false},
		{"Redis 7.0.15", "Valkey 8.1.8", rdbFormat{magicRedis, 12}, false}, // the base is newer than the record
	} {
		w := written{by: mustParse(t, c.writer), format: c.format}
		if err := w.openable(mustParse(t, c.reader)); (err == nil) != c.want {
			t.Errorf("%s, %v opened by %s: %v", c.writer, c.format, c.reader, err)
		}
	}
}

func mustParse(t *testing.T, text string) release {
	t.Helper()
	r, ok := parseRelease(text)
	if !ok {
		t.Fatalf("%q is no release", text)
	}
	return r
}

func TestParseBase_NamesTheWriter(t *testing.T) {
	t.Parallel()
	for head, want := range map[string]string{
		"REDIS0010\xfa\x09redis-ver\x067.0.15\xfa\x0aredis-bits\xc0@": "Redis 7.0.15 REDIS0010",
		"REDIS0011\xfa\x0avalkey-ver\x058.1.8\xfa\x0aredis-bits\xc0@": "Valkey 8.1.8 REDIS0011",
		"VALKEY080\xfa\x0avalkey-ver\x059.1.2\xfa\x0aredis-bits\xc0@": "Valkey 9.1.2 VALKEY080",
		"REDIS0012\xfe\x00":                    "  REDIS0012",
		"REDIS0012\xfa\x09redis-ver\x067.":     "  REDIS0012",
		"REDIS0012\xfa\x09redis-ver\x05seven.": "  REDIS0012",
		"REDIS0012":                            "  REDIS0012",
		"*3\r\n$3\r\nSET\r\n":                  "  0000",
		"":                                     "  0000",
	} {
		by, format := parseBase([]byte(head))
		if got := fmt.Sprint(by, " ", format); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
}

// fakeServers makes programs that only know their version, and returns their directory.
func fakeServers(t *testing.T, versions map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, version := range versions {
		product, number, _ := strings.Cut(version, " ")
		script := fmt.Sprintf("#!/bin/sh\necho '%s server v=%s sha=00000000:0 malloc=libc bits=64'\n", product, number)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// homeOf makes the home of a server that another has written. Either may be empty.
func homeOf(t *testing.T, record, base string) string {
	t.Helper()
	home := t.TempDir()
	if record != "" {
		writeFileT(t, filepath.Join(home, releaseFile), record+"\n")
	}
	if base != "" {
		if err := os.Mkdir(filepath.Join(home, aofDir), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFileT(t, filepath.Join(home, aofDir, "a.1.base.rdb"), base)
		writeFileT(t, filepath.Join(home, aofDir, aofManifest), "file a.1.base.rdb seq 1 type b\n")
	}
	return home
}

const (
	baseOfRedis7  = "REDIS0010\xfa\x09redis-ver\x067.0.15\xfa"
	baseOfValkey9 = "VALKEY080\xfa\x0avalkey-ver\x059.1.2\xfa"
)

func TestRedisBinary_IsOneThatReadsTheData(t *testing.T) {
	t.Parallel()
	dir := fakeServers(t, map[string]string{"redis-server": "Redis 8.2.3", "valkey-server": "Valkey 9.1.2"})
	for name, c := range map[string]struct{ record, base, want string }{
		"new":                     {"", "", "Redis 8.2.3"},
		"Redis":                   {"Redis 7.0.15", baseOfRedis7, "Redis 8.2.3"},
		"Valkey":                  {"Valkey 9.1.2", baseOfValkey9, "Valkey 9.1.2"},
		"Valkey, no record":       {"", baseOfValkey9, "Valkey 9.1.2"},
		"Valkey that Redis reads": {"Valkey 8.1.8", "REDIS0011\xfa\x0avalkey-ver\x058.1.8\xfa", "Valkey 9.1.2"},
		"changed to Valkey":       {"Valkey 9.1.2", baseOfRedis7, "Valkey 9.1.2"},
		"an odd record":           {"seven", baseOfRedis7, "Redis 8.2.3"},
	} {
		got, err := system{path: dir}.redisBinary(t.Context(), []string{homeOf(t, c.record, c.base)})
		if err != nil || got.release.String() != c.want {
			t.Errorf("%s: %v, %v, want %s", name, got, err, c.want)
		}
	}
	got, err := system{path: fakeServers(t, map[string]string{"valkey-server": "Valkey 8.1.8"}) + ":" + dir}.redisBinary(t.Context(), nil)
	if err != nil || got.release.String() != "Valkey 8.1.8" || got.name() != "valkey-server" {
		t.Errorf("the first directory of PATH has Valkey 8.1.8: %v, %v", got, err)
	}
}

func TestRedisBinary_RefusesByNameWhatCannotReadTheData(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		server, version string
		record, base    string
		words           []string
	}{
		"Valkey's data": {
			"redis-server", "Redis 7.0.15", "Valkey 9.1.2", baseOfValkey9,
			[]string{"was written by Valkey 9.1.2", "Redis 7.0.15 does not read the format VALKEY080", "have Valkey 9.1 or newer in PATH"},
		},
		"Valkey's data, no record": {
			"redis-server", "Redis 7.0.15", "", baseOfValkey9,
			[]string{"was written by Valkey 9.1.2", "VALKEY080", "have Valkey 9.1 or newer in PATH"},
		},
		"a downgrade": {
			"redis-server", "Redis 7.0.15", "Redis 8.2.3", baseOfRedis7,
			[]string{"was written by Redis 8.2.3", "Redis 7.0.15 is older", "have Redis 8.2 or newer in PATH"},
		},
		"a downgrade, no record": {
			"redis-server", "Redis 7.0.15", "", "REDIS0012\xfa\x09redis-ver\x058.2.3\xfa",
			[]string{"was written by Redis 8.2.3", "REDIS0012", "have Redis 8.2 or newer in PATH"},
		},
		"an unknown writer": {
			"valkey-server", "Valkey 8.1.8", "", "REDIS0012\xfe",
			[]string{"a server that writes the format REDIS0012", "Valkey 8.1.8 does not read"},
		},
		"Redis 8's data": {
			"valkey-server", "Valkey 9.1.2", "Redis 8.2.3", "",
			[]string{"was written by Redis 8.2.3", "Valkey 9.1.2 does not read the format REDIS0012"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			home := homeOf(t, c.record, c.base)
			path := fakeServers(t, map[string]string{c.server: c.version})
			_, err := system{path: path}.redisBinary(t.Context(), []string{homeOf(t, "", ""), home})
			wantWords(t, err, append(c.words, home, path, "--data-dir")...)
		})
	}
}

package stack_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// aofFixture is a Redis whose AOF is damaged while it is down.
type aofFixture struct {
	t   *testing.T
	s   *stack.Stack
	log transcript
}

func newAOFFixture(t *testing.T) *aofFixture {
	t.Helper()
	w := &aofFixture{t: t}
	w.s = stacktest.Start(t, stack.Options{NoPostgres: true, Log: w.log.logger()})
	return w
}

// write sets keys in one script, and so in one transaction of the AOF.
func (w *aofFixture) write(value int, keys ...string) {
	w.t.Helper()
	const script = `#!lua
		for _, key in ipairs(KEYS) do redis.call('SET', key, ARGV[1]) end`
	withRedis(w.t, w.s, func(client *redis.Client) {
		if err := client.Eval(within(w.t), script, keys, value).Err(); err != nil && !errors.Is(err, redis.Nil) {
			w.t.Fatal(err)
		}
	})
}

func (w *aofFixture) want(key, want string) {
	w.t.Helper()
	withRedis(w.t, w.s, func(client *redis.Client) {
		if got, err := client.Get(within(w.t), key).Result(); err != nil || got != want {
			w.t.Errorf("%s is %q (%v), want %q", key, got, err, want)
		}
	})
}

func (w *aofFixture) kill() {
	w.t.Helper()
	if err := w.s.Redis().HaltNow(within(w.t)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *aofFixture) resume() {
	w.t.Helper()
	if err := w.s.Redis().Resume(within(w.t)); err != nil {
		w.t.Fatal(err)
	}
}

// incr is the only incremental file.
func (w *aofFixture) incr() string {
	w.t.Helper()
	files := w.glob("*.incr.aof")
	if len(files) != 1 {
		w.t.Fatalf("incremental files: %v", files)
	}
	return files[0]
}

func (w *aofFixture) glob(pattern string) []string {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.s.RedisDir(), "appendonlydir", pattern))
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

func (w *aofFixture) read(path string) []byte {
	w.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

// crash kills Redis, changes its incremental file, and starts it again.
func (w *aofFixture) crash(change func(aof []byte) []byte) {
	w.t.Helper()
	w.kill()
	writeText(w.t, w.incr(), string(change(w.read(w.incr()))))
	w.resume()
}

func whole(aof []byte) []byte { return aof }

// shorter returns a change that cuts bytes off the end.
func shorter(by int) func([]byte) []byte {
	return func(aof []byte) []byte { return aof[:len(aof)-by] }
}

// Redis alone carries the torn transaction out at the second start after the cut, together with what was written in
// between.
//
//servers:redis
func TestRedis_TornTransactionNeverComesBack(t *testing.T) {
	t.Parallel()
	w := newAOFFixture(t)
	w.write(1, "first", "second", "third")
	w.write(2, "first", "second", "third")
	w.crash(shorter(40)) // into the third SET of the last transaction
	w.write(0, "x", "y", "z")
	w.crash(whole)
	for _, key := range []string{"first", "second", "third"} {
		w.want(key, "1")
	}
	w.want("z", "0")
}

// Of the files of an AOF the last one alone is cut, and what was cut is kept.
//
//servers:redis
func TestRedis_TornWriteIsKept(t *testing.T) {
	t.Parallel()
	for name, tear := range map[string]func([]byte) []byte{
		"cut short": shorter(40),
		// The room that a file system had given to the write.
		"zeros after it": func(aof []byte) []byte { return append(shorter(40)(aof), make([]byte, 4096)...) },
		"zeros instead": func(aof []byte) []byte {
			return append(aof[:bytes.LastIndex(aof, []byte("*1\r\n$5\r\nMULTI"))], make([]byte, 4096)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newAOFFixture(t)
			w.write(1, "first", "second")
			w.write(2, "first", "second")
			w.kill()
			torn := tear(w.read(w.incr()))
			writeText(t, w.incr(), string(torn))
			base := w.read(w.glob("*.base.rdb")[0])
			w.resume()
			w.want("second", "1")
			kept := w.glob("*.cut-*")
			if len(kept) != 1 {
				t.Fatalf("kept are %v", kept)
			}
			w.kill()
			if got := append(w.read(w.incr()), w.read(kept[0])...); !bytes.Equal(got, torn) {
				t.Errorf("%q and what was cut, %q, are not %q", w.read(w.incr()), w.read(kept[0]), torn)
			}
			if !bytes.Equal(w.read(w.glob("*.base.rdb")[0]), base) {
				t.Error("the base file has changed")
			}
			for _, word := range []string{"cut a torn write", filepath.Base(w.incr()), filepath.Base(kept[0])} {
				if !strings.Contains(w.log.String(), word) {
					t.Errorf("the log does not say %q:\n%s", word, &w.log)
				}
			}
		})
	}
}

//servers:redis
func TestRedis_WholeAOFIsLeftAlone(t *testing.T) {
	t.Parallel()
	w := newAOFFixture(t)
	for _, change := range []func([]byte) []byte{whole, func([]byte) []byte { return nil }} {
		w.write(1, "first", "second")
		w.crash(change)
		if kept := w.glob("*.cut-*"); len(kept) > 0 {
			t.Errorf("cut: %v", kept)
		}
	}
}

// A fix would throw away everything after the damage, of which Postgres may lack the end.
//
//servers:redis
func TestRedis_DamageInTheMiddleIsNotCut(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(aof []byte){
		"a number of arguments": func(aof []byte) { aof[bytes.Index(aof, []byte("*3\r\n"))+1] = '7' },
		"a length":              func(aof []byte) { aof[bytes.Index(aof, []byte("$5\r\nfirst"))+1] = '9' },
		"an EXEC":               func(aof []byte) { aof[bytes.Index(aof, []byte("EXEC"))] = 'X' },
		"a page of zeros":       func(aof []byte) { clear(aof[len(aof)/3 : len(aof)/2]) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newAOFFixture(t)
			for n := range 9 {
				w.write(n, "first", "second")
			}
			w.kill()
			before := w.read(w.incr())
			after := bytes.Clone(before)
			damage(after)
			writeText(t, w.incr(), string(after))
			err := w.s.Redis().Resume(within(t))
			wantConfigError(t, err, w.incr(), "is damaged at byte", "PostgreSQL may lack", "copy it to another disk")
			if strings.Contains(err.Error(), "empty") || strings.Contains(err.Error(), "delete") {
				t.Errorf("the error advises to throw data away: %v", err)
			}
			if !bytes.Equal(w.read(w.incr()), after) {
				t.Error("the damaged file has changed")
			}
			writeText(t, w.incr(), string(before))
			w.resume()
			w.want("second", "8")
		})
	}
}

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack/stacktest"
	"stampede/engine"
	"stampede/lua"
)

// The whole life of a shop over TLS, with the rights that README.md gives and no others.
//
//servers:redis,postgres
func TestLeastAuthority_IsEnoughForTheWholeShop(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	acl := aclOfReadme(t)
	r := startSecuredRedis(t, ca, acl, "maxmemory 256mb")
	p := startSecuredPostgres(t, ca)
	used := commandsUsed{}

	s := serveSecured(r, p)
	bought := s.buy("first@example.com")
	s.visitEveryRoute(bought)
	s.awaitWritten()
	used.note(r)

	// A restart shuts the door until the repair has begun a new AOF and opened it.
	r.wantNothingRefused()
	r.stop(syscall.SIGTERM)
	r.keepAOF("earlier")
	r.start()
	s.awaitSelling(bought)
	later := s.buy("later@example.com")
	s.awaitWritten()
	used.note(r)

	// A Redis that lost its last orders gets them back from PostgreSQL.
	r.wantNothingRefused()
	r.stop(syscall.SIGKILL)
	r.putBackAOF("earlier")
	r.start()
	s.awaitSelling(later)
	s.wantKept(later)
	s.awaitWritten()
	r.wantAudited(p)
	s.stop()
	used.note(r)
	text := s.err.String()
	if strings.Contains(text, "does not begin a new AOF") || strings.Contains(text, "NOPERM") {
		t.Errorf("a right was missing:\n%s", text)
	}
	if !strings.Contains(text, "replayed the journal") {
		t.Errorf("Redis lost nothing that was replayed:\n%s", text)
	}

	r.resetUsed()
	r.wantAudited(p)
	auditing := commandsUsed{}
	auditing.note(r)

	r.wantNothingRefused()
	if err := r.as("admin").FlushAll(within(t)).Err(); err != nil {
		t.Fatal(err)
	}
	r.resetUsed()
	if code, out, text := finish(t, append(secured(r, p), "restore")...); code != exitDone {
		t.Fatalf("restore: %d\n%s%s", code, out, text)
	}
	s = serveSecured(r, p, "--hold", "1s")
	s.awaitExpiry(later)
	s.wantKept(later)
	s.awaitWritten()
	used.note(r)
	s.stop()
	r.wantAudited(p)
	r.wantNothingRefused()

	// Enough, and no more: each command has been used, or stands in a script for a day that the test does not live.
	for _, command := range lua.Commands {
		used[strings.ToLower(command)] = true
	}
	used.wantAll(t, acl, "stampede")
	auditing.wantAll(t, acl, "auditor")

	wantRefused(t, "'multi' command; give its user the rights of the ACL line in README.md", append(secured(r, p), "audit")...)
	if memory := engine.Memory(within(t), r.as("stampede")); memory != 256<<20 {
		t.Errorf("maxmemory is %d, as far as the shop knows", memory)
	}
}

//servers:redis,postgres
func TestLeastAuthority_ForbidsTheRest(t *testing.T) {
	t.Parallel()
	r := startSecuredRedis(t, newAuthority(t), aclOfReadme(t), "enable-debug-command yes")
	const balance, foreign = "{0c}b:1", "elsewhere"
	if err := r.as("admin").MSet(within(t), balance, 5, foreign, 5).Err(); err != nil {
		t.Fatal(err)
	}
	shutOut := map[string]string{
		"stampede": `MGET elsewhere; MGET {0c}b:1 elsewhere; SET elsewhere 1; DEL elsewhere; HGETALL stampede:other; GET {0c}b:1;
			INCRBY {0c}b:1 1; SCAN 0; MULTI; EVAL return(1) 1 elsewhere; EVAL return(redis.call('SET','elsewhere',1)) 0;
			EVAL return(redis.call('FLUSHALL')) 0`,
		"auditor": `SET {0c}b:1 1; MSET {0c}b:1 1; DEL {0c}b:1; UNLINK {0c}b:1; HSET stampede:deployment id x; MGET elsewhere; INFO;
			EVAL return(redis.call('MGET',KEYS[1])) 1 {0c}b:1; EVAL_RO return(1) 0`,
	}
	const both = `; FLUSHALL; FLUSHDB; SWAPDB 0 1; SELECT 1; KEYS *; RANDOMKEY; DUMP {0c}b:1; RENAME {0c}b:1 elsewhere; SAVE; BGSAVE;
		COPY {0c}b:1 {0c}b:2; RESTORE {0c}b:2 0 x; MIGRATE 127.0.0.1 1 {0c}b:1 0 1; CONFIG GET *; CONFIG SET dir /tmp;
		CONFIG REWRITE; ACL LIST; ACL SETUSER stampede +@all; ACL LOG RESET; ACL SAVE; DEBUG SLEEP 0; SHUTDOWN NOSAVE; MODULE LIST;
		FUNCTION LIST; SCRIPT FLUSH; REPLICAOF NO ONE; CLIENT LIST; CLIENT KILL ID 1; CLIENT PAUSE 1; MONITOR; SLOWLOG GET;
		LATENCY RESET; PUBLISH channel 1; SUBSCRIBE channel`
	for user, own := range shutOut {
		client := r.as(user)
		for command := range strings.SplitSeq(own+both, ";") {
			var words []any
			for _, word := range strings.Fields(command) {
				words = append(words, word)
			}
			reply, err := client.Do(within(t), words...).Result()
			if err == nil || !forbids(err) {
				t.Errorf("%s, %s: %v, %v", user, command, reply, err)
			}
		}
	}
	if err := r.as("default").Ping(within(t)).Err(); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("default, with a password: %v", err)
	}
	if out := r.anonymously("PING"); !strings.Contains(out, "NOAUTH") {
		t.Errorf("without a user: %s", out)
	}
	values, err := r.as("admin").MGet(within(t), balance, foreign).Result()
	if err != nil || fmt.Sprint(values) != "[5 5]" {
		t.Errorf("afterwards %v %v", values, err)
	}
}

// forbids reports whether an error says that a user lacks a right. What a script may not do is refused in words that
// differ between Redis 7.0 and all others.
func forbids(err error) bool {
	return redis.HasErrorPrefix(err, "NOPERM") ||
		strings.Contains(err.Error(), "The user executing the script can't") ||
		strings.Contains(err.Error(), "ACL failure in script")
}

// anonymously runs redis-cli without a user.
func (r *securedRedis) anonymously(command ...string) string {
	args := []string{"-h", local, "-p", fmt.Sprint(r.port)}
	if !r.plain {
		args = append(args, "--tls", "--cacert", r.ca.file, "--cert", r.client.cert, "--key", r.client.key)
	}
	out, _ := exec.Command(stacktest.RedisProgram(r.t, "cli"), append(args, command...)...).CombinedOutput()
	return string(out)
}

// What a script is refused after its first write leaves half of a change behind.
//
//servers:redis
func TestLeastAuthority_ServesNothingWithLess(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	r := startSecuredRedis(t, ca, aclOfReadme(t))
	admin, user := r.as("admin"), r.as("stampede")
	change := func(right string) {
		t.Helper()
		if err := admin.Do(within(t), "ACL", "SETUSER", "stampede", right).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, command := range append([]string{"EVAL", "EVALSHA", "XREAD"}, lua.Commands...) {
		change("-" + command)
		if err := engine.CheckRights(within(t), user, 1); err == nil || !strings.Contains(strings.ToUpper(err.Error()), command) {
			t.Errorf("without %s: %v", command, err)
		}
		change("+" + command)
	}
	if err := engine.CheckRights(within(t), user, 1); err != nil {
		t.Errorf("with all: %v", err)
	}

	p := startSecuredPostgres(t, ca)
	change("-zrem")
	wantRefused(t, `may not run ZREM; give its user the rights of the ACL line in README.md, "TLS and least authority"`,
		append(secured(r, p), "serve", "--addr", local+":0")...)
}

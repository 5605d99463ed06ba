package main

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"stampede/engine"
	"stampede/lua"
)

// The whole life of a shop over TLS, with the rights that README.md gives and no others.
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
	if text := s.err.String(); strings.Contains(text, "does not begin a new AOF") || strings.Contains(text, "NOPERM") {
		t.Errorf("a right was missing:\n%s", text)
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
}

func secured(r *securedRedis, p *securedPostgres) []string {
	return append(r.settings("stampede"), "STAMPEDE_POSTGRES_URL="+p.owner, "STAMPEDE_ADMIN_TOKEN="+secret)
}

func serveSecured(r *securedRedis, p *securedPostgres, args ...string) *server {
	r.t.Helper()
	return launch(r.t, append(append(secured(r, p), "serve", "--addr", local+":0"), args...)...).ready(secret)
}

// visitEveryRoute leaves a held order and a cart behind.
func (s *server) visitEveryRoute(bought purchase) {
	s.t.Helper()
	product := map[string]any{"product_id": bought.product, "quantity": 1}
	order := func(key string, payment string) string {
		s.t.Helper()
		var made struct{ ID string }
		s.want(201, "POST", "/order", key, map[string]any{
			"user_id": bought.user, "items": []any{product}, "payment": payment,
		}, &made)
		return made.ID
	}
	byUser := map[string]any{"user_id": bought.user}
	of := "?user_id=" + bought.user
	inCart := map[string]any{"user_id": bought.user, "product_id": bought.product, "quantity": 1}

	s.want(200, "GET", "/users/"+bought.user, "", nil, nil)
	s.want(200, "PATCH", "/products/"+bought.product, "", map[string]any{"price": 200}, nil)
	s.want(200, "POST", "/products/"+bought.product+"/stock", "more", map[string]any{"delta": 20, "reason": "delivery"}, nil)
	s.want(200, "GET", "/products", "", nil, nil)
	s.want(200, "GET", "/products/"+bought.product, "", nil, nil)
	s.want(200, "GET", "/balance"+of, "", nil, nil)

	paid := order("paid later", "later")
	s.want(200, "POST", "/order/"+paid+"/payment", "pay", byUser, nil)
	s.want(200, "POST", "/order/"+paid+"/cancel", "refund", byUser, nil)
	s.want(200, "POST", "/order/"+order("canceled", "later")+"/cancel", "cancel", byUser, nil)
	s.want(402, "POST", "/order/"+s.dear(bought)+"/payment", "too dear", byUser, nil)
	order("held", "later")

	s.want(200, "POST", "/cart/add", "", inCart, nil)
	s.want(200, "POST", "/cart/add", "with a key", inCart, nil)
	s.want(200, "GET", "/cart"+of, "", nil, nil)
	s.want(200, "DELETE", "/cart/remove", "", map[string]any{"user_id": bought.user, "product_id": bought.product}, nil)
	s.want(200, "POST", "/cart/add", "", inCart, nil)
	s.want(201, "POST", "/cart/order", "cart", byUser, nil)
	s.want(200, "POST", "/cart/add", "", inCart, nil)

	s.want(200, "GET", "/order/"+paid+of, "", nil, nil)
	s.want(200, "GET", "/orders"+of, "", nil, nil)
	s.want(200, "GET", "/products/top", "", nil, nil)
	for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
		s.want(200, "GET", path, "", nil, nil)
	}
}

// want makes a request and wants a status.
func (s *server) want(status int, method, path, key string, body, to any) {
	s.t.Helper()
	if got := s.call(method, path, key, body, to); got != status {
		s.t.Errorf("%s %s: %d, want %d", method, path, got, status)
	}
}

// dear holds an order that its buyer cannot pay.
func (s *server) dear(p purchase) (order string) {
	s.t.Helper()
	var made struct{ ID string }
	s.want(201, "POST", "/products", "", map[string]any{"name": "A yacht", "price": 1_000_000, "stock": 1}, &made)
	s.want(201, "POST", "/order", "dear", map[string]any{
		"user_id": p.user, "items": []any{map[string]any{"product_id": made.ID, "quantity": 1}}, "payment": "later",
	}, &made)
	return made.ID
}

// awaitExpiry holds an order and waits until the sweeper has ended it.
func (s *server) awaitExpiry(p purchase) {
	s.t.Helper()
	var held heldOrder
	s.want(201, "POST", "/order", "to expire", map[string]any{
		"user_id": p.user, "items": []any{map[string]any{"product_id": p.product, "quantity": 1}}, "payment": "later",
	}, &held)
	for deadline := time.Now().Add(patience); held.Status != "EXPIRED"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("it never expires: %+v", held)
		}
		s.call("GET", "/order/"+held.ID+"?user_id="+p.user, "", nil, &held)
	}
}

// wantAudited runs the audit with rights to read alone.
func (r *securedRedis) wantAudited(p *securedPostgres) {
	r.t.Helper()
	code, out, text := finish(r.t, append(r.settings("auditor"), "STAMPEDE_POSTGRES_URL="+p.auditor, "audit")...)
	if code != exitDone || !strings.Contains(out, "all holds") {
		r.t.Errorf("audit: %d\n%s%s", code, out, text)
	}
}

// wantNothingRefused looks at Redis' own list of what its users were refused since it started.
func (r *securedRedis) wantNothingRefused() {
	r.t.Helper()
	refused, err := r.as("admin").ACLLog(within(r.t), 10).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, entry := range refused {
		r.t.Errorf("refused: %+v", *entry)
	}
}

// keepAOF copies the files of a server that has stopped; putBackAOF replaces them by the copy.
func (r *securedRedis) keepAOF(name string) {
	r.t.Helper()
	if err := os.CopyFS(r.file(name), os.DirFS(r.file("appendonlydir"))); err != nil {
		r.t.Fatal(err)
	}
}

func (r *securedRedis) putBackAOF(name string) {
	r.t.Helper()
	err := os.RemoveAll(r.file("appendonlydir"))
	if err == nil {
		err = os.Rename(r.file(name), r.file("appendonlydir"))
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// commandsUsed are those that Redis has carried out, also for scripts.
type commandsUsed map[string]bool

var commandCalled = regexp.MustCompile(`(?m)^cmdstat_([\w|-]+):calls=[1-9]`)

func (u commandsUsed) note(r *securedRedis) {
	r.t.Helper()
	stats, err := r.as("admin").Info(within(r.t), "commandstats").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, found := range commandCalled.FindAllStringSubmatch(stats, -1) {
		u[found[1]] = true
	}
}

func (r *securedRedis) resetUsed() {
	r.t.Helper()
	if err := r.as("admin").ConfigResetStat(within(r.t)).Err(); err != nil {
		r.t.Fatal(err)
	}
}

func (u commandsUsed) wantAll(t *testing.T, acl, user string) {
	t.Helper()
	rights := allowed(acl, user)
	if len(rights) == 0 {
		t.Errorf("%s may do nothing", user)
	}
	for _, command := range rights {
		if !u[command] {
			t.Errorf("%s may run %s, and never does", user, command)
		}
	}
}

// allowed lists the commands of a user's line.
func allowed(acl, user string) (commands []string) {
	for line := range strings.Lines(acl) {
		if !strings.HasPrefix(line, "user "+user+" ") {
			continue
		}
		for _, word := range strings.Fields(line) {
			if command, may := strings.CutPrefix(word, "+"); may {
				commands = append(commands, command)
			}
		}
	}
	return commands
}

func TestLeastAuthority_ForbidsTheRest(t *testing.T) {
	t.Parallel()
	r := startSecuredRedis(t, newAuthority(t), aclOfReadme(t), "enable-debug-command yes")
	const balance, foreign = "{0c}b:1", "elsewhere"
	if err := r.as("admin").MSet(within(t), balance, 5, foreign, 5).Err(); err != nil {
		t.Fatal(err)
	}
	shutOut := map[string][][]any{
		"stampede": {
			{"MGET", foreign}, {"MGET", balance, foreign}, {"SET", foreign, 1}, {"DEL", foreign}, {"HGETALL", "stampede:other"},
			{"EVAL", "return 1", 1, foreign},
			{"EVAL", "return redis.call('SET', '" + foreign + "', 1)", 0},
			{"EVAL", "return redis.call('FLUSHALL')", 0},
			{"GET", balance}, {"INCRBY", balance, 1}, {"SCAN", 0}, {"MULTI"},
		},
		"auditor": {
			{"SET", balance, 1}, {"MSET", balance, 1}, {"DEL", balance}, {"UNLINK", balance}, {"HSET", "stampede:deployment", "id", "x"},
			{"EVAL", "return redis.call('MGET', KEYS[1])", 1, balance}, {"EVAL_RO", "return 1", 0}, {"MGET", foreign}, {"INFO"},
		},
	}
	for user, commands := range shutOut {
		commands = append(commands, [][]any{
			{"FLUSHALL"}, {"FLUSHDB"}, {"SWAPDB", 0, 1}, {"SELECT", 1}, {"KEYS", "*"}, {"RANDOMKEY"}, {"DUMP", balance},
			{"RENAME", balance, foreign}, {"COPY", balance, "{0c}b:2"}, {"RESTORE", "{0c}b:2", 0, "x"}, {"MIGRATE", local, 1, balance, 0, 1},
			{"CONFIG", "GET", "*"}, {"CONFIG", "SET", "dir", "/tmp"}, {"CONFIG", "REWRITE"},
			{"ACL", "LIST"}, {"ACL", "SETUSER", user, "+@all"}, {"ACL", "LOG", "RESET"}, {"ACL", "SAVE"},
			{"DEBUG", "SLEEP", 0}, {"SHUTDOWN", "NOSAVE"}, {"MODULE", "LIST"}, {"FUNCTION", "LIST"}, {"SCRIPT", "FLUSH"},
			{"SAVE"}, {"BGSAVE"}, {"REPLICAOF", "NO", "ONE"}, {"CLIENT", "LIST"}, {"CLIENT", "KILL", "ID", 1}, {"CLIENT", "PAUSE", 1},
			{"MONITOR"}, {"SLOWLOG", "GET"}, {"LATENCY", "RESET"}, {"PUBLISH", "channel", 1}, {"SUBSCRIBE", "channel"},
		}...)
		client := r.as(user)
		for _, command := range commands {
			// Where a script is refused, Redis 7.0 says so in words of its own.
			reply, err := client.Do(within(t), command...).Result()
			if err == nil || (!redis.HasErrorPrefix(err, "NOPERM") && !strings.Contains(err.Error(), "The user executing the script can't")) {
				t.Errorf("%s, %v: %v, %v", user, command, reply, err)
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

// anonymously runs redis-cli over TLS without a user.
func (r *securedRedis) anonymously(command ...string) string {
	args := []string{
		"-h", local, "-p", fmt.Sprint(r.port), "--tls", "--cacert", r.ca.file, "--cert", r.client.cert, "--key", r.client.key,
	}
	out, _ := exec.Command("redis-cli", append(args, command...)...).CombinedOutput()
	return string(out)
}

// What a script is refused after its first write leaves half of a change behind.
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

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

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

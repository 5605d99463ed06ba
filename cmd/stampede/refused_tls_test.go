package main

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
)

// pretend is a TLS server with a certificate, and nothing behind it.
func pretend(t *testing.T, pair keyPair) (address string) {
	t.Helper()
	certificate, err := tls.LoadX509KeyPair(pair.cert, pair.key)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", local+":0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn *tls.Conn) {
				_ = conn.Handshake()
				_ = conn.Close()
			}(conn.(*tls.Conn))
		}
	}()
	return listener.Addr().String()
}

// What stands between Stampede and its Redis, each with what the operator is told to look at.
func TestRefused_ByARedisOverTLS(t *testing.T) {
	t.Parallel()
	if !speaksTLS(t) {
		t.Skip("the Redis under test was built without TLS")
	}
	ca, stranger := newAuthority(t), newAuthority(t)
	r := startSecuredRedis(t, ca, aclOfReadme(t)+"user narrow on >"+secret+" ~* +hset\n")
	plain := stacktest.Start(t, stack.Options{NoPostgres: true})
	plainURL := withPassword(t, plain.RedisURL())

	var (
		trust    = "STAMPEDE_REDIS_CACERT=" + ca.file
		show     = []string{"STAMPEDE_REDIS_CERT=" + r.client.cert, "STAMPEDE_REDIS_KEY=" + r.client.key}
		alien    = stranger.issue("client")
		postgres = "STAMPEDE_POSTGRES_URL=postgres://u:" + secret + "@127.0.0.1:1/d"
		at       = func(url string) string { return "STAMPEDE_REDIS_URL=" + url }
		over     = func(address string) string { return at("rediss://stampede:" + secret + "@" + address + "/0") }
		own      = at(r.url("stampede"))
		empty    = filepath.Join(t.TempDir(), "empty.pem")
	)
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		settings   []string
	}{
		{"wrong password", "user and password", append(show, trust, at(strings.Replace(r.url("stampede"), "@", "x@", 1)))},
		{"no password", "user and password", append(show, trust, at(fmt.Sprintf("rediss://%s:%d/0", local, r.port)))},
		{"a user with too few rights", "'hgetall' command; give its user the rights of the ACL line in README.md", append(show, trust, at(r.url("narrow")))},
		{"a database that takes another right", "'select' command; give", append(show, trust, at(strings.TrimSuffix(r.url("stampede"), "0")+"1"))},
		{"TLS to a plain port", "write redis:// instead of rediss://", []string{trust, at("rediss" + strings.TrimPrefix(plainURL, "redis"))}},
		{"plain to a TLS port", "write rediss:// instead of redis://", []string{at("redis" + strings.TrimPrefix(r.url("stampede"), "rediss"))}},
		{"unknown authority", "--redis-cacert", append(show, own)},
		{"another authority", "--redis-cacert", append(show, own, "STAMPEDE_REDIS_CACERT="+stranger.file)},
		{"expired", "renew the certificate", []string{trust, over(pretend(t, ca.issueUntil(time.Now().Add(-time.Minute), local)))}},
		{"another host", "name the host in the Redis URL", []string{trust, over(pretend(t, ca.issue("redis.example")))}},
		{"no client certificate", "--redis-cert and --redis-key", []string{trust, own}},
		{"a client certificate of a stranger", "signed by an authority that it trusts", []string{trust, own, "STAMPEDE_REDIS_CERT=" + alien.cert, "STAMPEDE_REDIS_KEY=" + alien.key}},
		{"nobody there", "is it running", append(show, trust, over("127.0.0.1:1"))},

		{"certificates without TLS", "rediss:// instead of redis://", append(show, trust, at("redis://h:1"))},
		{"an authority over a socket", "rediss:// instead of redis://", []string{trust, at("unix:///sock")}},
		{"a certificate without its key", "both --redis-cert and --redis-key", []string{trust, own, show[0]}},
		{"a key without its certificate", "both --redis-cert and --redis-key", []string{trust, own, show[1]}},
		{"a key of another", "does not match", []string{trust, own, show[0], "STAMPEDE_REDIS_KEY=" + alien.key}},
		{"authorities that are not there", "no such file", append(show, own, "STAMPEDE_REDIS_CACERT="+empty+"x")},
		{"authorities that are none", "there is no certificate in", append(show, own, "STAMPEDE_REDIS_CACERT="+empty)},
		{"trust in anybody", "leave it out", append(show, trust, own+"?skip_verify=true")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, c.want, append(append([]string{postgres}, c.settings...), "audit")...)
		})
	}
	wantRefused(t, "--redis-cacert", postgres, own, "restore", "--redis-cert", r.client.cert, "--redis-key", r.client.key)
}

func TestRefused_ByAPostgresOverTLS(t *testing.T) {
	t.Parallel()
	ca, stranger := newAuthority(t), newAuthority(t)
	p := startSecuredPostgres(t, ca)
	plain := stacktest.Start(t, stack.Options{NoRedis: true})
	trusting := func(file string) string {
		return strings.Replace(p.owner, url.QueryEscape(ca.file), url.QueryEscape(file), 1)
	}
	for _, c := range []struct{ name, want, url string }{
		{"a server without TLS", "server refused TLS connection", strings.Replace(plain.PostgresURL(), "sslmode=disable", "sslmode=require", 1)},
		{"no TLS to a server that wants it", "no encryption", strings.Replace(p.owner, "verify-full", "disable", 1)},
		{"another authority", "name the authority that signed it with sslrootcert", trusting(stranger.file)},
		{"authorities that are not there", "no such file", trusting(stranger.file + "x")},
		{"wrong password", "check user, password", strings.Replace(p.owner, "@", "x@", 1)},
		{"a role that only reads", `see the roles in README.md, "TLS and least authority"`, p.auditor},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantRefused(t, c.want, "STAMPEDE_REDIS_URL=redis://127.0.0.1:1/0", "STAMPEDE_POSTGRES_URL="+c.url,
				"STAMPEDE_ADMIN_TOKEN="+secret, "serve", "--addr", local+":0")
		})
	}
}

package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"stampede/cmd/stack"
	"stampede/cmd/stack/stacktest"
	"stampede/engine"
)

const local = "127.0.0.1"

// fenced returns the block of README.md that begins with a text.
func fenced(t testing.TB, language, start string) string {
	t.Helper()
	readme, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(readme), "\n```"+language+"\n"+start)
	block, _, closed := strings.Cut(block, "\n```\n")
	if !found || !closed {
		t.Fatalf("README.md has no block that begins with %q", start)
	}
	return start + block + "\n"
}

// aclOfReadme is what README.md says an operator should write into the aclfile, with a password.
func aclOfReadme(t testing.TB) string {
	t.Helper()
	return strings.ReplaceAll(fenced(t, "", "user stampede "), ">PASSWORD", ">"+secret)
}

// securedRedis is a redis-server that speaks TLS alone, wants a client certificate, and knows the users of an ACL and
// an admin for the test. One that was built without TLS has the users alone.
type securedRedis struct {
	t       testing.TB
	dir     string
	port    int
	plain   bool // built without TLS
	ca      *authority
	client  keyPair
	process *exec.Cmd
	log     transcript
	exited  chan struct{}
}

func startSecuredRedis(t testing.TB, ca *authority, acl string, settings ...string) *securedRedis {
	t.Helper()
	port, err := stack.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := &securedRedis{t: t, dir: t.TempDir(), port: port, plain: !speaksTLS(t), ca: ca, client: ca.issue("client")}
	own := ca.issue("localhost", local)
	config := append([]string{
		"bind " + local, "dir " + r.dir, "aclfile " + r.file("users.acl"),
		`save ""`, "appendonly yes", "appendfsync always",
	}, settings...)
	if r.plain {
		config = append(config, fmt.Sprint("port ", port))
	} else {
		config = append(config, "port 0", fmt.Sprint("tls-port ", port),
			"tls-cert-file "+own.cert, "tls-key-file "+own.key, "tls-ca-cert-file "+ca.file)
	}
	acl += "user admin on >" + secret + " ~* &* +@all\n"
	err = errors.Join(
		os.WriteFile(r.file("redis.conf"), []byte(strings.Join(config, "\n")+"\n"), 0o600),
		os.WriteFile(r.file("users.acl"), []byte(acl), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	r.start()
	t.Cleanup(func() { r.stop(syscall.SIGTERM) })
	return r
}

// speaksTLS reports whether the Redis under test was built with TLS: then it misses a certificate here.
func speaksTLS(t testing.TB) bool {
	t.Helper()
	said, _ := exec.CommandContext(within(t), stacktest.RedisProgram(t, "server"), "--port", "0", "--tls-port", "1").CombinedOutput()
	return strings.Contains(string(said), "Failed to configure TLS")
}

func (r *securedRedis) file(name string) string { return filepath.Join(r.dir, name) }

// start runs the server until it answers.
func (r *securedRedis) start() {
	r.t.Helper()
	r.process = exec.Command(stacktest.RedisProgram(r.t, "server"), r.file("redis.conf"))
	r.process.Stdout, r.process.Stderr = &r.log, &r.log
	r.exited = make(chan struct{})
	if err := r.process.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func(process *exec.Cmd, exited chan struct{}) {
		defer close(exited)
		_ = process.Wait()
	}(r.process, r.exited)
	admin := r.as("admin")
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		err := admin.Ping(within(r.t)).Err()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("Redis does not answer: %v\n%s", err, &r.log)
		}
	}
}

// stop ends the server by a signal; a second time is as good.
func (r *securedRedis) stop(sig syscall.Signal) {
	r.t.Helper()
	_ = r.process.Process.Signal(sig)
	select {
	case <-r.exited:
	case <-time.After(patience):
		r.t.Errorf("Redis does not end:\n%s", &r.log)
	}
}

func (r *securedRedis) url(user string) string {
	scheme := "rediss"
	if r.plain {
		scheme = "redis"
	}
	return fmt.Sprintf("%s://%s:%s@%s:%d/0", scheme, user, secret, local, r.port)
}

// settings are the variables of a command that joins this Redis as a user.
func (r *securedRedis) settings(user string) []string {
	settings := []string{"STAMPEDE_REDIS_URL=" + r.url(user)}
	if r.plain {
		return settings
	}
	return append(settings, "STAMPEDE_REDIS_CACERT="+r.ca.file,
		"STAMPEDE_REDIS_CERT="+r.client.cert, "STAMPEDE_REDIS_KEY="+r.client.key)
}

// as returns a client of a user.
func (r *securedRedis) as(user string) redis.UniversalClient {
	r.t.Helper()
	config := engine.Redis{URL: r.url(user)}
	if !r.plain {
		config.CACert, config.Cert, config.Key = r.ca.file, r.client.cert, r.client.key
	}
	client, err := engine.Connect(config, 1, patience)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = client.Close() })
	return client
}

// securedPostgres is a PostgreSQL that takes TLS alone, with the roles of README.md.
type securedPostgres struct {
	t     testing.TB
	stack *stack.Stack
	ca    *authority
	// owner and auditor are the URLs of those roles.
	owner, auditor string
}

func startSecuredPostgres(t testing.TB, ca *authority) *securedPostgres {
	t.Helper()
	p := &securedPostgres{t: t, ca: ca, stack: stacktest.Start(t, stack.Options{NoRedis: true})}
	plain := p.stack.PostgresURL()
	conn, err := pgx.Connect(within(t), plain)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(within(t)) }()
	// The roles of the cluster itself have the names that README.md gives to the shop's.
	roles := regexp.MustCompile(`\bstampede\b`).ReplaceAllString(fenced(t, "sql", "CREATE ROLE stampede "), "seller")
	roles = strings.ReplaceAll(roles, "'PASSWORD'", "'"+secret+"'")
	for _, statement := range strings.SplitAfter(strings.TrimSpace(roles), ";\n") { // one by one: see CREATE DATABASE
		if _, err := conn.Exec(within(t), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	p.owner, p.auditor = p.url("seller"), p.url("auditor")
	p.demandTLS(conn)
	p.await(plain, "no encryption")
	p.await(p.owner, "")
	return p
}

// demandTLS has the server offer TLS and take no connection without it. Certificate and key stand where it looks for
// them.
func (p *securedPostgres) demandTLS(conn *pgx.Conn) {
	p.t.Helper()
	var hba string
	if err := conn.QueryRow(within(p.t), "SHOW hba_file").Scan(&hba); err != nil {
		p.t.Fatal(err)
	}
	info, err := os.Stat(hba)
	if err != nil {
		p.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	pair := keyPair{filepath.Join(filepath.Dir(hba), "server.crt"), filepath.Join(filepath.Dir(hba), "server.key")}
	p.ca.issueTo(pair, time.Now().Add(time.Hour), "localhost", local)
	err = errors.Join(
		os.Chown(pair.cert, int(owner.Uid), int(owner.Gid)),
		os.Chown(pair.key, int(owner.Uid), int(owner.Gid)),
		os.WriteFile(hba, []byte("hostssl all all 127.0.0.1/32 scram-sha-256\n"), 0o600),
	)
	for _, statement := range []string{"ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"} {
		_, failed := conn.Exec(within(p.t), statement)
		err = errors.Join(err, failed)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// url is that of a role, on the database of the shop.
func (p *securedPostgres) url(role string) string {
	u, err := url.Parse(p.stack.PostgresURL())
	if err != nil {
		p.t.Fatal(err)
	}
	u.User, u.Path = url.UserPassword(role, secret), "/seller"
	u.RawQuery = url.Values{"sslmode": {"verify-full"}, "sslrootcert": {p.ca.file}}.Encode()
	return u.String()
}

// await dials until the error, or the lack of one, is what the new configuration makes it.
func (p *securedPostgres) await(url, want string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(within(p.t), url)
		if err == nil {
			_, encrypted := conn.PgConn().Conn().(*tls.Conn)
			_ = conn.Close(within(p.t))
			if want == "" && encrypted {
				return
			}
		}
		if err != nil && want != "" && strings.Contains(err.Error(), want) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("PostgreSQL: %v, want %q", err, want)
		}
	}
}

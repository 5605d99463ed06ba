package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

// httpsClient trusts an authority; each request has a connection of its own.
func httpsClient(ca *authority) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: ca.pool()}, DisableKeepAlives: true, ForceAttemptHTTP2: true,
	}}
}

// upOverTLS runs `up` with a certificate.
func upOverTLS(t *testing.T, ca *authority, pair keyPair) *server {
	t.Helper()
	dir := stacktest.Initialised(t)
	s := up(t, dir, "--tls-cert", pair.cert, "--tls-key", pair.key)
	if want := "https://" + env(t, dir).address; s.url != want {
		t.Fatalf("it is ready at %s, want %s", s.url, want)
	}
	return s
}

func (s *server) host() string { return strings.TrimPrefix(s.url, "https://") }

func TestTLS_AnswersHTTPSAlone(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := upOverTLS(t, ca, ca.issue(local))
	answer, err := httpsClient(ca).Get(s.url + "/products")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 || answer.TLS.Version != tls.VersionTLS13 || answer.TLS.NegotiatedProtocol != "http/1.1" {
		t.Errorf("%d, version %x, protocol %q", answer.StatusCode, answer.TLS.Version, answer.TLS.NegotiatedProtocol)
	}
	if got := answer.Header.Get("Strict-Transport-Security"); got != "max-age=31536000" {
		t.Errorf("Strict-Transport-Security is %q", got)
	}
	if _, err := new(http.Client).Get(s.url); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("a client that does not know the authority: %v", err)
	}
	for version, taken := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true} {
		conn, err := tls.Dial("tcp", s.host(), &tls.Config{RootCAs: ca.pool(), MinVersion: version, MaxVersion: version})
		if (err == nil) != taken {
			t.Errorf("version %x: %v", version, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}

	answer, err = http.Get("http://" + s.host() + "/products")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != 400 || answer.Header.Get("Content-Type") != "application/problem+json" || string(text) != plainAnswer {
		t.Errorf("plain HTTP: %d %v %s %v", answer.StatusCode, answer.Header, text, err)
	}
	s.stop()
}

func TestTLS_WhoNeverShakesHandsKeepsNobodyWaiting(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	s := upOverTLS(t, ca, ca.issue(local))
	start := time.Now()
	slow := map[string]net.Conn{
		"nothing":             s.dial(""),
		"half a greeting":     s.dial("\x16\x03\x01\x02\x00\x01\x00\x01"),
		"nothing, encrypted":  s.dialTLS(ca, ""),
		"half, and encrypted": s.dialTLS(ca, "GET /products HTTP/1.1\r\nHost: a"),
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		junk := make([]byte, 1+random.IntN(600))
		for i := range junk {
			junk[i] = byte(random.Uint32())
		}
		_ = s.dial(string(junk)).Close()
		_ = s.dial("\x16\x03\x01" + string(junk)).Close()
	}
	client := httpsClient(ca)
	for range 20 {
		answer, err := client.Get(s.url + "/products")
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != 200 {
			t.Errorf("an honest client gets %d", answer.StatusCode)
		}
	}
	for name, conn := range slow {
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		_, err := io.Copy(io.Discard, conn)
		if took := time.Since(start); os.IsTimeout(err) || took < 14*time.Second {
			t.Errorf("%s: closed after %s (%v), want 15 s", name, took, err)
		}
	}

	// A stop does not take such a connection for a request under way.
	s.dial("\x16\x03")
	s.stop()
	if text := s.err.String(); strings.Contains(text, "were cut") || strings.Contains(text, "panic") {
		t.Errorf("the log:\n%s", text)
	}
}

// dial opens a connection that ends with the test, and says something.
func (s *server) dial(text string) net.Conn {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.host())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, text) // the server may have closed it over the first bytes
	return conn
}

func (s *server) dialTLS(ca *authority, text string) net.Conn {
	s.t.Helper()
	conn := tls.Client(s.dial(""), &tls.Config{RootCAs: ca.pool(), ServerName: local})
	if err := conn.HandshakeContext(within(s.t)); err != nil {
		s.t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		s.t.Fatal(err)
	}
	return conn
}

func TestTLS_TakesARenewedCertificateWithoutARestart(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	pair := ca.issue(local)
	s := upOverTLS(t, ca, pair)
	kept := s.dialTLS(ca, "GET /products HTTP/1.1\r\nHost: a\r\n\r\n")
	defer kept.Close()
	old := presented(t, ca, s.host())
	ca.issueTo(pair, time.Now().Add(time.Hour), local)
	for deadline := time.Now().Add(patience); presented(t, ca, s.host()) == old; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never takes the new certificate")
		}
	}
	// Who is connected stays so.
	_ = kept.SetDeadline(time.Now().Add(patience))
	for range 2 {
		answer, err := http.ReadResponse(bufio.NewReader(kept), nil)
		if err != nil || answer.StatusCode != 200 {
			t.Fatalf("%v %v", answer, err)
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(kept, "GET /products HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	s.stop()
}

// presented is the serial number of the server's certificate.
func presented(t *testing.T, ca *authority, host string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", host, &tls.Config{RootCAs: ca.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

func TestCertificate_KeepsTheOldPairWhileTheNewOneDoesNotFit(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	pair, other := ca.issue(local), ca.issue(local)
	var log bytes.Buffer
	c := &certificate{certFile: pair.cert, keyFile: pair.key, log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := c.load(c.look()); err != nil {
		t.Fatal(err)
	}
	first := c.pair
	step := func(what string, change func() error, kept *tls.Certificate, warnings int) {
		t.Helper()
		log.Reset()
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if given, err := c.get(nil); err != nil || given == nil {
			t.Errorf("%s: looked too early: %v", what, err)
		}
		for range 3 {
			c.looked = time.Time{}
			given, err := c.get(nil)
			if err != nil || given.Leaf == nil || (kept != nil) != (given == kept) {
				t.Errorf("%s: another certificate than wanted, %v", what, err)
			}
			kept = given
		}
		if found := strings.Count(log.String(), "level=WARN"); found != warnings {
			t.Errorf("%s: %d warnings, want %d\n%s", what, found, warnings, &log)
		}
	}
	replace := func(file, by string) func() error {
		return func() error {
			text, err := os.ReadFile(by)
			if err != nil {
				return err
			}
			if err := os.WriteFile(file+".new", text, 0o600); err != nil {
				return err
			}
			return os.Rename(file+".new", file)
		}
	}
	step("nothing new", func() error { return nil }, first, 0)
	step("only the certificate", replace(pair.cert, other.cert), first, 1)
	step("the key too", replace(pair.key, other.key), nil, 0)
	second := c.pair
	step("no key", func() error { return os.Remove(pair.key) }, second, 1)
	step("no PEM", func() error { return os.WriteFile(pair.key, []byte("-----BEGIN"), 0o600) }, second, 1)
	step("the key again", replace(pair.key, other.key), nil, 0)
}

func TestTLS_RefusesWhatCannotServe(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	pair, other := ca.issue(local), ca.issue(local)
	dir := stacktest.Dir(t)
	up := []string{"up", "--addr", local + ":0", "--data-dir", dir}
	for _, c := range []struct {
		name, want string
		flags      []string
	}{
		{"a certificate without a key", "both --tls-cert and --tls-key", []string{"--tls-cert", pair.cert}},
		{"a key without a certificate", "both --tls-cert and --tls-key", []string{"--tls-key", pair.key}},
		{"a file that is not there", "no such file", []string{"--tls-cert", pair.cert, "--tls-key", pair.key + "x"}},
		{"a key of another", "does not match", []string{"--tls-cert", pair.cert, "--tls-key", other.key}},
		{"exchanged", "--tls-cert " + pair.key, []string{"--tls-cert", pair.key, "--tls-key", pair.cert}},
		{"open to others", "--auth", []string{"--tls-cert", pair.cert, "--tls-key", pair.key, "--addr", "0.0.0.0:0"}},
	} {
		t.Run(c.name, func(t *testing.T) { wantRefused(t, c.want, append(append([]string{}, up...), c.flags...)...) })
	}
	wantRefused(t, "both --tls-cert and --tls-key", append([]string{"STAMPEDE_TLS_CERT=" + pair.cert}, up...)...)
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("something was left in %s: %v", dir, err)
	}
}

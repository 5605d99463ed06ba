package engine

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tlsServer answers no command: it closes what has shaken hands, after a look at it.
func tlsServer(t *testing.T, config *tls.Config, look func(*tls.Conn)) (url, authority string) {
	t.Helper()
	authority = filepath.Join(t.TempDir(), "cert.pem")
	certificate, err := tls.LoadX509KeyPair(authority, selfSigned(t, authority))
	if err != nil {
		t.Fatal(err)
	}
	config.Certificates = []tls.Certificate{certificate}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", config)
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
			if secured := conn.(*tls.Conn); secured.Handshake() == nil {
				look(secured)
			}
			_ = conn.Close()
		}
	}()
	return "rediss://user:password@" + listener.Addr().String() + "/0", authority
}

// selfSigned writes a new certificate that is its own authority, and its key into the file that it returns.
func selfSigned(t *testing.T, file string) (keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	public, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	keyFile = file + ".key"
	for name, block := range map[string]*pem.Block{
		file: {Type: "CERTIFICATE", Bytes: public}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return keyFile
}

// ping asks once, on a connection of its own.
func ping(t *testing.T, r Redis, timeout time.Duration) error {
	t.Helper()
	client, err := Connect(r, 4, timeout) // one failure is not enough for the pool to try by itself
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // nothing is pending
	return client.Ping(context.Background()).Err()
}

// A command whose connection never came about has not been executed: 503, where a reply that is lost means 504.
func TestConnect_WithoutAHandshakeNothingWasDone(t *testing.T) {
	t.Parallel()
	url, authority := tlsServer(t, &tls.Config{}, func(*tls.Conn) {})
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() //nolint:errcheck // nothing is pending
	for name, c := range map[string]struct {
		redis Redis
		want  outcomeKind
	}{
		"a server that is not trusted": {Redis{URL: url}, outcomeNotDone},
		"a port that says nothing":     {Redis{URL: "rediss://" + silent.Addr().String()}, outcomeNotDone},
		"a connection that is cut":     {Redis{URL: url, CACert: authority}, outcomeUnknown},
	} {
		if err := ping(t, c.redis, time.Second); err == nil || outcome(err) != c.want {
			t.Errorf("%s: outcome %d (%v), want %d", name, outcome(err), err, c.want)
		}
	}
}

func TestConnect_ShowsTheClientCertificateThatStandsInItsFiles(t *testing.T) {
	t.Parallel()
	shown := make(chan string, 1)
	url, authority := tlsServer(t, &tls.Config{ClientAuth: tls.RequestClientCert}, func(conn *tls.Conn) {
		text := "none"
		if certificates := conn.ConnectionState().PeerCertificates; len(certificates) > 0 {
			text = string(certificates[0].Raw)
		}
		shown <- text
	})
	r := Redis{URL: url, CACert: authority, Cert: filepath.Join(t.TempDir(), "client.pem")}
	renew := func() (certificate string) {
		t.Helper()
		r.Key = selfSigned(t, r.Cert)
		pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pair.Certificate[0])
	}
	want := renew()
	client, err := Connect(r, 1, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close() //nolint:errcheck // nothing is pending
	for i := range 3 {
		if i > 0 { // the first time Connect itself asks whether this is a cluster
			_ = client.Ping(t.Context()).Err() // the server hangs up
		}
		if got := <-shown; got != want {
			t.Error("another certificate was shown than the one in the file")
		}
		want = renew()
	}
	bare, err := Connect(Redis{URL: url, CACert: authority}, 1, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close() //nolint:errcheck // nothing is pending
	if got := <-shown; got != "none" {
		t.Error("a certificate was shown that nobody gave")
	}
}

func TestConnect_ReadsTheURL(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]address{
		"redis://:6379":                            {hosts: []string{"localhost:6379"}},
		"redis://us:p,w@h:1/2":                     {hosts: []string{"h:1"}},
		"rediss://us:pw@h:1,i:2":                   {hosts: []string{"h:1", "i:2"}},
		"redis://us:pw@h:1,[::1]:2,i/0":            {hosts: []string{"h:1", "[::1]:2", "i:6379"}},
		"redis://us:pw@h:1,redis://us:pw@i:2":      {hosts: []string{"h:1", "i:2"}},
		"redis+sentinel://us:pw@h/m":               {hosts: []string{"h:26379"}, master: "m"},
		"rediss+sentinel://h:1,i:2/m?protocol=2":   {hosts: []string{"h:1", "i:2"}, master: "m"},
		"redis+sentinel://h/m?sentinel_password=s": {hosts: []string{"h:26379"}, master: "m", sentinelPassword: "s"},
		"unix://us:pw@/tmp/a,b.sock?db=2":          {hosts: []string{"/tmp/a,b.sock"}},
	} {
		got, err := Redis{URL: url}.address()
		if err != nil || !slices.Equal(got.hosts, want.hosts) || got.master != want.master || got.sentinelPassword != want.sentinelPassword {
			t.Errorf("%s: %+v, %v", url, got, err)
			continue
		}
		if user := strings.Contains(url, "us:p"); user != (got.options.Username == "us") || user != strings.HasPrefix(got.options.Password, "p") {
			t.Errorf("%s: user %q, password %q", url, got.options.Username, got.options.Password)
		}
		if (got.options.TLSConfig != nil) != strings.HasPrefix(url, "rediss") {
			t.Errorf("%s: TLS %v", url, got.options.TLSConfig)
		}
	}
	for _, url := range []string{
		"", "h:1", "http://h:1", "redis://h:1,", "redis://h:1,,i:2", "redis://h:x,i:2", "redis://h:1,http://i:2", "redis://h:1/a",
		"redis+sentinel://h:1", "redis+sentinel://h:1/m/0", "redis+sentinel://h:1/m?nothing=1", "redis://h:1,i:2/3",
	} {
		c, err := Connect(Redis{URL: url}, 1, time.Second)
		if err == nil || !strings.Contains(err.Error(), "Redis URL") {
			t.Errorf("%q: %v", url, err)
		}
		if c != nil {
			_ = c.Close()
		}
	}
}

//servers:redis
func TestExplain_SaysWhatToDoAndNoSecret(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"ERR unknown command 'AUTH', with args beginning with: 'user' 'password' ": "ERR unknown command 'AUTH'; is it running",
		"WRONGPASS invalid username-password pair or user is disabled.":            "disabled; are user and password",
		"NOPERM this user has no permissions to run the 'info' command":            "'info' command; give its user the rights",
	} {
		got := Explain(fmt.Errorf("%w: %w", ErrUnavailable, errors.New(text)))
		if !strings.HasPrefix(got, strings.Fields(text)[0]) || !strings.Contains(got, want) {
			t.Errorf("%q, want something about %q", got, want)
		}
	}
}

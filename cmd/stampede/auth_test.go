package main

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"stampede/cmd/stack/stacktest"
)

// privatePEM is an Ed25519 private key whose text contains the secret of these tests.
func privatePEM(t *testing.T) string {
	t.Helper()
	seed := []byte("ab")
	for len(seed) < ed25519.SeedSize { // behind 18 bytes, so that their base64 begins there
		part, err := base64.RawStdEncoding.DecodeString(secret + "AAA")
		if err != nil {
			t.Fatal(err)
		}
		seed = append(seed, part...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed[:ed25519.SeedSize]))
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if !strings.Contains(text, secret) {
		t.Fatalf("%s lacks %s", text, secret)
	}
	return text
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// oneLine is a text as variables carry it.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }

// Every wrong setting of who acts and how often is told in a line, without the key, before any server is asked.
func TestRefused_CredentialsAndLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	rsaKey := publicPEM(t, &rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(3), 2046), E: 65537})
	jwtSecret, jwtKey := "STAMPEDE_JWT_SECRET="+secret, "STAMPEDE_JWT_PUBLIC_KEY="
	withAuth := func(mode string, flags ...string) []string { return append([]string{"--auth", mode}, flags...) }
	for _, c := range []struct {
		name, want, variable string
		flags                []string
	}{
		{"no key", "needs a key", "", withAuth("jwt")},
		{"an empty key", "needs a key", "STAMPEDE_JWT_SECRET=", withAuth("jwt")},
		{"a secret without a mode", "add --auth jwt", jwtSecret, nil},
		{"a key without a mode", "add --auth jwt", jwtKey + rsaKey, nil},
		{"a file without a mode", "add --auth jwt", "", []string{"--jwt-secret-file", file("unused", secret)}},
		{"another mode", "take trusted or jwt", "", withAuth("basic")},
		{"a mode in capitals", "take trusted or jwt", jwtSecret, withAuth("JWT")},
		{"another mode in the environment", "take trusted or jwt", "STAMPEDE_AUTH=none", nil},
		{"two secrets", "twice", jwtSecret, withAuth("jwt", "--jwt-secret-file", file("another", secret))},
		{"two keys", "twice", jwtKey + rsaKey, withAuth("jwt", "--jwt-public-key-file", file("key", rsaKey))},
		{"no such secret", "no such file", "", withAuth("jwt", "--jwt-secret-file", filepath.Join(dir, "missing"))},
		{"no such key", "no such file", "", withAuth("jwt", "--jwt-public-key-file", filepath.Join(dir, "missing"))},
		{"an empty secret", "is empty", "", withAuth("jwt", "--jwt-secret-file", file("empty", "\n"))},
		{"an empty public key", "is empty", jwtSecret + "-that-is-long-enough", withAuth("jwt", "--jwt-public-key-file", file("nothing", ""))},
		{"a directory", "cannot read the key of HS256 tokens", "", withAuth("jwt", "--jwt-secret-file", dir)},
		{"a private key", "this is a private key", jwtKey + oneLine(privatePEM(t)), withAuth("jwt")},
		{"a private key in a file", "this is a private key", "", withAuth("jwt", "--jwt-public-key-file", file("private", privatePEM(t)))},
		{"an RSA key", "this is an RSA public key", jwtKey + oneLine(rsaKey), withAuth("jwt")},
		{"half a key", "cannot be read", jwtKey + oneLine(privatePEM(t))[:60], withAuth("jwt")},
		{"what is no key", "no Ed25519 public key", jwtKey + secret, withAuth("jwt")},
		{"zeros for a key", "anybody can sign", jwtKey + strings.Repeat("0", 64), withAuth("jwt")},
		{"a key for a secret", "is a key in PEM", "STAMPEDE_JWT_SECRET=" + oneLine(privatePEM(t)), withAuth("jwt")},
		{"a rate below 0", "--rate-limit-user must be 0 to 1000000", "", []string{"--rate-limit-user=-1"}},
		{"a rate above all", "--rate-limit-ip must be 0 to 1000000", "", []string{"--rate-limit-ip", "1000001"}},
		{"a rate in the environment", "--rate-limit-user must be 0 to 1000000", "STAMPEDE_RATE_LIMIT_USER=-5", nil},
		{"half a rate", "--rate-limit-user", "", []string{"--rate-limit-user", "1.5"}},
		{"a rate that is none", "--rate-limit-ip", "", []string{"--rate-limit-ip", "many"}},
		{"a proxy by name", `--trusted-proxies: trusted proxy "lb.example.com": neither`, "", []string{"--trusted-proxies", "10.0.0.0/8,lb.example.com"}},
		{"a proxy too wide", "every address", "", []string{"--trusted-proxies", "10.0.0.1,0.0.0.0/0"}},
		{"a block that is none", "the block is 10.0.0.0/8", "STAMPEDE_TRUSTED_PROXIES=10.1.2.3/8", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			settings := []string{
				"STAMPEDE_REDIS_URL=redis://default:" + secret + "@127.0.0.1:1/0", "STAMPEDE_POSTGRES_URL=postgres://u:" + secret + "@127.0.0.1:1/d",
				"STAMPEDE_ADMIN_TOKEN=" + secret, "STAMPEDE_ADDR=127.0.0.1:0",
			}
			if c.variable != "" {
				settings = append(settings, c.variable)
			}
			wantOneLine(t, c.want, append(append(settings, "serve"), c.flags...)...)
		})
	}
	wantOneLine(t, "needs a key", "up", "--data-dir", filepath.Join(dir, "data"), "--auth", "jwt")
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Errorf("left behind: %v", err)
	}
}

// wantOneLine is wantRefused for what is refused before there is anything else to tell.
func wantOneLine(t *testing.T, want string, args ...string) {
	t.Helper()
	code, out, text := finish(t, args...)
	if code != exitFailed || out != "" || !strings.HasPrefix(text, "stampede: ") || !strings.Contains(text, want) || strings.Count(text, "\n") != 1 {
		t.Errorf("exit code %d and %q %q, want 2 and a line about %q", code, out, text, want)
	}
	if strings.Contains(text, secret) {
		t.Errorf("it tells a secret: %s", text)
	}
}

// tokenOf makes one for a user; key is a secret or an Ed25519 private key.
func tokenOf(t *testing.T, user string, key any, more jwt.MapClaims) string {
	t.Helper()
	method := jwt.SigningMethod(jwt.SigningMethodHS256)
	if _, private := key.(ed25519.PrivateKey); private {
		method = jwt.SigningMethodEdDSA
	}
	claims := jwt.MapClaims{"sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	for name, value := range more {
		claims[name] = value
	}
	text, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// showing is the server for a client who shows another token.
func (s *server) showing(token string) *server {
	return &server{program: s.program, url: s.url, token: token}
}

func passwordOf(t *testing.T, text string) string {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	password, _ := u.User.Password()
	return password
}

// limitOf is what an answer tells of a limit, or nothing.
func (s *server) limitOf(path string) string {
	s.t.Helper()
	request, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.token != "" {
		request.Header.Set("Authorization", "Bearer "+s.token)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatal(err)
	}
	_ = answer.Body.Close()
	return answer.Header.Get("RateLimit-Policy")
}

// Whoever serves with tokens takes those of its issuer and no others, and keeps all credentials out of its log.
func TestServe_Tokens(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir)
	e := env(t, dir)
	const jwtSecret = "the key of tokens, longer than 32 bytes"
	private := ed25519.NewKeyFromSeed([]byte("0123456789abcdef0123456789abcdef"))
	public := publicPEM(t, private.Public())
	keyFile := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(keyFile, []byte(public), 0o600); err != nil {
		t.Fatal(err)
	}
	begin := func(args ...string) *server {
		settings := []string{"STAMPEDE_REDIS_URL=" + e.redisURL, "STAMPEDE_POSTGRES_URL=" + e.postgresURL, "STAMPEDE_ADMIN_TOKEN=" + secret}
		return launch(t, append(settings, args...)...).ready(secret)
	}
	// With tokens it may be reached from other machines.
	bySecret := begin("STAMPEDE_JWT_SECRET="+jwtSecret, "STAMPEDE_AUTH=jwt", "serve", "--addr", "0.0.0.0:0")
	byKey := begin("STAMPEDE_ADDR=127.0.0.1:0", "serve", "--auth", "jwt", "--jwt-public-key-file", keyFile, "--jwt-issuer", "shop", "--rate-limit-user", "7", "--rate-limit-ip", "0")
	trusted := begin("STAMPEDE_ADDR=127.0.0.1:0", "STAMPEDE_RATE_LIMIT_USER=0", "serve")

	first, second := s.buy("first@example.com"), s.buy("second@example.com")
	hmac, ofSecond := tokenOf(t, first.user, []byte(jwtSecret), nil), tokenOf(t, second.user, []byte(jwtSecret), nil)
	signed := tokenOf(t, first.user, private, jwt.MapClaims{"iss": "shop"})
	confused := tokenOf(t, first.user, []byte(public), jwt.MapClaims{"iss": "shop"})
	sent := []string{hmac, ofSecond, signed, confused, "a-guess"}
	for _, c := range []struct {
		at    *server
		token string
		want  int
	}{
		{bySecret, hmac, 201},
		{byKey, signed, 201},
		{bySecret, "", 401},
		{byKey, "", 401},
		{bySecret, signed, 401},
		{byKey, hmac, 401},
		{byKey, confused, 401},
		{byKey, tokenOf(t, first.user, private, nil), 401},
		{bySecret, tokenOf(t, first.user, []byte("another"), nil), 401},
		{bySecret, secret, 401}, // an admin is no buyer
		{bySecret, "a-guess", 401},
		{bySecret, ofSecond, 403},
		{trusted, "a-guess", 201}, // whose gateway has seen to that
	} {
		var problem struct{ Detail string }
		order := map[string]any{"user_id": first.user, "items": []map[string]any{{"product_id": first.product, "quantity": 1}}}
		if status := c.at.showing(c.token).call("POST", "/order", "by token", order, &problem); status != c.want {
			t.Errorf("%v with %q: %d %s, want %d", c.at.cmd.Args[1:], c.token, status, problem.Detail, c.want)
		}
	}
	var left struct{ Balance int64 }
	if s.call("GET", "/balance?user_id="+first.user, "", nil, &left); left.Balance != 1000-600-300 {
		t.Errorf("the balance is %d: those were not one order under one key", left.Balance)
	}

	for _, c := range []struct {
		at         *server
		path, want string
	}{
		{bySecret.showing(hmac), "/balance", `"user";q=200;w=1`},
		{bySecret, "/products", `"ip";q=1000;w=1`},
		{byKey.showing(signed), "/balance", `"user";q=7;w=1`},
		{byKey, "/products", ""},
		{trusted, "/balance?user_id=" + first.user, ""},
		{trusted, "/products", ""},
		{s, "/balance?user_id=" + first.user, ""},
		{s, "/products", ""},
	} {
		if policy := c.at.limitOf(c.path); policy != c.want {
			t.Errorf("%v on %s: the limit is %q, want %q", c.at.cmd.Args[1:], c.path, policy, c.want)
		}
	}

	for _, at := range []*server{bySecret, byKey, trusted, s} {
		at.stop()
		written := at.out.String() + at.err.String()
		for _, credential := range append(sent, secret, jwtSecret, s.token, passwordOf(t, e.redisURL), passwordOf(t, e.postgresURL)) {
			if credential != "" && strings.Contains(written, credential) {
				t.Errorf("%v writes the credential %q:\n%s", at.cmd.Args[1:], credential, written)
			}
		}
	}
	if !strings.Contains(bySecret.err.String(), `"code":"unauthorized"`) {
		t.Errorf("the log tells nothing of refused credentials:\n%s", bySecret.err)
	}
}

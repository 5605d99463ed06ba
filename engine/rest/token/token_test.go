package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	hs256 = `{"alg":"HS256","typ":"JWT"}`
	eddsa = `{"alg":"EdDSA","typ":"JWT"}`
)

var (
	secret  = []byte("0123456789abcdef0123456789abcdef")
	private = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	public  = private.Public().(ed25519.PublicKey)
	now     = time.Unix(1_800_000_000, 0)
)

// exp is an hour from now.
const exp = "1800003600"

// plain are the claims of a valid token of user 7.
const plain = `{"sub":"7","exp":` + exp + `}`

func segment(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

// segments are what is signed.
func segments(header, payload string) string { return segment(header) + "." + segment(payload) }

func signHS256(key []byte, signed string) string {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(signed))
	return signed + "." + segment(string(m.Sum(nil)))
}

func signEdDSA(key ed25519.PrivateKey, signed string) string {
	return signed + "." + segment(string(ed25519.Sign(key, []byte(signed))))
}

// withHS256 is a token with good header and signature.
func withHS256(payload string) string { return signHS256(secret, segments(hs256, payload)) }

// withEdDSA is a token with good header and signature.
func withEdDSA(payload string) string { return signEdDSA(private, segments(eddsa, payload)) }

func verifier(t testing.TB, c Config) *Verifier {
	t.Helper()
	v, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// both takes tokens of either algorithm.
func both(t testing.TB) *Verifier {
	t.Helper()
	return verifier(t, Config{Secret: secret, PublicKey: public})
}

func wantUser(t *testing.T, v *Verifier, token string, at time.Time, want int64) {
	t.Helper()
	for _, time := range []string{"first", "second"} {
		if user, err := v.User([]byte(token), at); user != want || err != nil {
			t.Errorf("the %s time: user %d, %v, want %d", time, user, err, want)
		}
	}
}

// wantRefusal looks twice: what was refused must not be remembered.
func wantRefusal(t *testing.T, v *Verifier, token string, at time.Time, want error) {
	t.Helper()
	for _, time := range []string{"first", "second"} {
		user, err := v.User([]byte(token), at)
		if user != 0 || err == nil || err.Error() != want.Error() || !errors.Is(err, ErrInvalid) {
			t.Errorf("the %s time: user %d, error %v, want %v", time, user, err, want)
		}
	}
}

func TestUser_ValidTokens(t *testing.T) {
	either, onlyHS256, onlyEdDSA := both(t), verifier(t, Config{Secret: secret}), verifier(t, Config{PublicKey: public})
	for name, payload := range map[string]string{
		"7 sub and exp":                plain,
		"9223372036854775807 largest":  `{"sub":"9223372036854775807","exp":` + exp + `}`,
		"7 one more second":            `{"sub":"7","exp":1800000001}`,
		"7 for ever":                   `{"sub":"7","exp":253402300799}`,
		"7 begins now":                 `{"sub":"7","exp":` + exp + `,"nbf":1800000000,"iat":1800000000}`,
		"7 began long ago":             `{"sub":"7","exp":` + exp + `,"nbf":0,"iat":1}`,
		"7 other claims":               `{"iss":"a","aud":["b"],"jti":null,"roles":{"sub":"8","exp":1},"sub":"7","exp":` + exp + `}`,
		"7 claims in another case":     `{"sub":"7","exp":` + exp + `,"SUB":"8","Exp":1,"NBF":1900000000}`,
		"7 white space within":         "\n{ \"sub\" : \"7\" ,\t\"exp\" : " + exp + " }\r\n",
		"7 escapes":                    `{"\u0073ub":"\u0037","exp":` + exp + `}`,
		"7 issuer and audience unread": `{"iss":1,"aud":{},"sub":"7","exp":` + exp + `}`,
	} {
		t.Run(name, func(t *testing.T) {
			var want int64
			if _, err := fmt.Sscan(name, &want); err != nil {
				t.Fatal(err)
			}
			wantUser(t, either, withHS256(payload), now, want)
			wantUser(t, either, withEdDSA(payload), now, want)
			wantUser(t, onlyHS256, withHS256(payload), now, want)
			wantUser(t, onlyEdDSA, withEdDSA(payload), now, want)
		})
	}
	// Headers that change nothing.
	for _, header := range []string{`{"alg":"HS256"}`, `{"typ":"at+jwt","alg":"HS256","kid":"../../dev/null","CRIT":["exp"]}`} {
		wantUser(t, either, signHS256(secret, segments(header, plain)), now, 7)
	}
}

func TestUser_TokensOfTheLibrary(t *testing.T) {
	v := verifier(t, Config{Secret: secret, PublicKey: public, Issuer: "https://id.example", Audience: "stampede"})
	claims := jwt.RegisteredClaims{
		Issuer: "https://id.example", Subject: "42", Audience: jwt.ClaimStrings{"other", "stampede"}, ID: "1",
		ExpiresAt: jwt.NewNumericDate(now.Add(time.Minute)), NotBefore: jwt.NewNumericDate(now), IssuedAt: jwt.NewNumericDate(now),
	}
	for method, key := range map[jwt.SigningMethod]any{jwt.SigningMethodHS256: secret, jwt.SigningMethodEdDSA: private} {
		token, err := jwt.NewWithClaims(method, claims).SignedString(key)
		if err != nil {
			t.Fatal(err)
		}
		wantUser(t, v, token, now, 42)
	}
}

// The whole life of one token, remembered or not.
func TestUser_Times(t *testing.T) {
	payload := fmt.Sprintf(`{"sub":"7","nbf":%d,"iat":%d,"exp":%d}`, now.Unix()-10, now.Unix(), now.Unix()+60)
	for name, token := range map[string]string{"HS256": withHS256(payload), "EdDSA": withEdDSA(payload)} {
		v := both(t)
		for _, c := range []struct {
			after time.Duration // now
			want  error
		}{
			{-11 * time.Second, errEarly}, // before nbf
			{-10 * time.Second, errEarly}, // before iat
			{-time.Nanosecond, errEarly},
			{0, nil}, // from here on the token is remembered
			{time.Nanosecond, nil},
			{59 * time.Second, nil},
			{time.Minute - time.Nanosecond, nil},
			{time.Minute, errExpired},
			{time.Hour, errExpired},
			{30 * time.Second, nil},        // the clock was set back
			{-time.Nanosecond, errEarly},   // and further
			{math.MaxInt64, errExpired},    // in 292 years
			{math.MinInt64, errEarly},      // and before 1970
			{time.Minute - 1, nil},         // and right again
			{60 * time.Second, errExpired}, // to the end
		} {
			t.Run(name+" "+c.after.String(), func(t *testing.T) {
				if c.want == nil {
					wantUser(t, v, token, now.Add(c.after), 7)
				} else {
					wantRefusal(t, v, token, now.Add(c.after), c.want)
				}
			})
		}
	}
}

func TestUser_IssuerAndAudience(t *testing.T) {
	v := verifier(t, Config{Secret: secret, Issuer: "https://id.example", Audience: "stampede"})
	const iss, aud = `"iss":"https://id.example",`, `"aud":"stampede",`
	for claims, want := range map[string]error{
		iss + aud:                              nil,
		iss + `"aud":["stampede"],`:            nil,
		iss + `"aud":["a","stampede","b"],`:    nil,
		aud:                                    errIssuer,
		aud + `"iss":"",`:                      errIssuer,
		aud + `"iss":"https://id.example/",`:   errIssuer,
		aud + `"iss":"https://ID.example",`:    errIssuer,
		aud + `"iss":["https://id.example"],`:  errIssuer,
		aud + `"iss":null,`:                    errIssuer,
		iss:                                    errAudience,
		iss + `"aud":"",`:                      errAudience,
		iss + `"aud":"stampede2",`:             errAudience,
		iss + `"aud":"Stampede",`:              errAudience,
		iss + `"aud":"a stampede",`:            errAudience,
		iss + `"aud":[],`:                      errAudience,
		iss + `"aud":["a",""],`:                errAudience,
		iss + `"aud":[["stampede"]],`:          errAudience,
		iss + `"aud":["stampede",1],`:          errAudience,
		iss + `"aud":{"stampede":"stampede"},`: errAudience,
		iss + `"aud":null,`:                    errAudience,
	} {
		t.Run(claims, func(t *testing.T) {
			token := withHS256(`{` + claims + `"sub":"7","exp":` + exp + `}`)
			if want == nil {
				wantUser(t, v, token, now, 7)
			} else {
				wantRefusal(t, v, token, now, want)
			}
		})
	}
}

func TestNew_WantsAKeyThatCanBeMeant(t *testing.T) {
	for what, c := range map[string]Config{
		"can only be verified with": {Issuer: "a", Audience: "b"},
		"with a secret (HS256) or":  {Secret: []byte{}},
		"has 31 bytes":              {Secret: secret, PublicKey: public[:31]},
		"has 0 bytes":               {PublicKey: ed25519.PublicKey{}},
		"has 64 bytes":              {PublicKey: ed25519.PublicKey(private)},
		"is a key in PEM":           {Secret: []byte(publicPEM(t, public))},
	} {
		if v, err := New(c); v != nil || err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%q: %v, %v", what, v, err)
		}
	}
}

// All points of small order, in all encodings that crypto/ed25519 reads.
func TestNew_RefusesPublicKeysForWhichAnybodySigns(t *testing.T) {
	for _, y := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		for _, sign := range []byte{0, 0x80} {
			key, err := ParsePublicKey(y)
			if err != nil {
				t.Fatal(err)
			}
			key[31] |= sign
			if v, err := New(Config{PublicKey: key}); v != nil || err == nil || !strings.Contains(err.Error(), "anybody can sign") {
				t.Errorf("%x: %v", key, err)
			}
		}
	}
}

func TestNew_KeepsItsKeys(t *testing.T) {
	s, p := bytes.Clone(secret), bytes.Clone(public)
	v := verifier(t, Config{Secret: s, PublicKey: p})
	clear(s)
	clear(p)
	wantUser(t, v, withHS256(plain), now, 7)
	wantUser(t, v, withEdDSA(plain), now, 7)
}

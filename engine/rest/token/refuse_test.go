package token

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// forged are tokens that only a holder of the keys could make valid, by what is wrong with them.
func forged(t testing.TB) map[string]string {
	t.Helper()
	_, other, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	hs, ed := withHS256(plain), withEdDSA(plain)
	jwk := `"jwk":{"kty":"OKP","crv":"Ed25519","x":"` + segment(string(other.Public().(ed25519.PublicKey))) + `"}`
	tokens := map[string]string{
		"empty":                                "",
		"a word":                               "admin",
		"only dots":                            "..",
		"one segment":                          segment(hs256),
		"two segments":                         segments(hs256, plain),
		"HS256 no signature":                   segments(hs256, plain) + ".",
		"EdDSA no signature":                   segments(eddsa, plain) + ".",
		"HS256 with another secret":            signHS256([]byte("fedcba9876543210fedcba9876543210"), segments(hs256, plain)),
		"HS256 with an empty secret":           signHS256(nil, segments(hs256, plain)),
		"EdDSA with another key":               signEdDSA(other, segments(eddsa, plain)),
		"EdDSA with a key of its own":          signEdDSA(other, segments(`{"alg":"EdDSA",`+jwk+`}`, plain)),
		"EdDSA signed by the secret":           signHS256(secret, segments(eddsa, plain)),
		"HS256 signed by the private key":      signEdDSA(private, segments(hs256, plain)),
		"HS256 signature cut":                  hs[:len(hs)-4],
		"HS256 other payload":                  splice(hs, 1, segment(strings.Replace(plain, "7", "8", 1))),
		"EdDSA other payload":                  splice(ed, 1, segment(strings.Replace(plain, "7", "8", 1))),
		"HS256 other header":                   splice(hs, 0, segment(`{"alg":"HS256"}`)),
		"EdDSA signature with S + L":           splice(ed, 2, malleated(t, ed)),
		"EdDSA signature longer":               splice(ed, 2, segment(strings.Repeat("s", 65))),
		"HS256 one more segment":               hs + ".x",
		"HS256 five segments, as in a JWE":     hs + ".x.y",
		"HS256 dot behind":                     hs + ".",
		"HS256 dot in front":                   "." + hs,
		"HS256 padded":                         hs + "=",
		"HS256 space behind":                   hs + " ",
		"HS256 space in front":                 " " + hs,
		"HS256 line break behind":              hs + "\n",
		"HS256 carriage return behind":         hs + "\r",
		"HS256 line break within the payload":  splice(hs, 1, "\n"+segment(plain)),
		"HS256 NUL behind":                     hs + "\x00",
		"HS256 with the name of the scheme":    "Bearer " + hs,
		"HS256 in quotes":                      `"` + hs + `"`,
		"HS256 trailing bits in the signature": hs[:len(hs)-1] + nextLetter(hs[len(hs)-1]),
		"EdDSA trailing bits in the signature": ed[:len(ed)-1] + nextLetter(ed[len(ed)-1]),
		"not ASCII":                            strings.Repeat("ü", 50) + "." + segment(plain) + ".",
		"deep nesting":                         segment(strings.Repeat("[", 2000)) + "." + segment(strings.Repeat(`{"a":`, 500)) + "." + segment("s"),
	}
	for name, key := range publicKeyForms(t) {
		tokens["HS256 signed by the public key as "+name] = signHS256(key, segments(hs256, plain))
	}
	return tokens
}

// splice puts another segment into a token.
func splice(token string, at int, segment string) string {
	parts := strings.Split(token, ".")
	parts[at] = segment
	return strings.Join(parts, ".")
}

// nextLetter changes the bits of a last letter that encode nothing.
func nextLetter(last byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, last)+1])
}

// malleated is the signature of a token with S + L for S, which is equal modulo the order L of the group.
func malleated(t testing.TB, token string) string {
	t.Helper()
	signature, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[2])
	if err != nil {
		t.Fatal(err)
	}
	order, _ := new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)
	s := slices.Clone(signature[32:])
	slices.Reverse(s)
	sum := new(big.Int).Add(new(big.Int).SetBytes(s), order).FillBytes(make([]byte, 32))
	slices.Reverse(sum)
	return segment(string(signature[:32]) + string(sum))
}

// publicKeyForms is the public key in all forms in which it may be published.
func publicKeyForms(t testing.TB) map[string][]byte {
	t.Helper()
	der := publicDER(t, public)
	text := publicPEM(t, public)
	return map[string][]byte{
		"bytes":               public,
		"hex":                 []byte(hex.EncodeToString(public)),
		"base64":              []byte(base64.StdEncoding.EncodeToString(public)),
		"base64url":           []byte(segment(string(public))),
		"DER":                 der,
		"base64 of DER":       []byte(base64.StdEncoding.EncodeToString(der)),
		"PEM":                 []byte(text),
		"PEM without its end": []byte(strings.TrimSpace(text)),
	}
}

func TestUser_ForgedTokens(t *testing.T) {
	verifiers := map[string]*Verifier{
		"both keys": both(t), "a secret": verifier(t, Config{Secret: secret}), "a public key": verifier(t, Config{PublicKey: public}),
	}
	for _, v := range verifiers { // some have the good tokens in memory
		_, _ = v.User([]byte(withHS256(plain)), now)
		_, _ = v.User([]byte(withEdDSA(plain)), now)
	}
	for name, token := range forged(t) {
		for kind, v := range verifiers {
			t.Run(kind+": "+name, func(t *testing.T) { wantRefusal(t, v, token, now, errSignature) })
		}
	}
}

func TestUser_OnlyTheConfiguredAlgorithm(t *testing.T) {
	wantRefusal(t, verifier(t, Config{Secret: secret}), withEdDSA(plain), now, errSignature)
	wantRefusal(t, verifier(t, Config{PublicKey: public}), withHS256(plain), now, errSignature)
	// A secret that equals the public key makes no key of the other kind.
	wantRefusal(t, verifier(t, Config{Secret: public}), withEdDSA(plain), now, errSignature)
}

// Whatever else a header says, the signature here is a good one of either kind, or none.
func TestUser_Headers(t *testing.T) {
	headers := []string{
		``, `null`, `[]`, `"HS256"`, `7`, `{}`, `{"typ":"JWT"}`, `{"alg":null}`, `{"alg":["HS256"]}`, `{"alg":{}}`, `{"alg":256}`, `{"alg":""}`,
		`{"alg":"HS256"`, `{"alg":"HS256"}x`, `{"alg":"HS256"}{}`, `{"alg":"EdDSA",}`, `{alg:"HS256"}`, "\ufeff" + hs256,
		`{"Alg":"HS256"}`, `{"ALG":"EdDSA"}`,
		`{"alg":"HS256","alg":"HS256"}`, `{"alg":"none","alg":"EdDSA"}`, `{"alg":"HS256","\u0061lg":"HS256"}`, `{"alg":"HS256","kid":"a","kid":"b"}`,
		"{\"alg\":\"HS256\",\"kid\":\"\xff\"}",
	}
	for _, alg := range []string{
		"none", "None", "NONE", "nOnE", "none ", "hs256", "Hs256", "HS256 ", " HS256", "HS256\\u0000", "HS384", "HS512", "HS1", "RS256", "RS512", "PS256",
		"ES256", "ES256K", "ES512", "eddsa", "EDDSA", "Ed25519", "Ed448", "A256GCM", "dir", "ML-DSA-44",
	} {
		headers = append(headers, `{"alg":"`+alg+`"}`, `{"typ":"JWT","alg":"`+alg+`"}`)
	}
	for _, alg := range []string{"HS256", "EdDSA"} {
		for _, crit := range []string{`["exp"]`, `["b64"],"b64":false`, `["http://example.com/unknown"]`, `[]`, `null`, `"exp"`, `false`} {
			headers = append(headers, `{"alg":"`+alg+`","crit":`+crit+`}`)
		}
	}
	v := both(t)
	for _, header := range headers {
		t.Run(header, func(t *testing.T) {
			signed := segments(header, plain)
			wantRefusal(t, v, signHS256(secret, signed), now, errSignature)
			wantRefusal(t, v, signEdDSA(private, signed), now, errSignature)
			wantRefusal(t, v, signed+".", now, errSignature)
		})
	}
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodHS384, jwt.SigningMethodHS512} {
		token, err := jwt.NewWithClaims(method, jwt.MapClaims{"sub": "7", "exp": now.Unix() + 60}).SignedString(secret)
		if err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, v, token, now, errSignature)
	}
	unsigned, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"sub": "7", "exp": now.Unix() + 60}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, v, unsigned, now, errSignature)
}

// A good signature does not save segments that are not strictly base64url.
func TestUser_SignedSegmentsThatAreNotBase64URL(t *testing.T) {
	header, payload := segment(hs256), segment(`{"sub":"7","exp":`+exp+`,"a":"~~~?"}`)
	if !strings.ContainsAny(payload, "-_") {
		t.Fatal("the payload has no letter that tells the alphabets apart")
	}
	loose := segment(hs256 + " ") // its last letter has two bits to spare
	v := both(t)
	wantUser(t, v, signHS256(secret, header+"."+payload), now, 7)
	wantUser(t, v, signHS256(secret, loose+"."+payload), now, 7)
	for name, signed := range map[string]string{
		"padding":           loose + "==." + payload,
		"trailing bits":     loose[:len(loose)-1] + nextLetter(loose[len(loose)-1]) + "." + payload,
		"another alphabet":  header + "." + strings.NewReplacer("-", "+", "_", "/").Replace(payload),
		"a line break":      header + ".\n" + payload,
		"a carriage return": header + "\r." + payload,
		"CR LF":             header + "." + payload + "\r\n",
		"a space":           header + " ." + payload,
	} {
		t.Run(name, func(t *testing.T) { wantRefusal(t, v, signHS256(secret, signed), now, errSignature) })
	}
}

// What an issuer may get wrong, behind a good signature.
func refusedClaims() map[string]error {
	payloads := map[string]error{
		// The library wants JSON before the signature counts.
		``: errSignature, `{`: errSignature, plain + `x`: errSignature, plain + plain: errSignature,
		`null`: errPayload, `[]`: errPayload, `"7"`: errPayload, `7`: errPayload, `[` + plain + `]`: errPayload,
		`{"sub":"7","sub":"7","exp":` + exp + `}`:               errPayload,
		`{"sub":"8","exp":` + exp + `,"s\u0075b":"7"}`:          errPayload,
		`{"sub":"7","exp":1,"exp":` + exp + `}`:                 errPayload,
		`{"sub":"7","a":1,"a":2,"exp":` + exp + `}`:             errPayload,
		"{\"sub\":\"7\",\"name\":\"\xff\",\"exp\":" + exp + "}": errPayload,
		`{}`:                            errSubject,
		`{"exp":` + exp + `}`:           errSubject,
		`{"Sub":"7","exp":` + exp + `}`: errSubject,
		`{"sub":"7"}`:                   errNoExpiry,
		`{"sub":"7","EXP":` + exp + `}`: errNoExpiry,
	}
	for _, sub := range []string{
		`""`, `"0"`, `"-1"`, `"-7"`, `"+7"`, `"07"`, `"00"`, `" 7"`, `"7 "`, `"7\n"`, `"7\u0000"`, `"7.0"`, `"7e0"`, `"0x7"`, `"1_0"`, `"seven"`, `"٧"`, `"７"`,
		`"9223372036854775808"`, `"18446744073709551623"`, `"-9223372036854775808"`, `"` + strings.Repeat("7", 400) + `"`, `"7,8"`, `"user:7"`,
		`7`, `7.0`, `0`, `-7`, `1e999`, `null`, `true`, `["7"]`, `{"id":"7"}`,
	} {
		payloads[`{"sub":`+sub+`,"exp":`+exp+`}`] = errSubject
	}
	for _, at := range []string{
		`"` + exp + `"`, `""`, `null`, `true`, `[]`, `[` + exp + `]`, `{}`, exp + `.5`, exp + `.0`, `1.8e9`, `18e8`, `1E10`, `-1`, `-` + exp, `-9223372036854775809`,
		`1800003600000`, `253402300800`, `9223372036854775807`, `9223372036854775808`, `18446744073709551615`, `1e300`, `1e999`, `-1e999`,
		strings.Repeat("9", 400), `0.` + strings.Repeat("3", 400),
	} {
		payloads[`{"sub":"7","exp":`+at+`}`] = errTimes
		payloads[`{"sub":"7","exp":`+exp+`,"nbf":`+at+`}`] = errTimes
		payloads[`{"sub":"7","exp":`+exp+`,"iat":`+at+`}`] = errTimes
	}
	for claims, reason := range map[string]error{
		`"exp":0`: errExpired, `"exp":1`: errExpired, `"exp":1799999999`: errExpired, `"exp":1800000000`: errExpired,
		`"exp":` + exp + `,"nbf":1800000001`: errEarly, `"exp":` + exp + `,"iat":1800000001`: errEarly,
		`"exp":` + exp + `,"nbf":1,"iat":253402300799`: errEarly, `"exp":` + exp + `,"nbf":253402300799,"iat":1`: errEarly,
		`"exp":1,"nbf":1900000000`: errExpired,
	} {
		payloads[`{"sub":"7",`+claims+`}`] = reason
	}
	return payloads
}

// The library reads JSON first, and members does not count on it.
func TestMembers_TakesOneWholeObject(t *testing.T) {
	for object, want := range map[string]int{
		`{}`: 0, ` {"a":1} `: 1, `{"a":{"a":1,"a":2},"b":[{}]}`: 2,
		``: -1, `{`: -1, `{"a"`: -1, `{"a":`: -1, `{"a":1`: -1, `{"a":1,`: -1, `{"a":1,}`: -1, `{"a":1]`: -1, `{"a" 1}`: -1, `{a:1}`: -1, `{1:1}`: -1,
		`{}}`: -1, `{}{}`: -1, `{} x`: -1, `{"a":1}1`: -1, `[]`: -1, `null`: -1, `{"a":01}`: -1, `{"a":1,"a":1}`: -1, "{\"\xff\":1}": -1,
	} {
		if values, ok := members([]byte(object)); ok != (want >= 0) || ok && len(values) != want {
			t.Errorf("%s: %s, %t", object, values, ok)
		}
	}
}

func TestUser_RefusedClaims(t *testing.T) {
	v := both(t)
	for payload, want := range refusedClaims() {
		t.Run(payload, func(t *testing.T) {
			wantRefusal(t, v, withHS256(payload), now, want)
			wantRefusal(t, v, withEdDSA(payload), now, want)
		})
	}
}

// Whoever cannot sign is not told whether the claims would do.
func TestUser_TheSignatureComesFirst(t *testing.T) {
	v := both(t)
	for payload := range refusedClaims() {
		wantRefusal(t, v, signHS256([]byte("another secret"), segments(hs256, payload)), now, errSignature)
	}
}

func TestUser_TokensHaveALimit(t *testing.T) {
	// sized returns a valid token of n bytes.
	sized := func(n int) string {
		empty := withHS256(`{"sub":"7","exp":` + exp + `,"a":""}`)
		return withHS256(`{"sub":"7","exp":` + exp + `,"a":"` + strings.Repeat("a", (n-len(empty))*3/4) + `"}`)
	}
	v := both(t)
	var fit, over bool
	for n := bytesMax - 8; n < bytesMax+8; n++ {
		token := sized(n)
		if len(token) <= bytesMax {
			fit = fit || len(token) == bytesMax
			wantUser(t, v, token, now, 7)
		} else {
			over = over || len(token) == bytesMax+1
			wantRefusal(t, v, token, now, errSignature)
		}
	}
	if !fit || !over {
		t.Error("no token at the limit, or none just over it")
	}
}

package rest_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"stampede/engine/rest/token"
)

var silent = slog.New(slog.DiscardHandler)

// The keys of the issuer whose tokens these tests show, and those of somebody else.
var (
	issuerSecret = []byte("0123456789abcdef0123456789abcdef")
	issuerKey    = ed25519.NewKeyFromSeed([]byte("abcdef0123456789abcdef0123456789"))
	issuerPublic = issuerKey.Public().(ed25519.PublicKey)
	othersSecret = []byte("another secret, of another issuer")
	othersKey    = ed25519.NewKeyFromSeed([]byte("another seed, of another issuer."))
)

// issuerTokens takes those of the issuer.
func issuerTokens(t *testing.T) *token.Verifier {
	t.Helper()
	v, err := token.New(token.Config{Secret: issuerSecret, PublicKey: issuerPublic})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// signature makes one of the signed part of a token.
type signature func(signed []byte) []byte

func hmacOf(secret []byte) signature {
	return func(signed []byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(signed)
		return mac.Sum(nil)
	}
}

func ed25519Of(key ed25519.PrivateKey) signature {
	return func(signed []byte) []byte { return ed25519.Sign(key, signed) }
}

func unsigned([]byte) []byte { return nil }

// jwt writes a token.
func jwt(alg, claims string, sign signature) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(`{"alg":"`+alg+`","typ":"JWT"}`)) + "." + encode([]byte(claims))
	return signed + "." + encode(sign([]byte(signed)))
}

// claims of a token for a user that ends in some time; more follows them.
func claims(user int64, ends time.Duration, more string) string {
	return fmt.Sprintf(`{"sub":"%d","exp":%d%s}`, user, time.Now().Add(ends).Unix(), more)
}

// bearing is the header line of a valid token for a user, signed with the secret.
func bearing(user int64) string {
	return "Authorization: Bearer " + jwt("HS256", claims(user, time.Hour, ""), hmacOf(issuerSecret))
}

// bearingSigned is the same, signed with the private key.
func bearingSigned(user int64) string {
	return "Authorization: Bearer " + jwt("EdDSA", claims(user, time.Hour, ""), ed25519Of(issuerKey))
}

// badTokens are what a buyer might show who has no valid token of their own.
func badTokens(user, other int64) []string {
	good := claims(user, time.Hour, "")
	byHMAC, byKey := hmacOf(issuerSecret), ed25519Of(issuerKey)
	valid, others := jwt("HS256", good, byHMAC), jwt("HS256", claims(other, time.Hour, ""), byHMAC)
	header, rest, _ := strings.Cut(valid, ".")
	payload, mac, _ := strings.Cut(rest, ".")
	_, rest, _ = strings.Cut(others, ".")
	_, othersMAC, _ := strings.Cut(rest, ".")
	publicPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: issuerPublic})
	return []string{
		jwt("HS256", claims(user, -time.Second, ""), byHMAC), jwt("EdDSA", claims(user, -time.Second, ""), byKey),
		jwt("HS256", claims(user, time.Hour, fmt.Sprintf(`,"nbf":%d`, time.Now().Add(time.Minute).Unix())), byHMAC),
		jwt("HS256", fmt.Sprintf(`{"sub":"%d"}`, user), byHMAC),
		jwt("HS256", fmt.Sprintf(`{"sub":%d,"exp":9999999999}`, user), byHMAC),
		jwt("HS256", `{"sub":"admin","exp":9999999999}`, byHMAC), jwt("HS256", `{"exp":9999999999}`, byHMAC), jwt("HS256", claims(0, time.Hour, ""), byHMAC),
		jwt("none", good, unsigned), jwt("None", good, unsigned), jwt("NONE", good, byHMAC), jwt("", good, unsigned), jwt("HS256", good, unsigned), jwt("EdDSA", good, unsigned),
		jwt("HS256", good, hmacOf(issuerPublic)), jwt("HS256", good, hmacOf(publicPEM)), jwt("HS256", good, hmacOf(nil)),
		jwt("HS256", good, hmacOf(othersSecret)), jwt("EdDSA", good, ed25519Of(othersKey)),
		jwt("EdDSA", good, byHMAC), jwt("HS256", good, byKey), jwt("HS512", good, byHMAC), jwt("RS256", good, byKey),
		header + "." + payload + "." + othersMAC, header + "." + payload, header + "." + payload + ".", valid + ".", valid + "." + mac,
		valid[:len(valid)-1], valid + "A", valid + "=", strings.ToLower(valid), "." + valid, valid + " " + valid, valid + "," + others,
	}
}

func (c *cast) jwtMode() {
	asBuyer, asOther := fmt.Sprint("X-User-Id: ", c.buyer), fmt.Sprint("X-User-Id: ", c.other)
	byQuery, byOthersQuery := fmt.Sprint("user_id=", c.buyer), fmt.Sprint("user_id=", c.other)
	buyer, other := bearing(c.buyer), bearingSigned(c.other)
	boastful := "Authorization: Bearer " + jwt("HS256", claims(c.other, time.Hour, `,"admin":true,"role":"admin","roles":["admin"],"scope":"admin"`), hmacOf(issuerSecret))
	everywhere := func(o outcome) map[manner]outcome { return map[manner]outcome{buyers: o, both: o, admins: o} }
	forOthers := func(o outcome) map[manner]outcome { return map[manner]outcome{buyers: o, both: o} }
	forAdmins := outcome{403, "forbidden", "for admins", ""}

	actors := []refused{
		{actor{name: "nobody"}, everywhere(noCredential)},
		{actor{name: "who claims to be the buyer", headers: []string{asBuyer}, query: byQuery}, everywhere(noCredential)},
		{actor{name: "who claims to be the buyer", body: c.buyer}, everywhere(noCredential)},
		{actor{name: "a token in another place", headers: []string{"X-" + buyer, "Proxy-" + buyer, "Cookie: " + buyer[15:]}, query: "access_token=" + strings.TrimPrefix(buyer, "Authorization: Bearer ")}, everywhere(noCredential)},
		{actor{name: "nobody, with much to say", headers: powers, query: "admin=true&role=admin&access_token=" + adminToken}, everywhere(noCredential)},
		{actor{name: "the admin", headers: []string{showAdmin}, query: byQuery}, map[manner]outcome{buyers: badCredential}},
		{actor{name: "the admin as the buyer", headers: []string{showAdmin, asBuyer}}, map[manner]outcome{buyers: badCredential}},
		{actor{name: "an admin as two buyers", headers: []string{showAdmin, asOther}, query: byQuery}, map[manner]outcome{both: disagreeing}},
		{actor{name: "the buyer", headers: []string{buyer}}, map[manner]outcome{admins: forAdmins}},
		{actor{name: "the buyer, with much to say", headers: append([]string{buyer}, powers...), query: "admin=true&role=admin"}, map[manner]outcome{admins: forAdmins}},
		{actor{name: "a token that boasts", headers: []string{boastful}}, map[manner]outcome{buyers: aStranger, both: aStranger, admins: forAdmins}},
		{actor{name: "another buyer", headers: []string{other}}, map[manner]outcome{buyers: aStranger, both: aStranger}},
		{actor{name: "another buyer by header", headers: []string{other, asBuyer}}, forOthers(disagreeing)},
		{actor{name: "another buyer by query", headers: []string{other}, query: byQuery}, forOthers(disagreeing)},
		{actor{name: "another buyer by body", headers: []string{other}, body: c.buyer}, forOthers(disagreeing)},
		{actor{name: "another buyer by body, not by query", headers: []string{other}, query: byOthersQuery, body: c.buyer}, forOthers(outcome{400, "validation_failed", "different values for user_id", ""})},
	}
	for _, two := range [][]string{{buyer, buyer}, {buyer, other}, {showAdmin, showAdmin}, {showAdmin, buyer}, {buyer, "authorization: Bearer " + adminToken}} {
		actors = append(actors, refused{actor{name: "two credentials", headers: two}, everywhere(badCredential)})
	}
	for _, credential := range badCredentials() {
		actors = append(actors, refused{actor{name: credential, headers: []string{credential, asBuyer}}, everywhere(badCredential)})
	}
	for _, bad := range badTokens(c.buyer, c.other) {
		actors = append(actors, refused{actor{name: bad, headers: []string{"Authorization: Bearer " + bad}}, everywhere(badCredential)})
	}
	for _, names := range misnames(c.buyer) {
		actors = append(actors, refused{actor{name: fmt.Sprint(names), headers: append([]string{buyer}, names...)}, forOthers(misnamed)})
	}
	c.refuse(actors)
	c.serve([]served{
		{actor{name: "the buyer", headers: []string{buyer}}, c.buyer, []manner{open, buyers, both}},
		{actor{name: "the buyer, three times named", headers: []string{buyer, asBuyer}, query: byQuery, body: c.buyer}, c.buyer, []manner{buyers, both}},
		{actor{name: "another buyer", headers: []string{other}}, c.other, []manner{open, buyers, both}},
		{actor{name: "another buyer who boasts", headers: []string{boastful}}, c.other, []manner{buyers, both}},
		{actor{name: "the admin", headers: []string{showAdmin}, query: byQuery}, c.buyer, []manner{open, both, admins}},
		{actor{name: "anybody", headers: []string{"Authorization: Bearer x", "Authorization: Basic x", "X-User-Id: x"}}, 0, []manner{open}},
	})
}

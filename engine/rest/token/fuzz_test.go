package token

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"testing"
)

// No text is a token but the one that was signed.
func FuzzUser(f *testing.F) {
	valid := map[string]bool{withHS256(plain): true, withEdDSA(plain): true}
	for _, token := range forged(f) {
		f.Add([]byte(token))
	}
	for payload := range refusedClaims() {
		f.Add([]byte(withHS256(payload)))
		f.Add([]byte(withEdDSA(payload)))
	}
	f.Add([]byte(signHS256(secret, segments(`{"alg":"HS256","crit":["exp"]}`, plain))))
	f.Add([]byte(segments(`{"alg":"none"}`, plain) + "."))
	for token := range valid {
		f.Add([]byte(token))
	}
	v := both(f)
	f.Fuzz(func(t *testing.T, token []byte) {
		user, err := v.User(token, now)
		switch {
		case err == nil && (user != 7 || !valid[string(token)]):
			t.Errorf("user %d by a forged token", user)
		case err != nil && (user != 0 || !errors.Is(err, ErrInvalid)):
			t.Errorf("user %d with error %v", user, err)
		case err != nil && len(token) > 40 && strings.Contains(err.Error(), string(token[:20])):
			t.Errorf("the error repeats the token: %v", err)
		}
		if again, errAgain := v.User(token, now); again != user || !errors.Is(errAgain, err) {
			t.Errorf("user %d, %v, then user %d, %v", user, err, again, errAgain)
		}
	})
}

// Whatever an issuer signs: nothing panics, and what is taken says what it is taken for.
func FuzzUser_Signed(f *testing.F) {
	f.Add(hs256, plain)
	f.Add(`{"alg":"EdDSA","crit":["b64"],"b64":false}`, plain)
	f.Add(`{"alg":"HS256","alg":"none"}`, plain)
	for payload := range refusedClaims() {
		f.Add(eddsa, payload)
	}
	v := both(f)
	f.Fuzz(func(t *testing.T, header, payload string) {
		signed := segments(header, payload)
		for _, token := range []string{signHS256(secret, signed), signEdDSA(private, signed)} {
			user, err := v.User([]byte(token), now)
			if err != nil {
				if user != 0 || !errors.Is(err, ErrInvalid) {
					t.Errorf("user %d with error %v", user, err)
				}
				continue
			}
			var h, c map[string]any
			if json.Unmarshal([]byte(header), &h) != nil || json.Unmarshal([]byte(payload), &c) != nil {
				t.Fatalf("a token without JSON is taken: %q %q", header, payload)
			}
			_, critical := h["crit"]
			end, _ := c["exp"].(float64)
			if critical || h["alg"] != "HS256" && h["alg"] != "EdDSA" || user < 1 || c["sub"] != strconv.FormatInt(user, 10) || end <= float64(now.Unix()) {
				t.Errorf("taken for user %d: %q %q", user, header, payload)
			}
			for _, name := range []string{"nbf", "iat"} {
				if begin, given := c[name]; given {
					if seconds, isNumber := begin.(float64); !isNumber || seconds > float64(now.Unix()) {
						t.Errorf("taken before its %s: %q", name, payload)
					}
				}
			}
		}
	})
}

// Package token verifies the tokens that name buyers: JSON Web Tokens (RFC 7519) as a Bearer credential, signed with
// HS256 or with EdDSA over Ed25519.
//
// token.go verifies, claims.go reads what a token says, cache.go remembers tokens, key.go reads public keys.
package token

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// SecretBytesWanted is the length below which a secret is weak for HS256 (RFC 7518, 3.2).
	SecretBytesWanted = 32

	bytesMax = 8 << 10 // of a token
)

// ErrInvalid wraps why a token names nobody, in words that a client may see: they repeat nothing of token or keys.
var ErrInvalid = errors.New("invalid token")

// One reason for all that happens before a signature holds: whoever cannot sign learns nothing from the difference.
var (
	errSignature = refusal("the token is not a JWT with a signature that this server accepts")
	errEarly     = refusal("the token is not valid yet")
	errExpired   = refusal("the token has expired")
)

func refusal(reason string) error { return fmt.Errorf("%w: %s", ErrInvalid, reason) }

// Config says which tokens a Verifier takes.
type Config struct {
	// Secret verifies HS256. Where it is empty no such token is taken.
	Secret []byte
	// PublicKey verifies EdDSA. Where it is nil no such token is taken.
	PublicKey ed25519.PublicKey
	// Issuer is what iss must be. Where it is empty, iss is not looked at.
	Issuer string
	// Audience is what aud must be or contain. Where it is empty, aud is not looked at.
	Audience string
}

// Verifier tells whom tokens name. It may be used by many goroutines at once.
type Verifier struct {
	cfg    Config
	parser *jwt.Parser
	cache  *cache
}

// New returns a Verifier. It is an error if there is no key, or one that cannot be meant.
func New(cfg Config) (*Verifier, error) {
	cfg.Secret, cfg.PublicKey = bytes.Clone(cfg.Secret), bytes.Clone(cfg.PublicKey)
	var algorithms []string
	if len(cfg.Secret) > 0 {
		// Many programs take secret and public key in one place. Here a public key for a secret would let everyone
		// who knows it sign.
		if bytes.Contains(cfg.Secret, []byte("-----BEGIN ")) {
			return nil, errors.New("the secret for HS256 is a key in PEM; an Ed25519 public key is a setting of its own")
		}
		algorithms = append(algorithms, jwt.SigningMethodHS256.Alg())
	}
	if cfg.PublicKey != nil {
		if len(cfg.PublicKey) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("the public key has %d bytes; an Ed25519 public key has %d", len(cfg.PublicKey), ed25519.PublicKeySize)
		}
		if anyoneSigns(cfg.PublicKey) {
			return nil, errors.New("the public key is one for which anybody can sign, such as a placeholder of zeros")
		}
		algorithms = append(algorithms, jwt.SigningMethodEdDSA.Alg())
	}
	if len(algorithms) == 0 {
		return nil, errors.New("tokens can only be verified with a secret (HS256) or a public key (EdDSA)")
	}
	// Claims are checked here and not by the library, which also takes times as strings and names in any case.
	parser := jwt.NewParser(jwt.WithValidMethods(algorithms), jwt.WithStrictDecoding(), jwt.WithoutClaimsValidation())
	return &Verifier{cfg: cfg, parser: parser, cache: newCache()}, nil
}

// User returns the user whom a token names, or an error that wraps ErrInvalid.
//
// A token is valid from its nbf and iat, where it has them, until just before its exp, which it must have. There is no
// leeway: the clocks of issuer and server must agree. sub is the user id as a decimal string. token is not kept.
func (v *Verifier) User(token []byte, now time.Time) (int64, error) {
	if len(token) > bytesMax {
		return 0, errSignature
	}
	key := digest(sha256.Sum256(token))
	g, known := v.cache.get(key)
	if !known {
		var err error
		if g, err = v.verify(string(token)); err != nil {
			return 0, err
		}
	}
	if err := g.check(now); err != nil {
		return 0, err
	}
	if !known {
		v.cache.add(key, g)
	}
	return g.user, nil
}

// verify returns what a token grants, at whatever time.
func (v *Verifier) verify(token string) (grant, error) {
	// Go's base64 skips line breaks even where it is strict.
	if strings.ContainsAny(token, "\r\n") {
		return grant{}, errSignature
	}
	var p payload
	if _, err := v.parser.ParseWithClaims(token, &p, v.key); err != nil {
		return grant{}, errSignature
	}
	return v.cfg.grant(p.json)
}

// key returns the key for the algorithm that a token names. The type of each key fits one algorithm only, so that
// none is ever used with the other.
func (v *Verifier) key(t *jwt.Token) (any, error) {
	encoded, _, _ := strings.Cut(t.Raw, ".")
	header, err := v.parser.DecodeSegment(encoded)
	if err != nil {
		return nil, errSignature
	}
	fields, ok := members(header)
	if !ok {
		return nil, errSignature
	}
	// crit names extensions that a verifier must understand (RFC 7515, 4.1.11), and this one knows none.
	if _, critical := fields["crit"]; critical {
		return nil, errSignature
	}
	switch t.Method {
	case jwt.SigningMethodHS256:
		return v.cfg.Secret, nil
	case jwt.SigningMethodEdDSA:
		return v.cfg.PublicKey, nil
	}
	return nil, errSignature
}

// payload leaves the claims unread until the signature holds.
type payload struct {
	jwt.RegisteredClaims // stays empty: the parser wants its methods
	json                 []byte
}

// UnmarshalJSON keeps the text.
func (p *payload) UnmarshalJSON(b []byte) error {
	p.json = bytes.Clone(b)
	return nil
}

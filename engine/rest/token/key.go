package token

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

var errKeyForm = errors.New("no Ed25519 public key: give PEM (-----BEGIN PUBLIC KEY-----), base64 of its DER or of its 32 bytes, or 64 hex digits")

// ParsePublicKey reads an Ed25519 public key: PEM (PKIX, also with its line breaks written as \n, as environment
// variables carry them), base64 of either alphabet, padded or not, of the DER or of the 32 bytes, or 64 hex digits. Its
// errors say what was given instead and repeat nothing of it.
func ParsePublicKey(text string) (ed25519.PublicKey, error) {
	text = strings.TrimSpace(strings.NewReplacer(`\r`, "", `\n`, "\n").Replace(text))
	if strings.Contains(text, "-----BEGIN") {
		return parsePEM(text)
	}
	if b, err := hex.DecodeString(text); err == nil && (len(b) == ed25519.PublicKeySize || len(b) == ed25519.PrivateKeySize) {
		return parseBytes(b)
	}
	standard := strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	b, err := base64.RawStdEncoding.Strict().DecodeString(standard)
	if err != nil {
		return nil, errKeyForm
	}
	return parseBytes(b)
}

// anyoneSigns tells whether signatures can be made for a public key without its private key, as for 32 zero bytes that
// someone left as a placeholder. It is so for points of small order, at most 8 (RFC 8032, 5.1): the signature with the
// neutral element for R and 0 for S then fits one message in 8 or more, and for any other key none.
func anyoneSigns(key ed25519.PublicKey) bool {
	signature := make([]byte, ed25519.SignatureSize)
	signature[0] = 1 // the neutral element
	for i := range byte(64) {
		if ed25519.Verify(key, []byte{i}, signature) {
			return true
		}
	}
	return false
}

func parsePEM(text string) (ed25519.PublicKey, error) {
	block, rest := pem.Decode([]byte(text))
	switch {
	case block == nil:
		return nil, errors.New("the PEM text cannot be read: it must have its lines, or \\n between them, and its end")
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, notPublic("a private key")
	case strings.HasSuffix(block.Type, "CERTIFICATE"):
		return nil, notPublic("a certificate")
	case block.Type == "RSA PUBLIC KEY":
		return nil, notPublic("an RSA public key")
	case block.Type != "PUBLIC KEY":
		return nil, errKeyForm
	case len(strings.TrimSpace(string(rest))) > 0:
		return nil, errors.New("something follows the public key: give one key")
	}
	return parseDER(block.Bytes)
}

// parseBytes tells a raw key from DER by its length: 32 bytes are too few for the DER of any key.
func parseBytes(b []byte) (ed25519.PublicKey, error) {
	switch len(b) {
	case ed25519.PublicKeySize:
		return b, nil
	case ed25519.PrivateKeySize:
		return nil, notPublic("a private key")
	}
	return parseDER(b)
}

func parseDER(der []byte) (ed25519.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
			return nil, notPublic("a private key")
		}
		return nil, errKeyForm
	}
	switch key := key.(type) {
	case ed25519.PublicKey:
		return key, nil
	case *rsa.PublicKey:
		return nil, notPublic("an RSA public key")
	case *ecdsa.PublicKey:
		return nil, notPublic("an EC public key")
	case *ecdh.PublicKey:
		return nil, notPublic("an X25519 public key")
	}
	return nil, notPublic("a public key of another kind")
}

func notPublic(what string) error {
	return fmt.Errorf("this is %s, and an Ed25519 public key is wanted (openssl genpkey -algorithm ed25519 makes a pair, openssl pkey -pubout prints its public key)", what)
}

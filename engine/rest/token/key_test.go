package token

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"strings"
	"testing"
)

func publicDER(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func privateDER(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func armoured(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func publicPEM(t testing.TB, key any) string {
	t.Helper()
	return armoured("PUBLIC KEY", publicDER(t, key))
}

// keyLike is a key whose base64 has letters of both alphabets and whose hex has letters.
func keyLike(t *testing.T) ed25519.PublicKey {
	t.Helper()
	for {
		key, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if text := base64.StdEncoding.EncodeToString(key); strings.Contains(text, "+") && strings.Contains(text, "/") {
			return key
		}
	}
}

func TestParsePublicKey_Forms(t *testing.T) {
	key := keyLike(t)
	der, text := publicDER(t, key), publicPEM(t, key)
	forms := map[string]string{
		"PEM":                             text,
		"PEM without its last line break": strings.TrimSpace(text),
		"PEM with Windows line breaks":    strings.ReplaceAll(text, "\n", "\r\n"),
		`PEM with \n for line breaks`:     strings.ReplaceAll(text, "\n", `\n`),
		`PEM with \r\n for line breaks`:   strings.ReplaceAll(text, "\n", `\r\n`),
		"PEM with text in front":          "the key of the shop\n" + text,
		"PEM with space around":           "\n  " + text + "\n\n ",
		"hex":                             hex.EncodeToString(key),
		"hex in capitals":                 strings.ToUpper(hex.EncodeToString(key)),
		"hex with a line break":           hex.EncodeToString(key) + "\n",
	}
	for name, b := range map[string][]byte{"DER": der, "the bytes": key} {
		forms["base64 of "+name] = base64.StdEncoding.EncodeToString(b)
		forms["base64 without padding of "+name] = base64.RawStdEncoding.EncodeToString(b)
		forms["base64url of "+name] = base64.URLEncoding.EncodeToString(b)
		forms["base64url without padding of "+name] = base64.RawURLEncoding.EncodeToString(b)
		forms["base64 with space around of "+name] = " " + base64.StdEncoding.EncodeToString(b) + "\n"
	}
	for name, form := range forms {
		if got, err := ParsePublicKey(form); err != nil || !got.Equal(key) {
			t.Errorf("%s: %x, %v", name, got, err)
		}
	}
}

// Each mistake is called what it is, and the error repeats nothing of what was given.
func TestParsePublicKey_Refusals(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecPrivate, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	good, der := publicPEM(t, public), publicDER(t, public)
	loose := base64.RawURLEncoding.EncodeToString(public) // its last letter has two bits to spare
	const isPrivate, unreadable = "this is a private key", "the PEM text cannot be read"
	none := errKeyForm.Error()
	for _, c := range []struct{ name, given, want string }{
		{"nothing", "", none},
		{"space", " \n", none},
		{"a word", "secret", none},
		{"bytes too few", hex.EncodeToString(public[:31]), none},
		{"bytes too many", hex.EncodeToString(append([]byte{1}, public...)), none},
		{"hex with a digit that is none", "g" + hex.EncodeToString(public)[1:], none},
		{"base64 with a letter that is none", "*" + base64.StdEncoding.EncodeToString(public)[1:], none},
		{"base64 of too few bytes", base64.StdEncoding.EncodeToString(public[:31]), none},
		{"base64 with trailing bits", loose[:len(loose)-1] + nextLetter(loose[len(loose)-1]), none},
		{"DER cut", base64.StdEncoding.EncodeToString(der[:len(der)-1]), none},
		{"DER and more", base64.StdEncoding.EncodeToString(append(der, 0)), none},
		{"the DER itself", string(der), none},
		{"the bytes themselves", string(public), none},
		{"SSH", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + base64.StdEncoding.EncodeToString(public), none},
		{"PEM of another kind", armoured("CERTIFICATE REQUEST", der), none},
		{"PEM with something else within", armoured("PUBLIC KEY", public), none},
		{"PEM in one line", strings.ReplaceAll(good, "\n", " "), unreadable},
		{"PEM without its end", good[:len(good)-20], unreadable},
		{"two keys", good + good, "something follows"},
		{"a certificate", armoured("CERTIFICATE", der), "this is a certificate"},
		{"RSA", publicPEM(t, &rsaKey.PublicKey), "this is an RSA public key"},
		{"RSA of PKCS 1", armoured("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&rsaKey.PublicKey)), "this is an RSA public key"},
		{"RSA in base64", base64.StdEncoding.EncodeToString(publicDER(t, &rsaKey.PublicKey)), "this is an RSA public key"},
		{"EC", publicPEM(t, &ecKey.PublicKey), "this is an EC public key"},
		{"X25519", publicPEM(t, x25519.PublicKey()), "this is an X25519 public key"},
		{"private key", armoured("PRIVATE KEY", privateDER(t, private)), isPrivate},
		{"private key named public", armoured("PUBLIC KEY", privateDER(t, private)), isPrivate},
		{`private key with \n`, strings.ReplaceAll(armoured("PRIVATE KEY", privateDER(t, private)), "\n", `\n`), isPrivate},
		{"private key before the public one", armoured("PRIVATE KEY", privateDER(t, private)) + good, isPrivate},
		{"private key in base64", base64.StdEncoding.EncodeToString(privateDER(t, private)), isPrivate},
		{"private key as bytes in base64", base64.RawURLEncoding.EncodeToString(private), isPrivate},
		{"private key in hex", hex.EncodeToString(private), isPrivate},
		{"private key encrypted", armoured("ENCRYPTED PRIVATE KEY", der), isPrivate},
		{"private key of OpenSSH", armoured("OPENSSH PRIVATE KEY", der), isPrivate},
		{"RSA private key", armoured("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), isPrivate},
		{"EC private key", armoured("EC PRIVATE KEY", ecPrivate), isPrivate},
		{"EC private key in base64", base64.StdEncoding.EncodeToString(privateDER(t, ecKey)), isPrivate},
	} {
		key, err := ParsePublicKey(c.given)
		if key != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%s: %x, %v, want %q", c.name, key, err, c.want)
			continue
		}
		for from := 0; from+16 <= len(c.given); from += 16 {
			part := c.given[from : from+16]
			if strings.Contains(err.Error(), part) && !strings.Contains("-----BEGIN PUBLIC KEY-----", part) {
				t.Errorf("%s: the error repeats %q: %v", c.name, part, err)
			}
		}
	}
}

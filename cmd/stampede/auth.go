package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"stampede/engine/rest"
	"stampede/engine/rest/token"
)

const (
	authTrusted = "trusted"
	authJWT     = "jwt"
)

// authFlags say how a request tells who its buyer is.
type authFlags struct {
	Auth             string `placeholder:"MODE" help:"Who says who the buyer is. trusted: whoever calls; needed in so many words to listen beyond this machine. jwt: a Bearer token."`
	JWTSecret        string `name:"jwt-secret" placeholder:"SECRET" help:"Key of HS256 tokens, 32 bytes or more. Other users of this machine can see flags: prefer the variable or the file."`
	JWTSecretFile    string `name:"jwt-secret-file" placeholder:"FILE" help:"File that holds the key of HS256 tokens; a line break at its end does not count."`
	JWTPublicKey     string `name:"jwt-public-key" placeholder:"KEY" help:"Ed25519 public key of EdDSA tokens: PEM, base64 or hex."`
	JWTPublicKeyFile string `name:"jwt-public-key-file" placeholder:"FILE" help:"File that holds the Ed25519 public key of EdDSA tokens."`
	JWTIssuer        string `name:"jwt-issuer" placeholder:"NAME" help:"Take only tokens with this iss."`
	JWTAudience      string `name:"jwt-audience" placeholder:"NAME" help:"Take only tokens with this aud."`
}

func (f *authFlags) validate() error {
	switch {
	case f.Auth != "" && f.Auth != authTrusted && f.Auth != authJWT:
		return fmt.Errorf("--auth %s is not known: take trusted or jwt", f.Auth)
	case f.Auth == "" && f.anyKey():
		return errors.New("a key for tokens is given, but nothing says that buyers are known by tokens: add --auth jwt, " +
			"or say --auth trusted to leave the key unused")
	case f.Auth == authJWT && !f.anyKey():
		return errors.New("--auth jwt needs a key to verify tokens with: set STAMPEDE_JWT_SECRET (HS256) or " +
			"STAMPEDE_JWT_PUBLIC_KEY (EdDSA), or name a file with --jwt-secret-file or --jwt-public-key-file")
	case f.JWTSecret != "" && f.JWTSecretFile != "":
		return errors.New("the key of HS256 tokens is given twice: take --jwt-secret or --jwt-secret-file")
	case f.JWTPublicKey != "" && f.JWTPublicKeyFile != "":
		return errors.New("the key of EdDSA tokens is given twice: take --jwt-public-key or --jwt-public-key-file")
	}
	return nil
}

func (f *authFlags) anyKey() bool {
	return f.JWTSecret != "" || f.JWTSecretFile != "" || f.JWTPublicKey != "" || f.JWTPublicKeyFile != ""
}

// tokens returns what verifies buyers' tokens, nil in trusted mode.
func (f *authFlags) tokens(log *slog.Logger) (rest.Tokens, error) {
	if f.Auth != authJWT {
		return nil, nil
	}
	secret, err := textOrFile(f.JWTSecret, f.JWTSecretFile, "key of HS256 tokens")
	if err != nil {
		return nil, err
	}
	publicKey, err := textOrFile(f.JWTPublicKey, f.JWTPublicKeyFile, "key of EdDSA tokens")
	if err != nil {
		return nil, err
	}
	c := token.Config{Secret: []byte(secret), Issuer: f.JWTIssuer, Audience: f.JWTAudience}
	if publicKey != "" {
		if c.PublicKey, err = token.ParsePublicKey(publicKey); err != nil {
			return nil, fmt.Errorf("the key of EdDSA tokens cannot be used: %w", err)
		}
	}
	if secret != "" && len(secret) < token.SecretBytesWanted {
		log.Warn("the key of HS256 tokens is short: whoever holds a token can search for it; take 32 random bytes or more",
			"bytes", len(secret))
	}
	return token.New(c)
}

// textOrFile returns the text, or what the file holds.
func textOrFile(text, file, what string) (string, error) {
	if file == "" {
		return text, nil
	}
	read, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("cannot read the %s: %w", what, err)
	}
	if text = strings.TrimRight(string(read), "\r\n"); text == "" {
		return "", fmt.Errorf("the file %s is empty: it should hold the %s", file, what)
	}
	return text, nil
}

package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// secure settles whom a connection over TLS trusts, and what it shows of itself. The server is always verified.
func (r Redis) secure(o *redis.Options) error {
	switch {
	case o.TLSConfig == nil && r.CACert+r.Cert+r.Key != "":
		return errors.New("certificates for Redis are given, but its URL does not ask for TLS: write rediss:// instead of " +
			"redis://, or leave --redis-cacert, --redis-cert and --redis-key out")
	case o.TLSConfig == nil:
		return nil
	case o.TLSConfig.InsecureSkipVerify:
		return errors.New("the Redis URL says skip_verify, but whom a password is sent to is always verified: leave it out, " +
			"and name the authority that signed the certificate of Redis with --redis-cacert")
	case (r.Cert == "") != (r.Key == ""):
		return errors.New("one file of two: a client certificate for Redis needs both --redis-cert and --redis-key")
	}
	if r.CACert != "" {
		text, err := os.ReadFile(r.CACert)
		if err != nil {
			return fmt.Errorf("cannot read the authorities of --redis-cacert: %w", err)
		}
		o.TLSConfig.RootCAs = x509.NewCertPool()
		if !o.TLSConfig.RootCAs.AppendCertsFromPEM(text) {
			return fmt.Errorf("there is no certificate in %s: --redis-cacert takes a file in PEM", r.CACert)
		}
	}
	if r.Cert != "" {
		if _, err := r.clientCertificate(nil); err != nil {
			return err
		}
		o.TLSConfig.GetClientCertificate = r.clientCertificate
	}
	o.Dialer = dialTLS(o.TLSConfig)
	return nil
}

// clientCertificate reads the files for each new connection, so that a renewal needs no restart.
func (r Redis) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(r.Cert, r.Key)
	if err != nil {
		return nil, fmt.Errorf("cannot use --redis-cert %s with --redis-key %s: %w", r.Cert, r.Key, err)
	}
	return &pair, nil
}

// handshakeError is why no TLS came about with a server that was reached.
type handshakeError struct{ error }

func (e handshakeError) Unwrap() error { return e.error }

// dialTLS dials as the client library does, but counts the handshake as part of it: a command whose connection never
// came about has certainly not been executed, see outcome. The nodes of a cluster, and sentinels, each show a name of their
// own.
func dialTLS(config *tls.Config) func(ctx context.Context, network, addr string) (net.Conn, error) {
	dial := redis.NewDialer(&redis.Options{}) // the caller's context carries the bound
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		named := config.Clone()
		if named.ServerName, _, err = net.SplitHostPort(addr); err != nil {
			named.ServerName = config.ServerName
		}
		secured := tls.Client(conn, named)
		if err := secured.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, &net.OpError{Op: "dial", Net: network, Addr: conn.RemoteAddr(), Err: handshakeError{err}}
		}
		return securedConn{secured}, nil
	}
}

// securedConn tells what a server said before it hung up. In TLS 1.3 a client has shaken hands before the server has
// looked at its certificate, so a refusal comes when the client already writes, and stays unread where the write fails.
type securedConn struct{ *tls.Conn }

func (c securedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		var refusal *net.OpError // of an alert: "remote error"
		if _, last := c.Read(make([]byte, 1)); errors.As(last, &refusal) && refusal.Op == "remote error" {
			return n, last
		}
	}
	return n, err
}

// Explain says why a Redis cannot be used and what an operator can do about it. No part of a URL stands in it.
func Explain(err error) string {
	text := strings.TrimPrefix(err.Error(), ErrUnavailable.Error()+": ")
	text, _, _ = strings.Cut(text, ", with args beginning with") // of an unknown AUTH: the password
	return strings.TrimSuffix(text, ".") + "; " + advice(err)
}

func advice(err error) string {
	var (
		handshake handshakeError
		record    tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		invalid   x509.CertificateInvalidError
	)
	text := err.Error()
	switch {
	case strings.Contains(text, "CLUSTERDOWN"):
		return "a part of its slots has no master: see `redis-cli --cluster check`"
	case strings.Contains(text, "cluster support disabled"):
		return "the Redis URL names several servers, which only a cluster has: name one"
	case strings.Contains(text, "all sentinels"):
		return "are they running at the Redis URL, and do they watch a master of that name?"
	case strings.Contains(text, "NOPERM"):
		return "give its user the rights of the ACL line in README.md, \"TLS and least authority\""
	case strings.Contains(text, "WRONGPASS"), strings.Contains(text, "NOAUTH"):
		return "are user and password of the Redis URL right?"
	case errors.As(err, &authority):
		return "name the authority that signed the certificate of Redis with --redis-cacert"
	case errors.As(err, &host):
		return "name the host in the Redis URL as the certificate does"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "renew the certificate of Redis, or set the clock of this machine"
	case strings.Contains(text, "tls: certificate required"):
		return "give a client certificate with --redis-cert and --redis-key, or set tls-auth-clients to no or optional in Redis"
	case strings.Contains(text, "remote error: tls: "):
		return "Redis does not take what it was shown: are --redis-cert and --redis-key signed by an authority that it trusts?"
	case errors.As(err, &record), errors.As(err, &handshake) && errors.Is(err, context.DeadlineExceeded):
		return "does this port speak TLS? if not, write redis:// instead of rediss://"
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return "it hung up without a word: if it speaks TLS, write rediss:// instead of redis://, else see its log"
	}
	return "is it running at the Redis URL, and is the password right?"
}

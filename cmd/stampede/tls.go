package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"
)

// listen takes the address and, where there is a certificate, puts TLS in front of it.
func (f *saleFlags) listen(log *slog.Logger) (net.Listener, error) {
	if f.TLSCert == "" {
		return listen(f.Addr, f.Auth)
	}
	c := &certificate{certFile: f.TLSCert, keyFile: f.TLSKey, log: log}
	if err := c.load(c.look()); err != nil {
		return nil, fmt.Errorf("cannot answer HTTPS: %w", err)
	}
	listener, err := listen(f.Addr, f.Auth)
	if err != nil {
		return nil, err
	}
	return &tlsListener{Listener: listener, config: &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get,
	}}, nil
}

// tlsListener hands out connections that shake hands when they are first read, under the deadline of a request: who
// never does is closed like who never sends one, and keeps nobody else waiting.
type tlsListener struct {
	net.Listener
	config *tls.Config
}

// Accept returns the next connection.
func (l *tlsListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tlsConn{tls.Server(conn, l.config)}, nil
}

// tlsConn is a type of its own because of Read, and because fasthttp takes a bare *tls.Conn through the handshake
// before it counts it among the connections that a shutdown ends.
type tlsConn struct{ *tls.Conn }

const plainAnswer = `{"type":"urn:stampede:problem:validation_failed","title":"A value is not acceptable","status":400,` +
	`"code":"validation_failed","detail":"This port speaks HTTPS only: begin the address with https://."}`

// Read tells a client that speaks plain HTTP so, which would else get an alert of TLS in binary.
func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	var record tls.RecordHeaderError
	if errors.As(err, &record) && record.Conn != nil && looksLikeHTTP(record.RecordHeader) {
		_, _ = fmt.Fprintf(record.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\n"+
			"Content-Length: %d\r\nConnection: close\r\n\r\n%s", len(plainAnswer), plainAnswer) // it may have left
		return n, io.EOF
	}
	return n, err
}

func looksLikeHTTP(start [5]byte) bool {
	for _, method := range []string{"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS "} {
		if strings.HasPrefix(method, string(start[:])) || strings.HasPrefix(string(start[:]), method) {
			return true
		}
	}
	return false
}

// certificateEvery is how often the files of a certificate are looked at.
const certificateEvery = 2 * time.Second

// certificate is what proves who we are. It is read anew when its files change, so that a renewal needs no restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu     sync.Mutex
	pair   *tls.Certificate
	seen   pairInfo // of the files when they were last read
	looked time.Time
}

// pairInfo is of certificate and key; nil for a file that is not there.
type pairInfo [2]os.FileInfo

// get is what a handshake asks.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.looked) >= certificateEvery {
		c.renew()
	}
	return c.pair, nil
}

// renew takes over files that have changed. Where they cannot be used the old pair stays: often one of two is still
// to come.
func (c *certificate) renew() {
	found := c.look()
	if found.same(c.seen) {
		return
	}
	if err := c.load(found); err != nil {
		c.log.Warn("certificate files have changed and cannot be used; going on with the old ones",
			"error", err, "valid_until", c.pair.Leaf.NotAfter)
		return
	}
	c.log.Info("certificate read anew", "valid_until", c.pair.Leaf.NotAfter)
}

// look comes before load: what changes in between is found at the next look.
func (c *certificate) look() (found pairInfo) {
	c.looked = time.Now()
	for i, file := range []string{c.certFile, c.keyFile} {
		found[i], _ = os.Stat(file) // one that cannot be seen cannot be read either, and that says why
	}
	return found
}

func (c *certificate) load(found pairInfo) error {
	c.seen = found
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("--tls-cert %s with --tls-key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	return nil
}

func (p pairInfo) same(other pairInfo) bool {
	for i, a := range p {
		b := other[i]
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		if !os.SameFile(a, b) || !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
			return false
		}
	}
	return true
}

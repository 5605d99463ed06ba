package engine

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
)

// A server that wants a certificate says so and resets the connection, before the client has written its first command.
func TestDialTLS_TellsWhyTheServerHungUp(t *testing.T) {
	t.Parallel()
	lent := httptest.NewTLSServer(nil) // its certificate
	t.Cleanup(lent.Close)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		_ = tls.Server(conn, &tls.Config{Certificates: lent.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert}).Handshake()
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
	}()

	trusted := x509.NewCertPool()
	trusted.AddCert(lent.Certificate())
	conn, err := dialTLS(&tls.Config{RootCAs: trusted})(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	<-gone
	_, err = conn.Write([]byte("PING\r\n"))
	if err == nil || !strings.Contains(Explain(err), "give a client certificate with --redis-cert") {
		t.Fatalf("the operator is told: %v", err)
	}
}

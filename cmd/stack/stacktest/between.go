package stacktest

import (
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
)

// Between is a proxy between a program and a server, as a pooler or a NAT is one. It can fall silent: then it drops what
// either side sends, ends included, and closes nothing.
type Between struct {
	URL string // of the server, through it

	server string
	silent atomic.Bool
	mu     sync.Mutex
	ended  bool
	conns  []net.Conn
}

// Through puts one before the server of a URL until the test ends.
func Through(t testing.TB, server string) *Between {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &Between{server: u.Host}
	u.Host = listener.Addr().String()
	b.URL = u.String()
	t.Cleanup(func() {
		_ = listener.Close()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.ended = true
		for _, conn := range b.conns {
			_ = conn.Close()
		}
	})
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			b.join(client)
		}
	}()
	return b
}

// FallSilent drops all that is sent from now on.
func (b *Between) FallSilent() { b.silent.Store(true) }

// Speak passes on what is sent from now on.
func (b *Between) Speak() { b.silent.Store(false) }

func (b *Between) join(client net.Conn) {
	server, err := net.Dial("tcp", b.server)
	if err != nil {
		_ = client.Close()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		_, _ = client.Close(), server.Close()
		return
	}
	b.conns = append(b.conns, client, server)
	go b.pass(client, server)
	go b.pass(server, client)
}

// pass hands on what one side sends. The end of a side is passed on too, unless it came in silence: then the other side never
// hears of it.
func (b *Between) pass(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if b.silent.Load() {
			n = 0
		} else if err != nil {
			_ = to.Close()
		}
		if err != nil {
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				_ = from.Close()
				return
			}
		}
	}
}

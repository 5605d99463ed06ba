package limit_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"stampede/engine/rest/limit"
)

// patience is how long tests wait for what must come.
const patience = 20 * time.Second

// refusals say why.
func refusals(perIP bool) []byte {
	if perIP {
		return []byte("HTTP/1.1 429 Too Many Requests\r\n\r\n" + strings.Repeat("too many of yours", 20))
	}
	return []byte("HTTP/1.1 503 Service Unavailable\r\n\r\ntoo many")
}

// door is a listener that somebody accepts from.
type door struct {
	*limit.Listener
	t        *testing.T
	accepted chan net.Conn
}

func bind(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// open bounds a listener until the test ends; nobody accepts yet. Those refused have as long to go as a slow machine
// takes.
func open(t *testing.T, ln net.Listener, perIP, total int, refusal func(bool) []byte) *door {
	t.Helper()
	d := &door{Listener: limit.NewListener(ln, perIP, total, refusal), t: t, accepted: make(chan net.Conn, 10_000)}
	d.SetLeave(patience)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// start accepts until the listener is closed.
func (d *door) start() *door {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := d.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					d.t.Errorf("accept: %v", err)
				}
				return
			}
			d.accepted <- c
		}
	}()
	d.t.Cleanup(func() {
		if err := d.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			d.t.Errorf("close: %v", err)
		}
		<-done
		for len(d.accepted) > 0 {
			_ = (<-d.accepted).Close()
		}
	})
	return d
}

// dial connects from an address of this machine. Who is refused without a word may learn it here already.
func (d *door) dial(from string) (*net.TCPConn, error) {
	ip := net.ParseIP(from)
	to := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: d.Addr().(*net.TCPAddr).Port}
	if ip.To4() == nil {
		to.IP = net.IPv6loopback
	}
	c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: patience}).DialContext(d.t.Context(), "tcp", to.String())
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(patience))
}

func (d *door) call(from string) *net.TCPConn {
	d.t.Helper()
	c, err := d.dial(from)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// wantReset wants a call to be reset without a word.
func (d *door) wantReset(from string) {
	d.t.Helper()
	var got []byte
	c, err := d.dial(from)
	if err == nil {
		got, err = io.ReadAll(c)
	}
	if len(got) > 0 || !errors.Is(err, syscall.ECONNRESET) {
		d.t.Errorf("from %s: read %q, %v", from, got, err)
	}
}

// wantIn wants a call to get through: bytes go to and fro. It returns the server's end.
func (d *door) wantIn(from string) net.Conn {
	d.t.Helper()
	client := d.call(from)
	if _, err := client.Write([]byte("ping")); err != nil {
		d.t.Fatal(err)
	}
	server := d.next(client.LocalAddr().String())
	got := make([]byte, 4)
	if _, err := io.ReadFull(server, got); err != nil || string(got) != "ping" {
		d.t.Fatalf("from %s: read %q, %v", from, got, err)
	}
	return server
}

// next returns the next connection that is accepted, and wants it to be a certain client's.
func (d *door) next(client string) net.Conn {
	d.t.Helper()
	c := d.take()
	_, want, err := net.SplitHostPort(client)
	_, got, gotErr := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil || gotErr != nil || want != got {
		d.t.Fatalf("%v was accepted, want %s", c.RemoteAddr(), client)
	}
	return c
}

func (d *door) take() net.Conn {
	d.t.Helper()
	select {
	case c := <-d.accepted:
		d.t.Cleanup(func() { _ = c.Close() })
		return c
	case <-time.After(patience):
		d.t.Fatal("nobody was accepted")
		return nil
	}
}

// wantRefused wants a call to read exactly a refusal and then the end, although it sends a request.
func (d *door) wantRefused(from string, perIP bool) {
	d.t.Helper()
	d.wantTold(d.call(from), "GET / HTTP/1.1\r\nHost: shop\r\n\r\n", perIP)
}

func (d *door) wantTold(client net.Conn, request string, perIP bool) {
	d.t.Helper()
	if _, err := io.WriteString(client, request); err != nil {
		d.t.Errorf("a refused client cannot send: %v", err)
	}
	got, err := io.ReadAll(client)
	if want := string(refusals(perIP)); string(got) != want || err != nil {
		d.t.Errorf("a refused client read %q, %v, want %q", got, err, want)
	}
}

func (d *door) wantCounts(open int, perIP, total uint64) {
	d.t.Helper()
	gotPerIP, gotTotal := d.Refused()
	if d.Open() != open || gotPerIP != perIP || gotTotal != total {
		d.t.Errorf("%d open, %d and %d refused; want %d, %d and %d", d.Open(), gotPerIP, gotTotal, open, perIP, total)
	}
}

func shut(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came about: %s", what)
		}
	}
}

// together runs something n times at once.
func together(n int, run func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { run(i) })
	}
	all.Wait()
}

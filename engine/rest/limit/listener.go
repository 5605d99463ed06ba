package limit

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Listener accepts connections up to a number an address and in all. What is beyond is answered with a refusal and
// closed, while the next is accepted.
type Listener struct {
	net.Listener
	perIPMax, totalMax int
	refusal            func(perIP bool) []byte
	leave              time.Duration // for one that is turned away to read its answer and go

	mu      sync.Mutex
	open    int
	perIP   map[netip.Addr]int // by Key; what has none open is not in it
	refused struct{ perIP, total uint64 }

	leaving  map[*net.TCPConn]struct{} // are being turned away
	closed   bool
	refusers sync.WaitGroup
}

// NewListener bounds the connections of ln: perIP for each Key, total together; 0 is no bound. A peer without an IP
// address (a Unix socket's) counts only in all.
//
// refusal returns what a connection too many is sent, because of its address or because of all. It may be asked by many
// goroutines at once. Where it or its answer is nil the connection is only reset: below TLS nothing can be said.
func NewListener(ln net.Listener, perIP, total int, refusal func(perIP bool) []byte) *Listener {
	return &Listener{
		Listener: ln,
		perIPMax: perIP, totalMax: total, refusal: refusal, leave: leaveMax,
		perIP: map[netip.Addr]int{}, leaving: map[*net.TCPConn]struct{}{},
	}
}

// Accept returns the next connection that is within the bounds. It does not wait for those that are turned away.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.accept()
		if err != nil {
			return nil, err
		}
		peer := &place{of: l, key: keyOf(c)}
		switch l.admit(peer.key) {
		case overPerIP:
			l.refuse(c, true)
		case overTotal:
			l.refuse(c, false)
		default:
			if tcp, ok := c.(*net.TCPConn); ok {
				return &tcpConn{TCPConn: tcp, place: peer}, nil
			}
			return &plainConn{Conn: c, place: peer}, nil
		}
	}
}

// accept waits while the system is short of what a connection takes: files or memory. A server would give up for good.
func (l *Listener) accept() (net.Conn, error) {
	for wait := shortageFirst; ; wait = min(2*wait, shortageLongest) {
		c, err := l.Listener.Accept()
		if err == nil || !slices.ContainsFunc(shortages, func(s syscall.Errno) bool { return errors.Is(err, s) }) {
			return c, err
		}
		time.Sleep(wait)
	}
}

const (
	shortageFirst   = 5 * time.Millisecond
	shortageLongest = 500 * time.Millisecond
)

var shortages = []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}

// Close ends the listener, and with it what is being turned away. Connections that were accepted stay open.
func (l *Listener) Close() error {
	err := l.Listener.Close()
	l.endRefusals()
	return err
}

// Open returns how many connections are open.
func (l *Listener) Open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open
}

// Refused returns how many connections were turned away: because of their address, and because of all.
func (l *Listener) Refused() (perIP, total uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused.perIP, l.refused.total
}

// keyOf returns by what a connection is counted, the zero Addr where its peer has no address.
func keyOf(c net.Conn) netip.Addr {
	if peer, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return Key(peer.AddrPort().Addr())
	}
	return netip.Addr{}
}

type admission int

const (
	admitted admission = iota
	overPerIP
	overTotal
)

// admit counts a connection, if there is room for it.
func (l *Listener) admit(key netip.Addr) admission {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.perIPMax > 0 && key.IsValid() && l.perIP[key] >= l.perIPMax:
		l.refused.perIP++
		return overPerIP
	case l.totalMax > 0 && l.open >= l.totalMax:
		l.refused.total++
		return overTotal
	}
	l.open++
	l.perIP[key]++
	return admitted
}

// place is what a connection takes up in the counts.
type place struct {
	of   *Listener
	key  netip.Addr
	once sync.Once
}

// free gives it back, once.
func (p *place) free() {
	p.once.Do(func() {
		l := p.of
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		if l.perIP[p.key]--; l.perIP[p.key] == 0 {
			delete(l.perIP, p.key)
		}
	})
}

// tcpConn is a counted connection that can all that *net.TCPConn can: CloseWrite, SyscallConn, sendfile by ReadFrom.
type tcpConn struct {
	*net.TCPConn
	place  *place
	linger atomic.Bool
}

// Linger has the next Close see the client off: after an answer to a request that was not read to its end, which a
// plain close could take away from the client again.
func (c *tcpConn) Linger() { c.linger.Store(true) }

// Close closes the connection and gives its place back. It does not wait for a client that is seen off.
func (c *tcpConn) Close() error {
	if l := c.place.of; c.linger.CompareAndSwap(true, false) && l.begin(c.TCPConn) {
		go func() {
			defer c.place.free()
			defer l.end(c.TCPConn)
			seeOff(c.TCPConn, lingerBytes)
		}()
		return nil
	}
	err := c.TCPConn.Close()
	c.place.free()
	return err
}

// plainConn is any other counted connection.
type plainConn struct {
	net.Conn
	place *place
}

// Close closes the connection and gives its place back.
func (c *plainConn) Close() error {
	err := c.Conn.Close()
	c.place.free()
	return err
}

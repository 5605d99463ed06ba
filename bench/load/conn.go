package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// replyMax bounds a reply, head and body each; it is also the read buffer of a connection.
const replyMax = 16 << 10

// Conn is a keep-alive connection with at most one request in flight. It knows just enough HTTP/1.1 for the replies
// of a JSON API, because whatever the generator burns is missing to the servers on the same machine. One goroutine
// uses it; Interrupt may come from any.
type Conn struct {
	addr  string
	in    *bufio.Reader
	used  time.Time     // when it was dialed, or the last reply was in
	turns atomic.Uint64 // odd while a request is in flight

	mu  sync.Mutex // guards net, against interrupt
	net net.Conn   // nil until dialed, and after an error
}

// NewConn returns a connection to addr, host and port, that dials when it is first used.
func NewConn(addr string) *Conn {
	return &Conn{addr: addr, in: bufio.NewReaderSize(nil, replyMax)}
}

// Reply is an answer; Body is valid until the next request.
type Reply struct {
	Status int
	Body   []byte
}

// Of a connection.
const (
	dialMax  = 10 * time.Second
	fastIdle = time.Second // after that long without a request a server may have closed it
)

// errMalformed is in the chain of errors about replies that are no HTTP: the server's fault, not the network's.
var errMalformed = errors.New("a malformed reply")

// RoundTrip sends a whole request and waits for its reply. It dials when there is no connection. After an error the
// connection is closed, and nobody knows whether the server has seen the request.
func (c *Conn) RoundTrip(ctx context.Context, request []byte) (Reply, error) {
	c.turns.Add(1)
	defer c.turns.Add(1)
	if c.net != nil && time.Since(c.used) > fastIdle && c.ended() {
		_ = c.Close() // the server has closed it already
	}
	if c.net == nil {
		if err := c.Dial(ctx); err != nil {
			return Reply{}, err
		}
	}
	if _, err := c.net.Write(request); err != nil {
		return Reply{}, errors.Join(fmt.Errorf("send a request: %w", err), c.Close())
	}
	r, last, err := c.read()
	c.used = time.Now()
	if err != nil {
		return Reply{}, errors.Join(fmt.Errorf("read a reply: %w", err), c.Close())
	}
	if last {
		return r, c.Close()
	}
	return r, nil
}

// Dial opens the connection.
func (c *Conn) Dial(ctx context.Context) error {
	d := net.Dialer{Timeout: dialMax}
	opened, err := d.DialContext(ctx, "tcp", c.addr)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.net = opened
	c.mu.Unlock()
	c.in.Reset(opened)
	c.used = time.Now()
	return nil
}

// ended is whether the server has closed the connection, or sent what nobody asked for.
func (c *Conn) ended() bool {
	raw, err := c.net.(syscall.Conn).SyscallConn()
	if err != nil {
		return true
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		ended = !errors.Is(err, unix.EAGAIN)
		return true
	})
	return ended || err != nil
}

// Close closes the connection; the next request dials again.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.net == nil {
		return nil
	}
	err := c.net.Close()
	c.net = nil
	return err
}

// Interrupt fails the request in flight, if there is one. A deadline a request would cost more than all the rest of
// the client.
func (c *Conn) Interrupt() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.net != nil {
		_ = c.net.SetDeadline(time.Unix(1, 0)) // a closed connection is interrupted already
	}
}

// read parses one reply; last tells that the server closes the connection behind it.
func (c *Conn) read() (r Reply, last bool, err error) {
	line, err := c.line()
	if err != nil {
		return r, false, err
	}
	if r.Status, err = parseStatus(line); err != nil {
		return r, false, err
	}
	length := -1
	for {
		if line, err = c.line(); err != nil {
			return r, false, err
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return r, false, fmt.Errorf("%w: Content-Length: %w", errMalformed, err)
			}
		case bytes.EqualFold(name, []byte("Connection")):
			last = bytes.EqualFold(value, []byte("close"))
		}
	}
	if length < 0 || length > replyMax {
		return r, false, fmt.Errorf("%w: a body without a Content-Length of 0 to %d", errMalformed, replyMax)
	}
	// Peek and Discard leave the body where it was read to.
	if r.Body, err = c.in.Peek(length); err != nil {
		return r, false, err
	}
	_, err = c.in.Discard(length)
	return r, last, err
}

// line returns the next line of a head without its end.
func (c *Conn) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = fmt.Errorf("%w: a line of more than %d bytes", errMalformed, replyMax)
	}
	if err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

// parseStatus takes the 201 out of "HTTP/1.1 201 Created".
func parseStatus(line []byte) (int, error) {
	_, rest, _ := bytes.Cut(line, []byte(" "))
	if bytes.HasPrefix(line, []byte("HTTP/1.")) && len(rest) >= 3 {
		status, err := strconv.Atoi(string(rest[:3]))
		if err == nil && status >= 200 && status < statusEnd {
			return status, nil
		}
	}
	return 0, fmt.Errorf("%w: not a status line: %.40q", errMalformed, line)
}

package limit_test

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"

	"stampede/engine/rest/limit"
)

// shortListener fails before it hands out a connection.
type shortListener struct {
	net.Listener
	failures []error
	conn     net.Conn
}

func (l *shortListener) Accept() (net.Conn, error) {
	if len(l.failures) == 0 {
		return l.conn, nil
	}
	err := l.failures[0]
	l.failures = l.failures[1:]
	return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", err)}
}

func TestListener_OutlastsAShortageOfFiles(t *testing.T) {
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	short := &shortListener{failures: []error{syscall.EMFILE, syscall.ENFILE, syscall.EMFILE}, conn: conn}
	c, err := limit.NewListener(short, 1, 1, nil).Accept()
	if err != nil || c.LocalAddr() != conn.LocalAddr() {
		t.Errorf("after the shortage: %v, %v", c, err)
	}
	short.failures = []error{syscall.EINVAL}
	if _, err := limit.NewListener(short, 1, 1, nil).Accept(); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("another failure: %v", err)
	}
}

package persist

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

const (
	shortly = 150 * time.Millisecond // of silence that the links of these tests bear
	soon    = 10 * time.Second       // what a busy machine may make of it
)

// linked opens a link, and returns it with the other side.
func linked(t *testing.T) (*link, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // it has done its part
	l := newLinks(shortly)
	conn, err := l.dial(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	return conn.(*link), server
}

// read reads a byte, and returns how long that took.
func read1(c net.Conn) (time.Duration, error) {
	begun := time.Now()
	_, err := io.ReadFull(c, make([]byte, 1))
	return time.Since(begun), err
}

func TestLink_SilenceEndsAWaitButNoTimeout(t *testing.T) {
	t.Parallel()
	c, _ := linked(t)
	took, err := read1(c)
	if !errors.Is(err, errSilent) || errors.Is(err, os.ErrDeadlineExceeded) || took < shortly || took > soon {
		t.Errorf("a read of a silent peer ended after %v with %v", took, err)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the end of a wait counts as a timeout, of which pgx would keep the connection")
	}
}

func TestLink_IdleOneStaysOpen(t *testing.T) {
	t.Parallel()
	c, server := linked(t)
	time.Sleep(2 * shortly)
	go server.Write([]byte("x")) //nolint:errcheck // the read shows it
	if _, err := read1(c); err != nil {
		t.Errorf("a read after a while without any: %v", err)
	}
}

// While a COPY is sent, a read waits for its answer in the background.
func TestLink_WritesKeepAReadWaiting(t *testing.T) {
	t.Parallel()
	c, server := linked(t)
	go io.Copy(io.Discard, server) //nolint:errcheck // until it ends
	done := make(chan error, 1)
	begun := time.Now()
	go func() {
		_, err := read1(c)
		done <- err
	}()
	for time.Since(begun) < 4*shortly {
		if _, err := c.Write([]byte("rows")); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if time.Since(begun) < 3*shortly { // later it may be that the machine let the writes wait
				t.Fatalf("the read ended after %v: %v", time.Since(begun), err)
			}
			return
		case <-time.After(shortly / 10):
		}
	}
	if err := <-done; !errors.Is(err, errSilent) {
		t.Errorf("the read ended with %v", err)
	}
}

func TestLink_CallersDeadlineCountsIfItIsEarlier(t *testing.T) {
	t.Parallel()
	c, _ := linked(t)
	c.of.silence, c.of.connect = soon, soon
	time.AfterFunc(shortly, func() { _ = c.SetDeadline(time.Now()) }) // as a context that ends
	took, err := read1(c)
	if !errors.Is(err, os.ErrDeadlineExceeded) || took >= soon {
		t.Errorf("a read ended after %v with %v", took, err)
	}
	_ = c.SetDeadline(time.Time{})
	c, _ = linked(t)
	_ = c.SetDeadline(time.Now().Add(time.Hour))
	if took, err := read1(c); !errors.Is(err, errSilent) || took > soon {
		t.Errorf("a caller who has an hour waited for %v: %v", took, err)
	}
}

func TestLink_FullPeerEndsAWrite(t *testing.T) {
	t.Parallel()
	c, _ := linked(t)
	var err error
	for begun := time.Now(); err == nil && time.Since(begun) < soon; {
		_, err = c.Write(make([]byte, 1<<20))
	}
	if !errors.Is(err, errSilent) {
		t.Errorf("writes to a peer that takes nothing ended with %v", err)
	}
}

func TestLinks_EndCutsAndOpensNoMore(t *testing.T) {
	t.Parallel()
	c, _ := linked(t)
	c.of.silence, c.of.connect = soon, soon
	time.AfterFunc(shortly, c.of.end)
	if took, err := read1(c); !errors.Is(err, net.ErrClosed) || took >= soon {
		t.Errorf("a read ended after %v with %v", took, err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close() //nolint:errcheck // nothing is pending
	if _, err := c.of.dial(context.Background(), "tcp", listener.Addr().String()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a connection was opened after the end: %v", err)
	}
}

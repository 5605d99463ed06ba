package limit

import (
	"io"
	"net"
	"time"
)

const (
	refusersMax = 256         // connections that are turned away with words at a time
	leaveMax    = time.Second // for one of them to go
	drainMax    = 128 << 10   // bytes of its request that are read: more than a server takes
	lingerBytes = 16 << 20    // the same where the request was answered because it is too large
)

// refuse turns a connection away without waiting for it. While many are being turned away it is reset without a word.
func (l *Listener) refuse(c net.Conn, perIP bool) {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
		return
	}
	if l.refusal == nil || !l.begin(tcp) {
		reset(tcp)
		return
	}
	go func() {
		defer l.end(tcp)
		l.turnAway(tcp, perIP)
	}()
}

// begin notes a connection that is going to be turned away. Its deadline is set before Close can see it.
func (l *Listener) begin(c *net.TCPConn) bool {
	if c.SetDeadline(time.Now().Add(l.leave)) != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.leaving) >= refusersMax {
		return false
	}
	l.leaving[c] = struct{}{}
	l.refusers.Add(1)
	return true
}

func (l *Listener) end(c *net.TCPConn) {
	l.mu.Lock()
	delete(l.leaving, c)
	l.mu.Unlock()
	l.refusers.Done()
}

// turnAway sends the refusal and waits until the client has gone. To close while something of its request is unread
// would be a reset, and that can overtake the refusal.
func (l *Listener) turnAway(c *net.TCPConn, perIP bool) {
	refusal := l.refusal(perIP)
	if len(refusal) == 0 {
		reset(c)
		return
	}
	if _, err := c.Write(refusal); err != nil {
		_ = c.Close()
		return
	}
	seeOff(c, drainMax)
}

// seeOff closes a connection once the client has gone, has sent that much more, or the deadline has come.
func seeOff(c *net.TCPConn, most int64) {
	defer c.Close() //nolint:errcheck // nothing is left to be done about it
	if c.CloseWrite() == nil {
		_, _ = io.CopyN(io.Discard, c, most)
	}
}

// reset closes a connection and leaves nothing of it in the kernel.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// endRefusals has those that are being turned away go now, and waits for it.
func (l *Listener) endRefusals() {
	l.mu.Lock()
	l.closed = true
	for c := range l.leaving {
		_ = c.SetDeadline(time.Unix(1, 0))
	}
	l.mu.Unlock()
	l.refusers.Wait()
}

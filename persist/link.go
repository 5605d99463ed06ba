package persist

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Every wait for Postgres has a deadline here. A server, a pooler or a NAT may fall silent without closing anything, and
// then no timeout of the server's own ends the wait of its client. So the bound is set where all waits meet, at the
// connection: no read and no write waits longer than so long without a byte in either direction. Contexts shorten that for a
// caller who has less time.

const (
	// silenceMax is that bound for a running shop. None of its statements takes nearly as long, and the server itself ends one
	// after four fifths of it, so that a wait for a lock or a slow disk costs no connection.
	silenceMax = 10 * time.Second
	// connectMax is for what happens before a connection can be used.
	connectMax = 3 * time.Second
)

const (
	// patientConnectMax is connectMax for those that are given up when it fails.
	patientConnectMax = 10 * time.Second
	// patientMax is the bound for the operator's commands and for migrations: one statement of theirs may rewrite or index a
	// whole table, and sends nothing until it is done. A peer that is dead they notice by keepalive, within deadMax; this
	// bound ends the wait for a pooler that lives and says nothing.
	patientMax = time.Hour
	// deadMax is how long a peer may leave bytes or keepalive probes unacknowledged before the kernel gives it up.
	deadMax    = 20 * time.Second
	probeAfter = 10 * time.Second // without traffic
	probeEvery = 5 * time.Second
	probes     = 2
	doubtEvery = time.Second
	// partMax is how long a connection that was given up may take to end in order.
	partMax = time.Second
)

// noticeDead has the server notice a client whose machine is dead: else its session would keep its locks for as long as the
// server's kernel waits, which is hours. It is sent as a statement, since a pooler may refuse an unknown startup parameter.
// On a Unix socket it has no effect.
var noticeDead = fmt.Sprintf("SET tcp_keepalives_idle = %d; SET tcp_keepalives_interval = %d; SET tcp_keepalives_count = %d; SET tcp_user_timeout = %d",
	int(probeAfter.Seconds()), int(probeEvery.Seconds()), probes, deadMax.Milliseconds())

// errSilent says that a connection was given up. It is no timeout error: pgx would take it for one of a context.
var errSilent = errors.New("nothing came from Postgres")

// links opens the connections of a pool, and knows those that are open.
type links struct {
	silence time.Duration
	connect time.Duration
	doubt   func(error) // called when one was given up, not more often than every doubtEvery

	mu      sync.Mutex
	open    map[*link]struct{}
	cut     bool
	doubted time.Time
}

func newLinks(silence time.Duration) *links {
	l := &links{silence: silence, connect: connectMax, doubt: func(error) {}, open: map[*link]struct{}{}}
	if silence >= patientMax {
		l.connect = patientConnectMax
	}
	return l
}

// use has connections of a configuration opened here.
func (l *links) use(c *pgconn.Config) {
	c.ConnectTimeout = l.connect
	c.DialFunc = l.dial
	c.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		ctx, cancel := context.WithTimeout(ctx, l.connect)
		defer cancel()
		settings := noticeDead
		if l.silence < patientMax {
			settings += fmt.Sprintf("; SET statement_timeout = %d", (l.silence * 4 / 5).Milliseconds())
		}
		return conn.Exec(ctx, settings).Close()
	}
}

func (l *links) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout:         l.connect, // pgx asks to cancel a statement on a connection of its own, and allows it 15 s
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: probeAfter, Interval: probeEvery, Count: probes},
		Control:         limitUnacknowledged,
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &link{Conn: conn, of: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errors.Join(net.ErrClosed, conn.Close())
	}
	l.open[c] = struct{}{}
	return c, nil
}

// end closes all connections, and lets no more be opened.
func (l *links) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.open {
		_ = c.Conn.Close() // whatever waits on it ends
	}
}

// link is a connection on which nothing waits for longer than allowed.
type link struct {
	net.Conn
	of *links

	mu      sync.Mutex
	limit   time.Time // the caller's; zero: none
	written time.Time // when the last write ended
	begun   bool      // the server has answered once
	parting bool      // a wait was given up: what follows only ends the connection
	expired bool      // a wait reached the caller's limit: pgx ends the connection, unless it clears the limit first
}

// patience is how long a wait may last.
func (c *link) patience() time.Duration {
	switch {
	case c.parting, c.expired:
		return min(partMax, c.of.silence)
	case !c.begun:
		return min(c.of.connect, c.of.silence)
	}
	return c.of.silence
}

// until returns when a wait ends that began then.
func (c *link) until(began time.Time) time.Time {
	end := began.Add(c.patience())
	if !c.limit.IsZero() && c.limit.Before(end) {
		return c.limit
	}
	return end
}

// Read waits for bytes. While bytes are written the peer need not send any: the end of a COPY is answered, not its rows.
func (c *link) Read(p []byte) (int, error) {
	for began := time.Now(); ; {
		c.mu.Lock()
		err := c.Conn.SetReadDeadline(c.until(began))
		c.mu.Unlock()
		if err != nil {
			return 0, err
		}
		n, err := c.Conn.Read(p)
		c.mu.Lock()
		c.begun = c.begun || n > 0
		if c.written.After(began) {
			began = c.written
		}
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(c.until(began)) {
			c.mu.Unlock()
			continue
		}
		err = c.judged(err)
		c.mu.Unlock()
		return n, err
	}
}

// Write waits for room.
func (c *link) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetWriteDeadline(c.until(time.Now()))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Write(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written = time.Now()
	return n, c.judged(err)
}

// judged distinguishes the end of this side's patience from the end of the caller's.
func (c *link) judged(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	waited, parting := c.patience(), c.parting || c.expired
	if !c.limit.IsZero() && !time.Now().Before(c.limit) {
		c.expired = true
		return err
	}
	c.parting = true
	err = fmt.Errorf("%w for %v: the connection was given up; see whether PostgreSQL is frozen or overloaded, or something between drops what is sent",
		errSilent, waited)
	if !parting {
		c.of.silent(err)
	}
	return err
}

// silent makes it known that a connection was given up. What waits on it may put it in words of its own.
func (l *links) silent(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.Sub(l.doubted) >= doubtEvery {
		l.doubted = now
		go l.doubt(err)
	}
}

// SetDeadline sets the caller's limit, also for waits under way.
func (c *link) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = t
	if t.IsZero() {
		c.expired = false
	}
	if t.IsZero() || time.Until(t) > c.patience() {
		return nil // each wait sets its own, and none is longer
	}
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline is SetDeadline: pgx sets no other.
func (c *link) SetReadDeadline(t time.Time) error { return c.SetDeadline(t) }

// SetWriteDeadline is SetDeadline: pgx sets no other.
func (c *link) SetWriteDeadline(t time.Time) error { return c.SetDeadline(t) }

// Close ends the connection.
func (c *link) Close() error {
	c.of.mu.Lock()
	delete(c.of.open, c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

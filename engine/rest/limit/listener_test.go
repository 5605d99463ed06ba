package limit_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"stampede/engine/rest/limit"
)

const here, there = "127.0.0.1", "127.0.0.2"

func TestListener_OneTooManyOfAnAddressIsRefused(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 2, 0, refusals).start()
	first := d.wantIn(here)
	d.wantIn(here)
	d.wantCounts(2, 0, 0)
	d.wantRefused(here, true)
	d.wantRefused(here, true)
	d.wantCounts(2, 2, 0)
	other := d.wantIn(there)
	d.wantCounts(3, 2, 0)

	shut(t, first)
	d.wantCounts(2, 2, 0)
	d.wantIn(here)
	d.wantRefused(here, true)
	shut(t, other)
	d.wantCounts(2, 3, 0)
}

func TestListener_OneTooManyInAllIsRefused(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 2, 3, refusals).start()
	d.wantIn(here)
	first := d.wantIn(here)
	d.wantIn(there)
	d.wantRefused("127.0.0.3", false)
	d.wantRefused(here, true) // its own doing
	d.wantCounts(3, 1, 1)
	shut(t, first)
	d.wantIn("127.0.0.3")
	d.wantRefused(there, false)
	d.wantCounts(3, 1, 2)
}

func TestListener_NoBoundIsNone(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 0, 0, refusals).start()
	for range 50 {
		d.wantIn(here)
	}
	d.wantCounts(50, 0, 0)
}

func TestListener_BothProtocols(t *testing.T) {
	ln, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Skipf("no IPv6 here: %v", err)
	}
	d := open(t, ln, 1, 0, refusals).start()
	for _, from := range []string{"::1", here, there} {
		in := d.wantIn(from)
		d.wantRefused(from, true)
		shut(t, in)
		d.wantIn(from)
		d.wantRefused(from, true)
	}
	d.wantCounts(3, 6, 0)
}

func TestListener_ClosedTwiceCountsOnce(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 2, 0, refusals).start()
	first, second := d.wantIn(here), d.wantIn(here)
	shut(t, first)
	together(10, func(int) {
		if err := first.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
	})
	d.wantCounts(1, 0, 0)
	d.wantIn(here)
	d.wantRefused(here, true)
	together(10, func(int) { _ = second.Close() })
	d.wantCounts(1, 1, 0)
}

// What a client sent before anybody looked at it would be answered by a reset if the connection were just closed.
func TestListener_RefusalArrivesWhateverTheClientSends(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 0, refusals)
	d.call(here)
	early := d.call(here)
	if _, err := io.WriteString(early, strings.Repeat("x", 20_000)); err != nil {
		t.Fatal(err)
	}
	late := d.call(here)
	d.start()
	d.wantTold(early, "", true)
	d.wantTold(late, strings.Repeat("x", limit.DrainMax/2), true)
	for range 20 { // it was told and still sends, which is not answered by a reset either
		if _, err := io.WriteString(late, strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	d.wantCounts(1, 2, 0)
	_ = early.Close()
	_ = late.Close()
	eventually(t, "those refused have left", func() bool { return d.Leaving() == 0 })
}

func TestListener_WithoutARefusalItIsReset(t *testing.T) {
	for name, refusal := range map[string]func(bool) []byte{
		"no refusal": nil, "no refusal for this": func(bool) []byte { return nil },
	} {
		d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 0, refusal).start()
		d.wantIn(here)
		d.wantReset(here)
		if d.wantCounts(1, 1, 0); t.Failed() {
			t.Fatalf("with %s", name)
		}
	}
}

func TestListener_AcceptIsNotHeldUpByThoseRefused(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 0, refusals).start()
	d.wantIn(here)
	// They neither read nor close: one after the other they would take as many seconds.
	for range 200 {
		d.call(here)
	}
	began := time.Now()
	d.wantIn(there)
	if took := time.Since(began); took > patience/2 {
		t.Errorf("it took %v", took)
	}
	eventually(t, "all are counted", func() bool { n, _ := d.Refused(); return n == 200 })
	d.wantCounts(2, 200, 0)
}

func TestListener_FloodIsTurnedAwayInABoundedWay(t *testing.T) {
	const callers = limit.RefusersMax + 300
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 0, refusals)
	in := d.call(here)
	silent := make([]net.Conn, callers)
	for i := range silent {
		silent[i] = d.call(here)
	}
	d.start() // after they are connected: each is then told, or reset
	eventually(t, "all are counted", func() bool {
		if n := d.Leaving(); n > limit.RefusersMax {
			t.Fatalf("%d are being turned away at a time", n)
		}
		n, _ := d.Refused()
		return n == callers
	})
	d.next(in.LocalAddr().String())
	d.wantIn(there)
	told := 0
	for _, c := range silent {
		got, err := io.ReadAll(c)
		switch {
		case err == nil && string(got) == string(refusals(true)):
			told++
		case len(got) > 0 || !errors.Is(err, syscall.ECONNRESET):
			t.Fatalf("a client read %q, %v", got, err)
		}
	}
	if told < limit.RefusersMax {
		t.Errorf("%d were told", told)
	}
	d.wantCounts(2, callers, 0)
}

// Who neither reads nor closes, and who never stops sending, goes all the same.
func TestListener_WhoDoesNotLeaveIsClosed(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 0, refusals)
	d.SetLeave(100 * time.Millisecond)
	d.call(here)
	d.call(here)
	sending := d.call(here)
	d.start()
	eventually(t, "both are counted", func() bool { n, _ := d.Refused(); return n == 2 })
	eventually(t, "both are gone", func() bool {
		_, _ = sending.Write([]byte("x"))
		return d.Leaving() == 0
	})
	d.wantCounts(1, 2, 0)
}

func TestListener_ChurnLeavesNothing(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 3, 10, refusals).start()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c := range d.accepted {
			go func() {
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	var in, out [8]int
	together(8, func(i int) {
		for range 50 {
			c, err := d.dial(fmt.Sprintf("127.0.0.%d", 1+i%4))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write([]byte("ping"))
			_ = c.CloseWrite()
			switch got, err := io.ReadAll(c); {
			case string(got) == "ping" && err == nil:
				in[i]++
			case strings.HasPrefix(string(got), "HTTP/1.1 ") && err == nil:
				out[i]++
			default:
				t.Errorf("read %q, %v", got, err)
			}
			_ = c.Close()
		}
	})
	eventually(t, "none is open", func() bool { return d.Open() == 0 && d.Leaving() == 0 })
	shut(t, d)
	close(d.accepted)
	<-done
	perIP, total := d.Refused()
	sumIn, sumOut := 0, 0
	for i := range in {
		sumIn, sumOut = sumIn+in[i], sumOut+out[i]
	}
	if d.Addresses() != 0 || uint64(sumOut) != perIP+total || sumIn+sumOut != 400 || sumIn == 0 {
		t.Errorf("%d addresses counted, %d in, %d refused: %d and %d", d.Addresses(), sumIn, sumOut, perIP, total)
	}
}

func TestListener_CloseEndsWhatIsBeingTurnedAway(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 0, refusals).start()
	in := d.wantIn(here)
	client := d.call(here)
	if _, err := io.ReadFull(client, make([]byte, len(refusals(true)))); err != nil {
		t.Fatal(err)
	}
	shut(t, d)
	if n := d.Leaving(); n != 0 {
		t.Errorf("%d are still being turned away", n)
	}
	if err := d.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed again: %v", err)
	}
	d.wantCounts(1, 1, 0) // what was accepted stays
	shut(t, in)
	d.wantCounts(0, 1, 0)
}

var errAccept = errors.New("too many open files")

type broken struct{ net.Listener }

func (broken) Accept() (net.Conn, error) { return nil, errAccept }

func TestListener_ErrorsPass(t *testing.T) {
	d := open(t, broken{bind(t, "tcp", "127.0.0.1:0")}, 1, 1, refusals)
	if c, err := d.Accept(); c != nil || err != errAccept { //nolint:errorlint // the very error
		t.Errorf("%v %v", c, err)
	}
	closed := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 1, refusals)
	shut(t, closed)
	if c, err := closed.Accept(); c != nil || !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v %v", c, err)
	}
}

func TestListener_ConnectionsKeepTheirAbilities(t *testing.T) {
	d := open(t, bind(t, "tcp", "127.0.0.1:0"), 1, 1, refusals).start()
	c := d.wantIn(here)
	_, halves := c.(interface{ CloseWrite() error })
	_, raw := c.(syscall.Conn)
	_, sends := c.(io.ReaderFrom)
	_, keeps := c.(interface {
		SetKeepAlive(keepalive bool) error
		SetKeepAlivePeriod(d time.Duration) error
	})
	_, tcp := c.RemoteAddr().(*net.TCPAddr)
	if !halves || !raw || !sends || !keeps || !tcp {
		t.Errorf("CloseWrite %t, SyscallConn %t, ReadFrom %t, SetKeepAlive %t, *net.TCPAddr %t", halves, raw, sends, keeps, tcp)
	}
}

func TestListener_BelowTLS(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	shut(t, server.Listener)
	l := limit.NewListener(bind(t, "tcp", "127.0.0.1:0"), 1, 0, nil)
	server.Listener = l
	server.StartTLS()
	defer server.Close()
	get := func() (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL, http.NoBody)
		if err != nil {
			return "", err
		}
		resp, err := server.Client().Do(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close() //nolint:errcheck // read to its end
		body, err := io.ReadAll(resp.Body)
		return string(body), err
	}
	if body, err := get(); body != "hello" || err != nil {
		t.Fatalf("%q, %v", body, err)
	}
	(&door{Listener: l, t: t}).wantReset(here)
	server.Client().CloseIdleConnections()
	eventually(t, "none is open", func() bool { return l.Open() == 0 })
	if body, err := get(); body != "hello" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	server.Client().CloseIdleConnections()
}

// A Unix socket's peer has no address: it counts only in all.
func TestListener_PeersWithoutAddress(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	d := open(t, bind(t, "unix", socket), 1, 2, refusals).start()
	var in []net.Conn
	for i := range 3 {
		c, err := (&net.Dialer{Timeout: patience}).DialContext(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close() //nolint:errcheck // a client's
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if i < 2 {
			in = append(in, d.take())
			continue
		}
		if got, err := io.ReadAll(c); len(got) > 0 || err != nil {
			t.Errorf("one too many read %q, %v", got, err)
		}
	}
	d.wantCounts(2, 0, 1)
	for _, c := range in {
		shut(t, c)
	}
	d.wantCounts(0, 0, 1)
}

package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// server is a fasthttp server on loopback that counts the connections it gets.
type server struct {
	addr  string
	conns atomic.Int64
}

func serve(t *testing.T, handler fasthttp.RequestHandler) *server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{addr: listener.Addr().String()}
	f := &fasthttp.Server{
		Handler: handler, CloseOnShutdown: true,
		ConnState: func(_ net.Conn, state fasthttp.ConnState) {
			if state == fasthttp.StateNew {
				s.conns.Add(1)
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- f.Serve(listener) }()
	t.Cleanup(func() {
		if err := f.Shutdown(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return s
}

var someGoods = Goods{Users: []string{"1", "2", "3"}, Products: []string{"7", "8"}}

func someOrders() Scenario { return NewOrders(someGoods, "test", 1, 0) }

// placed is the body of an accepted order, as far as the generator looks.
const placed = `{"id":"5"}`

// closed runs a closed loop of orders on a few connections.
func closed(t *testing.T, addr string, connections int, d time.Duration) Tally {
	t.Helper()
	g, err := Dial(t.Context(), addr, connections)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder(someOrders())
	if took := g.ClosedLoop(t.Context(), d, someOrders(), r); took < d {
		t.Errorf("a load of %v took %v", d, took)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
	return r.Tally()
}

func TestLoad_CountsEveryStatusOnKeptConnections(t *testing.T) {
	const connections = 4
	var served [statusEnd]atomic.Int64
	var n atomic.Int64
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		status := []int{201, 201, 409, 201, 503}[n.Add(1)%5]
		served[status].Add(1)
		ctx.SetStatusCode(status)
		ctx.SetBodyString(placed + strings.Repeat("x", status)) // lengths of all kinds
	})
	got := closed(t, s.addr, connections, 200*time.Millisecond)
	if got.Accepted == 0 || got.Accepted != served[201].Load() {
		t.Errorf("accepted %d, served %d", got.Accepted, served[201].Load())
	}
	for _, status := range []int{409, 503} {
		if got.Refused[status] != served[status].Load() {
			t.Errorf("%d: counted %d, served %d", status, got.Refused[status], served[status].Load())
		}
	}
	if got.Failed != 0 || s.conns.Load() != connections {
		t.Errorf("%d failures and %d connections, want 0 and %d", got.Failed, s.conns.Load(), connections)
	}
}

func hangUp(c net.Conn) { _ = c.Close() }

func TestLoad_RedialsAClosedConnectionAndCountsIt(t *testing.T) {
	var n, cut atomic.Int64
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		if n.Add(1)%20 == 0 {
			cut.Add(1)
			ctx.HijackSetNoResponse(true)
			ctx.Hijack(hangUp)
			return
		}
		ctx.SetStatusCode(http.StatusCreated)
		ctx.SetBodyString(placed)
	})
	got := closed(t, s.addr, 2, 500*time.Millisecond)
	if got.Failed == 0 || got.Failed != cut.Load() {
		t.Errorf("%d failures, %d connections were cut", got.Failed, cut.Load())
	}
	if want := n.Load() - cut.Load(); got.Accepted != want {
		t.Errorf("accepted %d, answered %d", got.Accepted, want)
	}
}

func TestLoad_AnAnnouncedCloseIsNoFailure(t *testing.T) {
	var n atomic.Int64
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(http.StatusCreated)
		if n.Add(1)%10 == 0 {
			ctx.SetConnectionClose()
		}
	})
	got := closed(t, s.addr, 2, 200*time.Millisecond)
	if got.Failed != 0 || got.Accepted != n.Load() {
		t.Errorf("%d failures, %d of %d accepted", got.Failed, got.Accepted, n.Load())
	}
	if s.conns.Load() < 3 {
		t.Errorf("%d connections: none was dialed again", s.conns.Load())
	}
}

func TestLoad_AServerThatHangsIsInterrupted(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, func(*fasthttp.RequestCtx) { <-release })
	defer close(release)
	g, err := Dial(t.Context(), s.addr, 2)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	r := NewRecorder(someOrders())
	took := g.ClosedLoop(ctx, time.Minute, someOrders(), r)
	if got := r.Tally(); got.Failed != 2 || took > 5*time.Second {
		t.Errorf("%d failures after %v, want 2 at once", got.Failed, took)
	}
}

func TestLoad_ARequestThatHangsDoesNotHoldUpItsConnection(t *testing.T) {
	release := make(chan struct{})
	var n atomic.Int64
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		if n.Add(1) == 1 {
			<-release
		}
		ctx.SetStatusCode(http.StatusCreated)
		ctx.SetBodyString(placed)
	})
	defer close(release)
	g, err := Dial(t.Context(), s.addr, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { g.watch(ctx, 20*time.Millisecond) })
	var h Hit
	someOrders().Source().Next(0, &h)
	if answer, err := g.conns[0].RoundTrip(t.Context(), h.Request); err == nil {
		t.Errorf("a request that hangs is answered with %d", answer.Status)
	}
	if answer, err := g.conns[0].RoundTrip(t.Context(), h.Request); err != nil || answer.Status != http.StatusCreated {
		t.Errorf("the next one is answered with %d (%v)", answer.Status, err)
	}
	stop()
	watching.Wait()
}

// rawServer answers one request on a connection with exactly these bytes and closes it.
func rawServer(t *testing.T, answer string) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			if request, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_ = request.Body.Close()
				_, _ = fmt.Fprint(c, answer)
			}
			_ = c.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		done.Wait()
	})
	return listener.Addr().String()
}

func TestClient_ReadsReplies(t *testing.T) {
	for name, c := range map[string]struct {
		answer string
		want   string // status and body; empty: an error
		bad    bool   // the reply is malformed, and not only cut
	}{
		"plain":          {"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok", "201 ok", false},
		"no reason":      {"HTTP/1.1 503 \r\ncontent-length:0\r\n\r\n", "503 ", false},
		"bare line feed": {"HTTP/1.0 404 Not Found\nCONTENT-LENGTH: 1\nConnection: close\n\nx", "404 x", false},
		"chunked":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", true},
		"cut head":       {"HTTP/1.1 201 Cre", "", false},
		"cut body":       {"HTTP/1.1 201 Created\r\nContent-Length: 5\r\n\r\nok", "", false},
		"no HTTP":        {"-ERR unknown command\r\n\r\n", "", true},
		"bad status":     {"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", "", true},
		"interim":        {"HTTP/1.1 100 Continue\r\n\r\n", "", true},
		"bad length":     {"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n", "", true},
		"too long":       {"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", "", true},
		"endless line":   {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", replyMax) + "\r\n\r\n", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			client := NewConn(rawServer(t, c.answer))
			var h Hit
			someOrders().Source().Next(0, &h)
			answer, err := client.RoundTrip(t.Context(), h.Request)
			got := ""
			if err == nil {
				got = fmt.Sprintf("%d %s", answer.Status, answer.Body)
			}
			if got != c.want {
				t.Errorf("got %q (%v), want %q", got, err, c.want)
			}
			if errors.Is(err, errMalformed) != c.bad {
				t.Errorf("malformed is %v: %v", !c.bad, err)
			}
			if err != nil && client.net != nil {
				t.Error("the connection stands although nobody knows what comes next on it")
			}
			if err := client.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClient_DialsAgainWhatWasClosedWhileItWasIdle(t *testing.T) {
	s := serve(t, func(ctx *fasthttp.RequestCtx) {
		ctx.SetStatusCode(http.StatusCreated)
		ctx.SetBodyString(placed)
	})
	c := NewConn(s.addr)
	defer c.Close()
	if err := c.Dial(t.Context()); err != nil {
		t.Fatal(err)
	}
	// As a server's idle timeout would, and long ago.
	if err := c.net.(*net.TCPConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	c.used = time.Now().Add(-2 * fastIdle)
	var h Hit
	someOrders().Source().Next(0, &h)
	if answer, err := c.RoundTrip(t.Context(), h.Request); err != nil || answer.Status != http.StatusCreated {
		t.Errorf("answered %d (%v)", answer.Status, err)
	}
	if s.conns.Load() != 2 {
		t.Errorf("%d connections, want a second one", s.conns.Load())
	}
}

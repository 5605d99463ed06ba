package rest_test

import (
	"fmt"
	"net"
	"strings"
)

// smuggling hides a second request where a gateway and the server might not agree on the end of the first. It must
// never be carried out: the order that it would place must not exist.
func (b *battery) smuggling() {
	hidden := b.buy("Content-Length: 0", "")
	chunk := func(body string) string { return fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(body), body) }
	post := func(lines, body string) string {
		return "POST /healthz HTTP/1.1\r\nHost: shop\r\n" + lines + "\r\n\r\n" + body
	}
	length := func(body string) string { return fmt.Sprintf("Content-Length: %d", len(body)) }
	var closed []row
	for _, request := range []string{
		// The gateway goes by the one header, the server by the other.
		post("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+hidden),
		post(length("0\r\n\r\n"+hidden)+"\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+hidden),
		post("Content-Length: 4\r\nTransfer-Encoding: chunked", chunk(hidden)),
		post("Transfer-Encoding: identity", hidden),
		post(length(hidden)+"\r\nTransfer-Encoding: identity", hidden),
		post("Transfer-Encoding: xchunked\r\n"+length(hidden), hidden),
		post("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "0\r\n\r\n"+hidden),
		post("Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "0\r\n\r\n"+hidden),
		post("Transfer-Encoding : chunked\r\n"+length(hidden), hidden),
		post(" Transfer-Encoding: chunked\r\n"+length(hidden), "0\r\n\r\n"+hidden),
		post("X: y\r\n Transfer-Encoding: chunked\r\n"+length(hidden), "0\r\n\r\n"+hidden),
		post("X: y\nTransfer-Encoding: chunked\r\n"+length(hidden), "0\r\n\r\n"+hidden),
		post("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n"+hidden),
		post("Transfer-Encoding:\x0bchunked\r\n"+length(hidden), "0\r\n\r\n"+hidden),
		post("Content-Length: 0\r\n"+length(hidden), hidden),
		post(length(hidden)+"\r\nContent-Length: 0", hidden),
		post("Content-Length: 0, "+fmt.Sprint(len(hidden)), hidden),
		post("Content-Length: +0", hidden),
		post("Content Length: 9\r\nContent-Length: 0", hidden),
		post("Content-Length:\r\n 0", hidden),
		post("Content-Length: 0\n\n"+strings.TrimSuffix(hidden, "\r\n\r\n"), ""),
		post("X: y\n\n"+strings.TrimSuffix(hidden, "\r\n\r\n"), ""),
		post("X: y\n\r\n"+strings.TrimSuffix(hidden, "\r\n\r\n"), ""),
		// Within chunks.
		post("Transfer-Encoding: chunked", "1\r\nZ\r\n0\r\nX: y\r\n\r\n"+hidden),
		post("Transfer-Encoding: chunked", "1;\n\r\nZ\r\n0\r\n\r\n"+hidden),
		post("Transfer-Encoding: chunked", "0\n\n"+hidden),
		post("Transfer-Encoding: chunked", "0\r\r\n"+hidden),
		post("Transfer-Encoding: chunked", "1\r\nZZ\r\n0\r\n\r\n"+hidden),
		post("Transfer-Encoding: chunked", "100000000\r\n"+hidden),
		post("Transfer-Encoding: chunked", "-1\r\n"+hidden),
		// By its version, or for lack of one.
		strings.Replace(post("Transfer-Encoding: chunked", "0\r\n\r\n"+hidden), "HTTP/1.1", "HTTP/1.0", 1),
		strings.Replace(post("Content-Length: 0", hidden), " HTTP/1.1", "", 1),
		strings.Replace(post("Content-Length: 0", hidden), "HTTP/1.1", "HTTP/2.0", 1),
		// In a header or a path.
		"GET /healthz HTTP/1.1\r\nHost: shop\r\nX: \x00\r\n\r\n" + hidden,
		"GET /healthz\r\n\r\n" + hidden,
		"GET /healthz HTTP/1.1\r\n\r\n" + hidden,
		"GET /%0d%0a HTTP/1.1\r\nHost: shop\r\nHost: shop\r\n\r\n" + hidden,
	} {
		status, code := 400, "validation_failed"
		if strings.Contains(request, "100000000\r\n") {
			status, code = 413, "payload_too_large"
		}
		closed = append(closed, row{request, status, code, malformed + "|64 KiB"})
	}
	b.refusedAndClosed(closed...)

	// Here everybody agrees that it is a body, or that nothing more is read.
	for _, request := range []string{
		call("GET", "/healthz", hidden), call("GET", "/healthz", chunk(hidden), "Content-Length", "Transfer-Encoding: chunked"), call("HEAD", "/healthz", hidden),
		call("POST", "/healthz", hidden), call("OPTIONS", "/healthz", hidden), call("POST", "/nowhere", hidden), call("POST", "/cart/order", hidden),
		call("DELETE", "/nowhere", hidden), call("TRACE", "/healthz", hidden), call("CONNECT", "shop:80", hidden), call("POST", "/cart/order", hidden, "Content-Type: text/plain"),
		call("GET", "/healthz", hidden, "Expect: something"), call("GET", "/healthz", hidden, "Upgrade: h2c", "Connection: Upgrade"),
		call("GET", "/healthz?a=%0d%0a%0d%0a"+strings.NewReplacer("\r", "%0d", "\n", "%0a", " ", "%20").Replace(hidden), ""),
	} {
		conn := b.dial()
		if _, err := conn.Write([]byte(request)); err != nil {
			b.t.Fatal(err)
		}
		if _, err := conn.answer(methodOf(request)); err != nil {
			b.t.Errorf("%q: %v", request, err)
		}
		b.wantFit(conn, request)
		_ = conn.Close()
	}
	for _, first := range []string{
		call("GET", "/healthz", "", "Connection: close"), strings.Replace(call("GET", "/healthz", ""), "HTTP/1.1", "HTTP/1.0", 1), "GET /healthz HTTP/1.0\r\n\r\n",
	} {
		conn := b.dial()
		if _, err := conn.Write([]byte(first + hidden)); err != nil {
			b.t.Fatal(err)
		}
		if a, err := conn.answer("GET"); err != nil || a.status != 200 {
			b.t.Errorf("%q: %q, %v", first, a.all, err)
		}
		if err := conn.ended(); err != nil {
			b.t.Errorf("%q: %v", first, err)
		}
		_ = conn.Close()
	}
	b.pipelines(hidden)
	p := b.Engine.Keys().OfUser(b.buyer)
	if n, err := b.Redis.Exists(b.t.Context(), b.Engine.Keys().Idempotency(p, b.buyer, "smuggled")).Result(); n != 0 || err != nil {
		b.t.Errorf("a hidden request was carried out: %d, %v", n, err)
	}
}

// pipelines are several requests in a row: what follows one that cannot be read is never looked at.
func (b *battery) pipelines(hidden string) {
	good := call("GET", "/healthz", "")
	refused := call("POST", "/order", `{"user_id":0}`)
	for _, bad := range []string{
		"GARBAGE\r\n\r\n", call("GET", "/healthz", "", "Content-Length: -1"), call("GET", "/healthz", "", "Host"), call("GET", "/healthz", "", "X Y: z"),
		call("POST", "/cart/order", "g\r\n", "Content-Length", "Transfer-Encoding: chunked"),
		b.buy("Content-Length: 0\r\nTransfer-Encoding: chunked", "0\r\n\r\n"), b.buy("Transfer-Encoding: identity", ""), b.buy("Transfer-Encoding: chunked", "0\r\nX-A: b\r\n\r\n"),
	} {
		conn := b.dial()
		if _, err := conn.Write([]byte(good + refused + good + bad + hidden + good)); err != nil {
			b.t.Fatal(err)
		}
		for _, status := range []int{200, 400, 200, 400} {
			if a, err := conn.answer("GET"); err != nil || a.status != status {
				b.t.Errorf("%q within a pipeline: %q, %v, want %d", bad, a.all, err, status)
			}
		}
		if err := conn.ended(); err != nil {
			b.t.Errorf("after %q within a pipeline: %v", bad, err)
		}
		_ = conn.Close()
	}
}

// cutOff are requests whose clients go away before their end. Nobody may take what came for a whole request.
func (b *battery) cutOff() {
	for _, k := range b.all() {
		request := k.with(k.body)
		headers := strings.Index(request, "\r\n\r\n") + 4
		for _, length := range []int{0, 1, 10, headers / 2, headers - 3, headers - 1, headers, len(request) - 2, len(request) - 1} {
			conn := b.dial()
			if _, err := conn.Write([]byte(request[:length])); err != nil {
				b.t.Fatal(err)
			}
			if err := conn.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				b.t.Fatal(err)
			}
			if length > 0 {
				a, err := conn.answer(k.method)
				if err != nil {
					b.t.Fatalf("%q: %v", request[:length], err)
				}
				b.wantProblem(row{request[:length], 400, "validation_failed", malformed}, a)
			}
			if err := conn.ended(); err != nil {
				b.t.Errorf("%q: %v", request[:length], err)
			}
			_ = conn.Close()
		}
	}
}

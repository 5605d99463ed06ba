package rest_test

import (
	"fmt"
	"strings"
	"testing"

	"stampede/engine/rest"
)

// Malformed HTTP. RFC 9112 leaves a server the choice in places; what is chosen here:
//   - 400 for everything that cannot be read, or can be read in two ways, and the connection closed: who cannot agree
//     on where a request ends must not go on talking. (2.2, 3, 5.1, 6.1, 6.3 ask for it, or allow it.)
//   - 400, not 501, for a Transfer-Encoding other than chunked (6.1 says "should", but the contract knows no 501), and
//     400, not 505, for another version than 1.0 and 1.1.
//   - Obsolete line folding and bare LF in headers are refused (5.2 and 2.2 allow that), though a parser could take them.
//   - Trailers are refused: they would otherwise count as headers.

// buy is what an attacker would have done behind a gateway's back: it has an effect if it is ever carried out.
func (b *battery) buy(lines, body string) string {
	return fmt.Sprintf("POST /cart/order HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\nX-User-Id: %d\r\nIdempotency-Key: smuggled\r\nX-Mark: %s\r\n%s\r\n\r\n%s", b.buyer, mark, lines, body)
}

const malformed = "HTTP|must|exclude|once|trailers" // what is wrong with it, in some words

func (b *battery) badFraming() {
	var rows []row
	refuse := func(lines, body string) {
		rows = append(rows, row{b.buy(lines, body), 400, "validation_failed", malformed})
	}
	const chunks, last = "2\r\n{}\r\n0\r\n\r\n", "0\r\n\r\n"
	for _, both := range []string{"Content-Length: 12\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 12", "Transfer-Encoding: chunked\r\ncontent-length: 0"} {
		refuse(both, chunks)
		refuse(both, last)
	}
	for _, length := range []string{
		"", " ", "-1", "-2", "+2", "0x2", "2 2", "2,2", "2, 2", "2;", "2.0", "1e1", "two", "2\t2", "\x002", "2\x00", "\u0662", "99999999999999999999", "18446744073709551618",
	} {
		refuse("Content-Length: "+length, "{}")
	}
	for _, lengths := range []string{
		"Content-Length: 2\r\nContent-Length: 2", "Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2\r\ncontent-length: 2", "Content-Length: 2\r\nX: y\r\nCONTENT-LENGTH: 0",
		"Content-Length:\r\n 2", "Content-Length: 2\r\n ", "Content-Length : 2", "Content-Length\t: 2", " Content-Length: 2", "Content Length: 2", "Content-Length; 2", "Content-Length",
		"Content-Length: 2\nX: y", "Content-Length: 2\rX: y", "X: y\nContent-Length: 2", "X: y\rContent-Length: 2", "Content-Length\x00: 2", "\x00Content-Length: 2",
	} {
		refuse(lengths, "{}")
	}
	for _, encoding := range []string{
		"", "identity", "gzip", "xchunked", "chunked, chunked", "chunked,", ",chunked", "identity, chunked", "chunked, identity", "gzip, chunked", "chunked, gzip", "chunked;q=1",
		`"chunked"`, "chunked chunked", "chunked\x0b", "\x0bchunked", "chunked\x00", "ch\u00fcnked", "chun\u212aed", "chunke", "trailers", "deflate",
	} {
		refuse("Transfer-Encoding: "+encoding, chunks)
		refuse("Transfer-Encoding: "+encoding+"\r\nContent-Length: 2", "{}")
	}
	for _, encodings := range []string{
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\ntransfer-encoding: identity", "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
		"Transfer-Encoding:\r\n chunked", "Transfer-Encoding:\r\n\tchunked", "Transfer-Encoding: chunked\r\n ", "Transfer-Encoding : chunked", "Transfer-Encoding\t: chunked",
		"Transfer Encoding: chunked\r\nContent-Length: 2", " Transfer-Encoding: chunked", "X: y\nTransfer-Encoding: chunked", "X: y\rTransfer-Encoding: chunked",
		"X: y\r\n Transfer-Encoding: chunked\r\nContent-Length: 2", "Transfer-Encoding\x00: chunked",
	} {
		refuse(encodings, chunks)
	}
	rows = append(rows, row{strings.Replace(b.buy("Transfer-Encoding: chunked", chunks), "HTTP/1.1", "HTTP/1.0", 1), 400, "validation_failed", malformed})
	b.refusedAndClosed(rows...)
}

func (b *battery) badChunks() {
	var rows []row
	for _, body := range []string{
		"g\r\n{}\r\n0\r\n\r\n", "-2\r\n{}\r\n0\r\n\r\n", "+2\r\n{}\r\n0\r\n\r\n", "0x2\r\n{}\r\n0\r\n\r\n", " 2\r\n{}\r\n0\r\n\r\n", "\r\n2\r\n{}\r\n0\r\n\r\n", ";a=b\r\n{}\r\n0\r\n\r\n",
		"2 2\r\n{}\r\n0\r\n\r\n", "2.\r\n{}\r\n0\r\n\r\n", "2\n{}\n0\n\n", "2\n{}\r\n0\r\n\r\n", "2\r{}\r\n0\r\n\r\n", "2\r\n{}0\r\n\r\n", "2\r\n{}\n0\r\n\r\n", "2\r\n{}xx0\r\n\r\n",
		"2;a=\nb\r\n{}\r\n0\r\n\r\n", "2;a=\"\n\"\r\n{}\r\n0\r\n\r\n", "2 ;a\r\n{}\r\n0\r\n\r\n", "1\r\n{}\r\n0\r\n\r\n", "3\r\n{}\r\n0\r\n\r\n", "ffffffffffffffff\r\n{}\r\n0\r\n\r\n",
		"10000000000000002\r\n{}\r\n0\r\n\r\n", "7fffffffffffffff\r\n{}\r\n0\r\n\r\n", "80000000\x00\r\n{}\r\n0\r\n\r\n", "\xb2\r\n{}\r\n0\r\n\r\n", "2\r\n{}\r\n-0\r\n\r\n", "2\r\n{}\r\n0\r\n0\r\n\r\n",
		"2\r\n{}\r\n0\r\nX-User-Id: 1\r\n\r\n", "0\r\nX-A: b\r\n\r\n", "0\r\nAuthorization: Bearer x\r\n\r\n", "0\r\nIdempotency-Key: x\r\n\r\n", "0\r\nContent-Length: 2\r\n\r\n",
		"0\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\nHost: other\r\n\r\n", "0\r\nbad\r\n\r\n", "0\r\n: bad\r\n\r\n", "0\r\nX A: b\r\n\r\n", "0\r\n X: b\r\n\r\n", "0\r\nX: \x00\r\n\r\n",
	} {
		rows = append(rows, row{b.buy("Transfer-Encoding: chunked", body), 400, "validation_failed", malformed})
	}
	rows = append(rows, row{b.buy("Transfer-Encoding: chunked\r\nTrailer: X-User-Id", "0\r\nX-User-Id: 1\r\n\r\n"), 400, "validation_failed", malformed})
	b.refusedAndClosed(rows...)
}

func (b *battery) badRequestLines() {
	var rows []row
	for _, line := range []string{
		"POST /cart/order", "POST", "/cart/order HTTP/1.1", "POST /cart/order HTTP/0.9", "POST /cart/order HTTP/1.2", "POST /cart/order HTTP/1.10", "POST /cart/order HTTP/1.01",
		"POST /cart/order HTTP/2.0", "POST /cart/order HTTP/2", "POST /cart/order HTTP/3.0", "POST /cart/order HTTP/01.1", "POST /cart/order HTTP/1", "POST /cart/order HTTP/1.", "POST /cart/order HTTP/.1",
		"POST /cart/order http/1.1", "POST /cart/order HTTPS/1.1", "POST /cart/order HTTP /1.1", "POST /cart/order HTTP/1.1 ", "POST /cart/order HTTP/1.1\t", "POST /cart/order HTTP/1.1 x",
		"POST  /cart/order HTTP/1.1", "POST /cart/order  HTTP/1.1", " POST /cart/order HTTP/1.1", "\tPOST /cart/order HTTP/1.1", "POST\t/cart/order HTTP/1.1", "POST /cart/order\tHTTP/1.1",
		"POST\x0b/cart/order HTTP/1.1", "POST /cart/order\x0cHTTP/1.1", "POST /cart /order HTTP/1.1", "POST /cart\r/order HTTP/1.1", "POST\r/cart/order HTTP/1.1", "POST /cart/order\rHTTP/1.1",
		"POST /cart/order\x00 HTTP/1.1", "POST /cart/order\x01 HTTP/1.1", "POST /cart/order\x7f HTTP/1.1", "P\x00ST /cart/order HTTP/1.1", "PO(ST /cart/order HTTP/1.1", "P\u00d6ST /cart/order HTTP/1.1",
		"POST cart/order HTTP/1.1", "POST \\cart\\order HTTP/1.1", "POST ?cart HTTP/1.1", "POST * HTTP/1.1", "POST @ HTTP/1.1", "POST 1://shop/cart/order HTTP/1.1", "POST ://shop/cart/order HTTP/1.1",
		"POST shop:80 HTTP/1.1", "PRI * HTTP/2.0", "\x16\x03\x01\x02", "\x00", "SSH-2.0-x", "EHLO shop", "*1", "GET", "GET /", "GET / HTTP", "{}",
	} {
		rows = append(rows, row{strings.Replace(b.buy("Content-Length: 0", ""), "POST /cart/order HTTP/1.1", line, 1), 400, "validation_failed", malformed})
	}
	b.refusedAndClosed(append(rows, row{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 400, "validation_failed", malformed})...)
}

func (b *battery) badHeaders() {
	var rows []row
	for _, lines := range []string{
		"X A: b", "X-A : b", "X-A\t: b", ": b", "X-A", "X-A b", "X(A): b", "X/A: b", "X{A}: b", "\"X\": b", "X\x00: b", "X\x01: b", "X\x7f: b", "X\u00fc: b", "X\xff: b", "\tX: b",
		"X-A: a\x00b", "X-A: \x00", "X-A: a\x01b", "X-A: a\x7fb", "X-A: \x1b[0m", "X-A: a\rb", "X-A: a\r", "X-A: a\n", "X-A: a\nX-B: b", "X-A: a\n\nX-B: b", "\n", "\nX-A: b",
		"X-A: b\r\n c", "X-A: b\r\n\tc", "X-A:\r\n b", "X-A: b\r\n ", "X-A: b\r\n\r", "Content-Type: application/json\r\nContent-Type: application/json",
		"Content-Type: text/plain\r\ncontent-type: application/json",
	} {
		rows = append(rows, row{b.buy(lines+"\r\nContent-Length: 0", ""), 400, "validation_failed", malformed})
	}
	good := b.buy("Content-Length: 0", "")
	for _, host := range []string{"", "Host:\r\n", "Host: \r\n", "Host: shop\r\nHost: shop\r\n", "Host: shop\r\nhost: other\r\n", "Host: sh op\r\n", "Host: shop/x\r\n", "Host: http://shop\r\n", "Host: %zz\r\n", " Host: shop\r\n", "Host : shop\r\n"} {
		rows = append(rows, row{strings.Replace(good, "Host: shop\r\n", host, 1), 400, "validation_failed", malformed})
	}
	b.refusedAndClosed(rows...)
}

// What is unusual, but good HTTP, is served.
func TestHTTP_OddButGoodHTTPIsServed(t *testing.T) {
	s := bare(t, rest.Config{}) // where a payment always succeeds
	const pay, user = "/order/7/payment", "X-User-Id: 1"
	good, put := goodRequest, call("POST", pay, "1a\r\n{                        }\r\n0\r\n\r\n", user, "Content-Length", "Transfer-Encoding: chunked")
	with := func(request, part, other string) string {
		if !strings.Contains(request, part) {
			t.Fatalf("%q is not in %q", part, request)
		}
		return strings.Replace(request, part, other, 1)
	}
	for _, request := range []string{
		good, "\r\n" + good, "\r\n\r\n" + good, with(good, "Host", "hOST"), with(good, "Host: shop", "Host:shop"), with(good, "Host: shop", "Host: \t shop \t"),
		with(good, "Host: shop", "Host: shop:8080"), with(good, "Host: shop", "Host: [::1]:8080"), with(good, "/healthz", "http://shop/healthz"),
		with(good, "/healthz", "https://other:443/healthz"), with(good, "/healthz", "/healthz?"), with(good, "/healthz", "/healthz?a=b&a=b&%zz&;&==&"),
		call("GET", "/healthz", "", "X-Empty:"), call("GET", "/healthz", "", "X-High: \xff\xfe\u00fc"), call("GET", "/healthz", "", "X'!#$%&*+-.^_`|~9: x"),
		call("GET", "/healthz", "", "Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"), call("GET", "/healthz", "", "Expect: something"),
		call("GET", "/healthz", "{}"), call("GET", "/healthz", call("POST", "/order", "{}")), call("HEAD", "/healthz", ""), call("GET", "/healthz", "", "Content-Length: 0"),
		put, with(put, "chunked", "Chunked"), with(put, "chunked", "\tCHUNKED\t"), with(put, "1a\r\n", "1A\r\n"), with(put, "1a\r\n", "001a\r\n"), with(put, "1a\r\n", "1a;a=b\r\n"),
		with(put, "1a\r\n", "1a;a=\"b c\";d\r\n"), with(put, "1a\r\n{", "1\r\n{\r\n19\r\n"), with(put, "0\r\n\r\n", "000\r\n\r\n"),
		call("POST", pay, `{"user_id":1}`, user, "Content-Length: 0013"), call("POST", pay, `{"user_id":1}`, user, "Content-Type: Application/JSON ; Charset=\"UTF-8\""),
		call("POST", pay, `{"user_id":1}`, user, "Content-Type: application/json; charset=utf-8"),
		call("POST", pay, `{"user_id":1}`+strings.Repeat(" ", 64<<10-13), user),
	} {
		conn := s.dial()
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		if a, err := conn.answer(methodOf(request)); err != nil || a.status != 200 || a.headers["connection"] != "" {
			t.Errorf("%.300q: %q, %v", request, a.all, err)
		}
		s.wantFit(conn, request)
		_ = conn.Close()
	}
	for request, connection := range map[string]string{ // the value of Connection in the answer
		call("GET", "/healthz", "", "Connection: close"):                                                       "close",
		call("GET", "/healthz", "", "Connection: keep-alive, Close"):                                           "close",
		with(good, "HTTP/1.1", "HTTP/1.0"):                                                                     "close",
		"GET /healthz HTTP/1.0\r\n\r\n":                                                                        "close",
		with(call("GET", "/healthz", "", "Connection: Keep-Alive"), "HTTP/1.1", "HTTP/1.0"):                    "keep-alive",
		with(call("POST", pay, `{"user_id":1}`, user), "HTTP/1.1", "HTTP/1.0"):                                 "close",
		with(call("GET", "/healthz", "", "Expect: 100-continue", "Content-Length: 0"), "HTTP/1.1", "HTTP/1.0"): "close",
	} {
		conn := s.dial()
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		if a, err := conn.answer("GET"); err != nil || a.status != 200 || a.headers["connection"] != connection {
			t.Errorf("%.300q: %q, %v", request, a.all, err)
		}
		if connection == "close" {
			if err := conn.ended(); err != nil {
				t.Errorf("%.300q: %v", request, err)
			}
		}
		_ = conn.Close()
	}
}

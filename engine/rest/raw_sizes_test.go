package rest_test

import (
	"fmt"
	"strings"
)

// badSizes are bodies over 64 KiB (badBatches has those over 1 MiB) and headers over 8 KiB. Both are answered as soon as that is known.
func (b *battery) badSizes() {
	user := fmt.Sprintf("X-User-Id: %d", b.buyer)
	large := strings.Repeat(" ", 64<<10+1)
	const tooLarge, limit = "payload_too_large", "64 KiB"
	var rows []row
	for _, k := range b.takers() {
		rows = append(rows,
			row{k.with(k.body + large), 413, tooLarge, limit},
			row{k.with(`{"note":"` + strings.Repeat(mark, 10_000) + `"}`), 413, tooLarge, limit})
	}
	announced := func(length string, lines ...string) string { // and never sent
		return call("POST", "/cart/order", "", append([]string{user, "Content-Length: " + length}, lines...)...)
	}
	chunked := func(body string) string {
		return call("POST", "/cart/order", body, user, "Content-Length", "Transfer-Encoding: chunked")
	}
	b.refusedAndClosed(append(rows,
		row{call("POST", "/cart/order", strings.Repeat("x", 4<<20), user), 413, tooLarge, limit},
		row{announced("65537"), 413, tooLarge, limit},
		row{announced("9223372036854775807"), 413, tooLarge, limit},
		row{announced("65537", "Expect: 100-continue"), 413, tooLarge, limit},
		row{announced("9223372036854775807", "Expect: 100-continue"), 413, tooLarge, limit},
		row{call("GET", "/healthz", "", "Content-Length: 65537"), 413, tooLarge, limit},
		row{chunked("10001\r\n"), 413, tooLarge, limit},
		row{chunked("fffffff\r\n"), 413, tooLarge, limit},
		row{chunked(strings.Repeat("1000\r\n"+strings.Repeat(" ", 0x1000)+"\r\n", 16) + "1\r\n \r\n0\r\n\r\n"), 413, tooLarge, limit},
		row{chunked(strings.Repeat("1\r\n \r\n", 64<<10+1)), 413, tooLarge, limit},
	)...)
	b.refused( // as much as may be
		row{call("POST", "/cart/order", strings.Repeat(" ", 64<<10), user), 400, "invalid_json", "JSON object"},
		row{chunked("10000\r\n" + strings.Repeat(" ", 64<<10) + "\r\n0\r\n\r\n"), 400, "invalid_json", "JSON object"},
		row{chunked(strings.Repeat("1\r\n \r\n", 64<<10) + "0\r\n\r\n"), 400, "invalid_json", "JSON object"},
	)

	const headers, most = "headers_too_large", "8 KiB"
	room := 8<<10 - len(call("GET", "/nowhere", "", "X-Filler: "))
	b.refused(row{call("GET", "/nowhere", "", "X-Filler: "+strings.Repeat("f", room)), 404, "not_found", "path"})
	b.refusedAndClosed(
		row{call("GET", "/nowhere", "", "X-Filler: "+strings.Repeat("f", room+1)), 431, headers, most},
		row{call("GET", "/nowhere", "", "X-Filler: "+strings.Repeat(mark, 200_000)), 431, headers, most},
		row{call("GET", "/nowhere", "", strings.Repeat("X-Filler: f\r\n", 1000)+"X-Last: x"), 431, headers, most},
		row{call("GET", "/nowhere", "", strings.Repeat("a:\r\n", 3000)+"X-Last: x"), 431, headers, most},
		row{call("GET", "/"+strings.Repeat("n", 8<<10), ""), 431, headers, most},
		row{call("GET", "/balance?user_id="+strings.Repeat("1", 1<<20), ""), 431, headers, most},
		row{strings.Repeat("G", 9<<10), 431, headers, most},
		row{"GET /" + strings.Repeat("n", 9<<10), 431, headers, most},
		row{"GET / HTTP/1.1\r\nHost: shop\r\nX-Filler: " + strings.Repeat("f", 9<<10), 431, headers, most},
		row{"GET / HTTP/1.1\r\n" + strings.Repeat("f", 9<<10), 431, headers, most},
		row{call("POST", "/cart/order", "0\r\nX-Filler: "+strings.Repeat("f", 1<<20), user, "Content-Length", "Transfer-Encoding: chunked"), 431, headers, most}, // in a trailer
	)
}

// badMedia are bodies that are no JSON by what their headers say.
func (b *battery) badMedia() {
	for _, k := range b.all() {
		var rows []row
		for _, media := range []string{
			"Content-Type", "Content-Type:", "Content-Type: ", "Content-Type: text/plain", "Content-Type: text/json", "Content-Type: */*", "Content-Type: application/*",
			"Content-Type: application/jsonp", "Content-Type: application/json5", "Content-Type: application/problem+json", "Content-Type: application/x-www-form-urlencoded",
			"Content-Type: multipart/form-data; boundary=" + mark, "Content-Type: application/json; charset=latin1", "Content-Type: application/json; charset=utf-16",
			"Content-Type: application/json; charset=\"\"", "Content-Type: application/json; charset", "Content-Type: application/json; charset=utf-8; charset=latin1",
			"Content-Type: application/json, application/json", "Content-Type: application/json, text/plain", "Content-Type: application /json", "Content-Type: json",
			"Content-Type: \"application/json\"", "Content-Type: " + mark,
		} {
			request := call(k.method, k.path, k.body, k.as, media)
			if media == "Content-Type" && k.method != "POST" {
				request = strings.Replace(call(k.method, k.path, k.body, k.as), "Content-Type: application/json\r\n", "", 1)
			}
			rows = append(rows, row{request, 415, "unsupported_media_type", "application/json"})
		}
		for _, coding := range []string{"gzip", "br", "deflate", "identity, gzip", "x"} {
			rows = append(rows, row{k.with(k.body, "Content-Encoding: "+coding), 415, "unsupported_media_type", "Content-Encoding"})
		}
		b.refused(rows...)
	}
}

package rest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"stampede/engine/rest"
)

// Who sends a body that is too large reads that it is, although the server stops reading long before its end.
func TestConns_AnAnswerOutlivesTheRestOfItsRequest(t *testing.T) {
	shop := &refusing{}
	addr := serve(t, rest.Config{Sales: shop, Registry: shop, Health: shop})
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		body := bytes.Repeat([]byte(" "), 8<<20)
		if _, err := fmt.Fprintf(conn, "POST /order HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body); err != nil {
			t.Fatalf("while the body is sent: %v", err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != 413 {
			t.Errorf("the answer is %d", answer.StatusCode)
		}
	}
}

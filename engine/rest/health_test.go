package rest_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"stampede/engine/rest"
)

// probed is a shop that does as it is told.
type probed struct {
	refusing
	found rest.Readiness
}

func (s *probed) Check(context.Context) rest.Readiness { return s.found }

func serveProbed(t *testing.T) (*server, *probed) {
	t.Helper()
	shop := &probed{}
	return &server{t: t, addr: serve(t, rest.Config{Sales: shop, Registry: shop, Health: shop})}, shop
}

func TestReadyz_ExplainsItself(t *testing.T) {
	s, shop := serveProbed(t)
	for _, c := range []struct {
		name  string
		found rest.Readiness
		want  string
	}{
		{"well", rest.Readiness{LagEvents: 3, LagSeconds: 0.25}, `200 {"status":"ready","writer_lag_events":3,"writer_lag_seconds":0.25,` +
			`"checks":{"redis":"ok","partitions":"ok","postgres":"ok","writer":"ok"},"problems":[],"warnings":[]}`},
		{"opening", rest.Readiness{NoOrders: true, Opening: []string{"wait"}}, `503 {"status":"not ready","writer_lag_events":0,"writer_lag_seconds":0,` +
			`"checks":{"opening":"wait","redis":"ok","partitions":"ok","postgres":"ok","writer":"ok"},"problems":["wait"],"warnings":[]}`},
		{"broken", rest.Readiness{
			NoOrders: true, LagEvents: rest.LagUnknown, LagSeconds: 12,
			Redis: []string{"r"}, Partitions: []string{"d0", "d1"}, Postgres: []string{"p"}, Writer: []string{"w"}, Warnings: []string{"q"},
		}, `503 {"status":"not ready","writer_lag_events":-1,"writer_lag_seconds":12,` +
			`"checks":{"redis":"r","partitions":"d0; d1","postgres":"p","writer":"w"},"problems":["r","d0","d1","p","w"],"warnings":["q"]}`},
		{
			"without Postgres",
			rest.Readiness{LagEvents: rest.LagUnknown, LagSeconds: 12, Postgres: []string{"p"}, Writer: []string{"w"}, Warnings: []string{"q"}},
			`200 {"status":"degraded","writer_lag_events":-1,"writer_lag_seconds":12,` +
				`"checks":{"redis":"ok","partitions":"ok","postgres":"p","writer":"w"},"problems":[],"warnings":["p","w","q"]}`,
		},
		{
			"opening while some partitions sell",
			rest.Readiness{Opening: []string{"wait"}, Partitions: []string{"d1"}},
			`200 {"status":"degraded","writer_lag_events":0,"writer_lag_seconds":0,` +
				`"checks":{"opening":"wait","redis":"ok","partitions":"d1","postgres":"ok","writer":"ok"},"problems":[],"warnings":["wait","d1"]}`,
		},
		{"with events in quarantine", rest.Readiness{Warnings: []string{"q"}}, `200 {"status":"degraded","writer_lag_events":0,"writer_lag_seconds":0,` +
			`"checks":{"redis":"ok","partitions":"ok","postgres":"ok","writer":"ok"},"problems":[],"warnings":["q"]}`},
	} {
		shop.found = c.found
		a := s.send("GET", "/readyz", "")
		if got := fmt.Sprintf("%d %s", a.StatusCode, a.body); got != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.name, got, c.want)
		}
		if kind := a.Header.Get("Content-Type"); kind != "application/json" {
			t.Errorf("%s: Content-Type %q", c.name, kind)
		}
	}
}

// An alert on the growth of a counter does not see the first of what was not there before.
func TestMetrics_EveryCodeIsCountedFromZero(t *testing.T) {
	s, _ := serveProbed(t)
	exposed := string(s.send("GET", "/metrics", "").body)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := 0
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`code: +"([a-z_]+)"`).FindAllSubmatch(text, -1) {
			codes++
			if sample := fmt.Sprintf("stampede_http_refusals_total{code=%q} 0\n", found[1]); !strings.Contains(exposed, sample) {
				t.Errorf("%s: /metrics lacks %s", file, sample)
			}
		}
	}
	if codes < 20 {
		t.Errorf("%d codes in the source", codes)
	}
}

func TestMetrics_RequestsByRouteAndRefusalsByCode(t *testing.T) {
	s, _ := serveProbed(t)
	for range 3 {
		s.want(200, nil, "GET", "/healthz", "")
	}
	for i := range 4 {
		s.want(404, with("code", "not_found"), "GET", fmt.Sprintf("/no/such/path/%d", i), "")
	}
	s.want(405, with("code", "method_not_allowed"), "DELETE", "/order", "")
	for range 2 {
		s.want(400, with("code", "invalid_json"), "POST", "/order", `{`, "X-User-Id", "1")
	}
	s.unreadable()
	exposed := s.send("GET", "/metrics", "").body
	for _, sample := range []string{
		`stampede_http_requests_total{route="GET /healthz",status="200"} 3`,
		`stampede_http_requests_total{route="none",status="404"} 4`,
		`stampede_http_requests_total{route="none",status="405"} 1`,
		`stampede_http_requests_total{route="none",status="400"} 1`,
		`stampede_http_requests_total{route="POST /order",status="400"} 2`,
		`stampede_http_request_duration_seconds_count{route="GET /healthz"} 3`,
		`stampede_http_request_duration_seconds_count{route="POST /order"} 2`,
		`stampede_http_request_duration_seconds_count{route="POST /cart/order"} 0`,
		`stampede_http_refusals_total{code="not_found"} 4`,
		`stampede_http_refusals_total{code="method_not_allowed"} 1`,
		`stampede_http_refusals_total{code="invalid_json"} 2`,
		`stampede_http_refusals_total{code="validation_failed"} 1`,
		`stampede_http_refusals_total{code="out_of_stock"} 0`,
	} {
		if !bytes.Contains(exposed, []byte(sample+"\n")) {
			t.Errorf("/metrics lacks %s", sample)
		}
	}
}

// unreadable sends what is no request, and reads the answer to its end.
func (s *server) unreadable() {
	s.t.Helper()
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("nonsense\r\n\r\n")); err != nil {
		s.t.Fatal(err)
	}
	if text, err := io.ReadAll(conn); err != nil || !bytes.HasPrefix(text, []byte("HTTP/1.1 400 ")) {
		s.t.Fatalf("%v: %s", err, text)
	}
}

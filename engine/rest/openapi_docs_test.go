package rest_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"stampede/engine"
	"stampede/engine/rest"
)

// The page loads what this server has and nothing else, and no other page can put it into a frame.
func TestDocs_PageWorksOffline(t *testing.T) {
	s := serveBroken(t, engine.ErrUnavailable, rest.Config{}) // it needs neither Redis nor Postgres
	page := s.want(200, nil, "GET", "/docs", "")
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if page.Header.Get("Content-Type") != "text/html; charset=utf-8" || page.Header.Get("Content-Security-Policy") != policy || page.Header.Get("X-Frame-Options") != "DENY" {
		t.Errorf("headers %v", page.Header)
	}
	if regexp.MustCompile(`<script>|<style|style=|https?:`).Match(page.body) {
		t.Errorf("its policy forbids a part of the page: %s", page.body)
	}
	types := map[string]string{"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "png": "image/png"}
	parts := regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllSubmatch(page.body, -1)
	if len(parts) != 4 {
		t.Errorf("the page has %d parts: %s", len(parts), page.body)
	}
	for _, part := range parts {
		path := string(part[1])
		file := s.want(200, nil, "GET", path, "")
		if got := file.Header.Get("Content-Type"); got != types[path[strings.LastIndex(path, ".")+1:]] || file.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: headers %v", path, file.Header)
		}
		if strings.HasSuffix(path, "docs.js") && (!bytes.Contains(file.body, []byte("url: '/openapi.json'")) || bytes.Contains(file.body, []byte("http"))) {
			t.Errorf("%s: %s", path, file.body)
		}
	}
	document := s.want(200, nil, "GET", "/openapi.json", "")
	if document.Header.Get("Content-Type") != "application/json" || !bytes.Equal(document.body, rest.OpenAPI) {
		t.Errorf("the document has %d bytes, headers %v", len(document.body), document.Header)
	}
}

// A client that takes gzip gets it, and any other the same file without.
func TestDocs_FilesWithAndWithoutGzip(t *testing.T) {
	s := serveBroken(t, engine.ErrUnavailable, rest.Config{})
	for _, path := range []string{"/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"} {
		packed := s.want(200, nil, "GET", path, "", "Accept-Encoding", "br, gzip;q=0.5")
		plain := s.want(200, nil, "GET", path, "", "Accept-Encoding", "gzip;q=0, identity")
		if packed.Header.Get("Content-Encoding") != "gzip" || plain.Header.Get("Content-Encoding") != "" ||
			packed.Header.Get("Vary") != "Accept-Encoding" || plain.Header.Get("Vary") != "Accept-Encoding" {
			t.Fatalf("%s: %v, %v", path, packed.Header, plain.Header)
		}
		r, err := gzip.NewReader(bytes.NewReader(packed.body))
		if err != nil {
			t.Fatal(err)
		}
		unpacked, err := io.ReadAll(r)
		if err != nil || !bytes.Equal(unpacked, plain.body) || len(plain.body) < 100_000 {
			t.Errorf("%s: %v, %d and %d bytes", path, err, len(unpacked), len(plain.body))
		}
	}
}

func TestDocs_OtherFilesAreNotThere(t *testing.T) {
	s := serveBroken(t, engine.ErrUnavailable, rest.Config{})
	for _, path := range []string{"/docs/", "/docs/index.html", "/docs/swagger-ui.css.gz", "/docs/docs.html", "/docs/openapi.json", "/docs/../openapi.json/", "/docs/%2e%2e%2fdocs.go", "/docs/docs.js/"} {
		if a := s.send("GET", path, ""); a.StatusCode != http.StatusNotFound || a.field("code") != "not_found" {
			t.Errorf("%s: %d %s", path, a.StatusCode, a.body)
		}
	}
}

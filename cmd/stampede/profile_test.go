package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"stampede/cmd/stack/stacktest"
)

func TestProfiles_RefusedBeforeAnythingRuns(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	inUse := taken.Addr().String()
	dir := filepath.Join(t.TempDir(), "data")
	up := func(address string) []string {
		return []string{"up", "--addr", "127.0.0.1:0", "--data-dir", dir, "--admin-addr", address}
	}
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"every address", "no credential", up("0.0.0.0:0")},
		{"no host", "no credential", up(":6060")},
		{"every address of IPv6", "no credential", up("[::]:0")},
		{"address of another machine", "no credential", up("192.0.2.1:6060")},
		{"no port", "--admin-addr as host:port", up("localhost")},
		{"in use", "take another address with --admin-addr", up(inUse)},
		{"of the environment", "no credential", append([]string{"STAMPEDE_ADMIN_ADDR=0.0.0.0:0"}, up("")[:5]...)},
		{"serve", "no credential", []string{
			"STAMPEDE_REDIS_URL=redis://127.0.0.1:1", "STAMPEDE_POSTGRES_URL=postgres://127.0.0.1:1/d",
			"STAMPEDE_ADMIN_TOKEN=" + secret, "serve", "--addr", "127.0.0.1:0", "--admin-addr", "0.0.0.0:0",
		}},
	} {
		t.Run(c.name, func(t *testing.T) { wantRefused(t, c.want, c.args...) })
	}
	if found, err := filepath.Glob(dir); err != nil || len(found) > 0 {
		t.Errorf("left behind: %v %v", found, err)
	}
}

var profilesAt = regexp.MustCompile(`"msg":"profiles are served at /debug/pprof/","address":"(127\.0\.0\.1:\d+)"`)

func TestProfiles_OnAListenerOfTheirOwnUntilTheEnd(t *testing.T) {
	t.Parallel()
	dir := stacktest.Initialised(t)
	s := up(t, dir, "--admin-addr", "127.0.0.1:0")
	found := profilesAt.FindStringSubmatch(s.err.String())
	if found == nil {
		t.Fatalf("the log names no address of profiles:\n%s", s.err)
	}
	admin := &server{program: s.program, url: "http://" + found[1]}
	byName := "http://localhost" + portOf(t, found[1]) + "/debug/pprof/symbol"
	for path, want := range map[string]string{
		"/debug/pprof/":                  "goroutine",
		"/debug/pprof/goroutine?debug=1": "goroutine profile:",
		"/debug/pprof/heap?debug=1":      "heap profile:",
		"/debug/pprof/profile?seconds=1": "\x1f\x8b", // gzip
		byName:                           "num_symbols",
	} {
		if status, text := admin.ask(path, ""); status != 200 || !strings.Contains(text, want) {
			t.Errorf("GET %s: %d %.100q, want something about %q", path, status, text, want)
		}
	}
	for path, status := range map[string]int{
		"/": 404, "/metrics": 404, "/order": 404,
		"/debug/pprof/cmdline": 404, // secrets may stand in flags
	} {
		if got, text := admin.ask(path, ""); got != status {
			t.Errorf("GET %s: %d %.100q, want %d", path, got, text, status)
		}
	}
	for _, host := range []string{"evil.example", "evil.example:6060", "192.0.2.1:6060", "127.0.0.1.evil.example"} {
		if got, _ := admin.ask("/debug/pprof/", host); got != 403 {
			t.Errorf("profiles for a page of %s: %d, want 403", host, got)
		}
	}

	// Nothing of it on the listener for everybody.
	for _, path := range []string{"/debug/pprof", "/debug/pprof/", "/debug/pprof/goroutine", "/debug/pprof/profile?seconds=1"} {
		if got, text := s.ask(path, ""); got != 404 || !strings.Contains(text, `"code":"not_found"`) {
			t.Errorf("GET %s of the API: %d %.100q", path, got, text)
		}
	}

	// A profile under way does not hold up the end.
	begun, ctx := make(chan error, 1), within(t)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, admin.url+"/debug/pprof/profile?seconds=200", http.NoBody)
		if err == nil {
			var answer *http.Response
			if answer, err = http.DefaultClient.Do(request); err == nil {
				_ = answer.Body.Close()
			}
		}
		begun <- err
	}()
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if _, text := admin.ask("/debug/pprof/goroutine?debug=2", ""); strings.Contains(text, "pprof.Profile") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the profile never begins")
		}
	}
	s.stop()
	if err := <-begun; err == nil {
		t.Error("a profile of 200 s came to its end")
	}
	wantNothingLeft(t, dir)
}

// portOf is ":" and the port of an address.
func portOf(t *testing.T, address string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return ":" + port
}

// ask makes a GET request, for another host than the server's where one is named.
func (s *server) ask(path, host string) (status int, text string) {
	s.t.Helper()
	url := path
	if strings.HasPrefix(path, "/") {
		url = s.url + path
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	request.Host = host
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		s.t.Fatalf("GET %s: %v", url, err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatalf("GET %s: %v", url, err)
	}
	return answer.StatusCode, string(body)
}

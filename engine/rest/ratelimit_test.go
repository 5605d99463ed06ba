package rest_test

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"stampede/cmd/shop"
	"stampede/engine/rest"
	"stampede/engine/rest/limit"
)

// rate is the limit of these tests, requests a second. A test that takes long sees more of them pass.
const rate = 3

// TestAPI_RateLimits asks too much, as every kind of client: what is refused is not done, and it works again after the
// time that the refusal names.
func TestAPI_RateLimits(t *testing.T) {
	s := start(t, shop.Config{})
	for _, c := range []struct {
		name   string
		run    func(*server)
		config rest.Config
	}{
		{"a buyer", (*server).limitsABuyer, rest.Config{Limits: rest.Limits{UserRate: rate}}},
		{"a buyer by tokens", (*server).limitsTokens, rest.Config{Limits: rest.Limits{UserRate: rate}, Tokens: issuerTokens(t)}},
		{"a key again", (*server).limitsAndKeys, rest.Config{Limits: rest.Limits{UserRate: rate}}},
		{"an address", (*server).limitsAnAddress, rest.Config{Limits: rest.Limits{IPRate: rate}}},
		{"behind a proxy", (*server).limitsBehindAProxy, rest.Config{Limits: rest.Limits{IPRate: rate, Proxies: proxies(t, "127.0.0.2")}}},
		{"both", (*server).limitsBoth, rest.Config{Limits: rest.Limits{UserRate: rate, IPRate: 1000}}},
		{"nobody", (*server).limitsNobody, rest.Config{}},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(s.at(t, s.at(t, "").beside(c.config))) })
	}
	s.auditClean()
}

func proxies(t *testing.T, text ...string) limit.Proxies {
	t.Helper()
	p, err := limit.ParseProxies(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// dialFrom opens a connection from an address of this machine.
func (s *server) dialFrom(ip string) *rawConn {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	conn, err := d.DialContext(s.t.Context(), "tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return &rawConn{conn, bufio.NewReader(conn)}
}

// limitsOf is what an answer says of limits; "" where it says nothing.
func limitsOf(a answer) string {
	h := a.Header
	said := strings.Join([]string{
		h.Get("RateLimit-Limit"), h.Get("RateLimit-Remaining"), h.Get("RateLimit-Reset"), h.Get("RateLimit-Policy"), h.Get("RateLimit"), h.Get("Retry-After"),
	}, " ")
	return strings.TrimSpace(said)
}

// first is what an answer says of a bucket that was full before.
func first(policy string) string {
	return fmt.Sprintf(`%d %d 1 %q;q=%d;w=1 %q;r=%d;t=1`, rate, rate-1, policy, rate, policy, rate-1)
}

// spend sends requests until one is refused, and returns how many passed before, and the one that did not. No more may
// pass than the limit lets.
func (s *server) spend(conn *rawConn, policy string, status int, request func(n int) string) (passed int, refused string) {
	s.t.Helper()
	for begun := time.Now(); ; passed++ {
		refused = request(passed)
		a := s.exchange(conn, refused)
		if a.StatusCode == 429 {
			s.wantLimited(a, policy)
			if passed < rate {
				s.t.Errorf("%d requests passed, want %d at least", passed, rate)
			}
			return passed, refused
		}
		if a.StatusCode != status || a.Header.Get("Retry-After") != "" {
			s.t.Fatalf("%.300q: %d %v %s, want %d", refused, a.StatusCode, a.Header, a.body, status)
		}
		if most := rate + int(rate*time.Since(begun).Seconds()); passed+1 > most {
			s.t.Fatalf("%d requests passed, at most %d may", passed+1, most)
		}
	}
}

func (s *server) wantLimited(a answer, policy string) {
	s.t.Helper()
	said := fmt.Sprintf(`%d 0 1 %q;q=%d;w=1 %q;r=0;t=1 1`, rate, policy, rate, policy)
	if limitsOf(a) != said || a.field("code") != "rate_limited" || a.Header.Get("Content-Type") != "application/problem+json" || a.field("detail") == "" {
		s.t.Errorf("told of limits: %s, want %s; %v %s", limitsOf(a), said, a.Header, a.body)
	}
	if a.Header.Get("Idempotent-Replayed") != "" || a.Close {
		s.t.Errorf("a refusal with %v", a.Header)
	}
}

// wantLimits sends a request and wants it done, and what it says of limits.
func (s *server) wantLimits(conn *rawConn, request, said string) {
	s.t.Helper()
	if a := s.exchange(conn, request); a.StatusCode/100 != 2 || limitsOf(a) != said {
		s.t.Errorf("%.300q: %d %s, told of limits: %q, want %q", request, a.StatusCode, a.body, limitsOf(a), said)
	}
}

// wait is Retry-After of every refusal here.
func (s *server) wait() { time.Sleep(time.Second) }

func (s *server) limitsABuyer() {
	u, v, conn := s.User(1000), s.User(1000), s.dial()
	ways := []func() string{ // to name a buyer
		func() string { return call("POST", "/balance/charge", `{"amount":1}`, fmt.Sprint("X-User-Id: ", u)) },
		func() string { return call("POST", "/balance/charge", fmt.Sprintf(`{"user_id":%d,"amount":1}`, u)) },
		func() string { return call("POST", fmt.Sprint("/balance/charge?user_id=", u), `{"amount":1}`) },
	}
	charged, refused := s.spend(conn, "user", 200, func(n int) string { return ways[n%len(ways)]() })
	// Whoever else asks is not concerned: other buyers, though from this address, an admin about the same buyer, who reads
	// what is public.
	s.wantLimits(conn, call("GET", fmt.Sprint("/balance?user_id=", v), ""), first("user"))
	for range 3 * rate {
		s.wantLimits(conn, call("GET", fmt.Sprint("/users/", u), "", showAdmin), "")
		s.wantLimits(conn, call("GET", fmt.Sprint("/orders?user_id=", u), "", showAdmin), "")
		s.wantLimits(conn, call("GET", "/products", "", fmt.Sprint("X-User-Id: ", u)), "")
	}
	s.wait()
	s.wantLimits(conn, refused, first("user"))
	s.want(200, with("balance", fmt.Sprint(1000+charged+1)), "GET", fmt.Sprint("/users/", u), "", asAdmin...)
	metrics := string(s.exchange(conn, call("GET", "/metrics", "")).body)
	for _, line := range []string{
		`stampede_http_requests_total{route="POST /balance/charge",status="429"} 1`, `stampede_http_refusals_total{code="rate_limited"} 1`,
		fmt.Sprintf(`stampede_http_requests_total{route="POST /balance/charge",status="200"} %d`, charged+1),
	} {
		if !strings.Contains(metrics, line+"\n") {
			s.t.Errorf("the metrics lack %s", line)
		}
	}
}

// By tokens a buyer is counted once, whatever their tokens are; nobody else can use up what they have.
func (s *server) limitsTokens() {
	u, v, conn := s.User(1000), s.User(1000), s.dial()
	for range 10 * rate {
		for _, path := range []string{fmt.Sprint("/balance?user_id=", u), "/balance"} {
			credential := bearing(v)
			if path == "/balance" {
				credential = bearing(u) + "x"
			}
			if a := s.exchange(conn, call("GET", path, "", credential)); a.StatusCode != 403 && a.StatusCode != 401 || limitsOf(a) != "" {
				s.t.Fatalf("%s: %d %v", path, a.StatusCode, a.Header)
			}
		}
	}
	s.wantLimits(conn, call("GET", "/balance", "", bearing(u)), first("user"))
	s.spend(conn, "user", 200, func(n int) string {
		return call("GET", "/balance", "", []string{bearing(v), bearingSigned(v)}[n%2])
	})
}

// A request that was refused is done once when it is sent again, and its key holds its answer from then on.
func (s *server) limitsAndKeys() {
	u, p, conn := s.User(1000), s.Product(1, 100), s.dial()
	passed, refused := s.spend(conn, "user", 201, func(int) string { return call("POST", "/order", line(u, p, 1, "now")) })
	s.wait()
	done, again := s.exchange(conn, refused), s.exchange(conn, refused)
	if done.StatusCode != 201 || done.Header.Get("Idempotent-Replayed") != "" {
		s.t.Errorf("sent again: %d %v %s", done.StatusCode, done.Header, done.body)
	}
	if again.StatusCode != 201 || again.Header.Get("Idempotent-Replayed") != "true" || string(again.body) != string(done.body) {
		s.t.Errorf("sent a third time: %d %v %s, want %s", again.StatusCode, again.Header, again.body, done.body)
	}
	balance, err := s.Engine.Balance(s.t.Context(), u)
	product, missing := s.Engine.Product(s.t.Context(), p)
	if sold := int64(passed) + 1; err != nil || missing != nil || balance != 1000-sold || product.Stock != 100-sold {
		s.t.Errorf("%d orders, and the balance is %d, %v, the stock %d, %v", sold, balance, err, product.Stock, missing)
	}
}

// Whatever an address asks for counts, but not what watches the server. Nobody is believed who names another address.
func (s *server) limitsAnAddress() {
	u := s.User(1000)
	for i, asked := range []struct {
		request string
		status  int
	}{
		{call("GET", "/products", ""), 200},
		{call("GET", "/nothing", ""), 404},
		{call("DELETE", "/products", ""), 405},
		{call("POST", "/users", "{}", "Authorization: Bearer guess"), 401},
		{call("GET", fmt.Sprint("/balance?user_id=", u), ""), 200},
		{call("GET", "/products", "", "X-Forwarded-For: 192.0.2.1", "X-Real-Ip: 192.0.2.1", "Forwarded: for=192.0.2.1"), 200},
	} {
		here := s.dialFrom(fmt.Sprint("127.0.0.", 10+i))
		s.spend(here, "ip", asked.status, func(n int) string {
			return strings.ReplaceAll(asked.request, "192.0.2.1", fmt.Sprint("192.0.2.", n))
		})
		for range 2 * rate {
			for _, path := range []string{"/healthz", "/readyz", "/metrics"} {
				s.wantLimits(here, call("GET", path, ""), "")
			}
		}
	}
	s.wantLimits(s.dialFrom("127.0.0.1"), call("GET", "/products", ""), first("ip"))
}

// Behind a proxy that is trusted, clients are told apart by the address that it names, not by what they say themselves.
func (s *server) limitsBehindAProxy() {
	proxy, other := s.dialFrom("127.0.0.2"), s.dialFrom("127.0.0.3")
	from := func(addresses string) string { return call("GET", "/products", "", "X-Forwarded-For: "+addresses) }
	s.spend(proxy, "ip", 200, func(n int) string { return from(fmt.Sprintf("198.51.100.%d, 192.0.2.1", n)) })
	s.wantLimits(proxy, from("192.0.2.2"), first("ip"))
	s.wantLimits(proxy, call("GET", "/products", ""), first("ip")) // the proxy itself
	s.spend(other, "ip", 200, func(n int) string { return from(fmt.Sprintf("198.51.100.%d", n)) })
	s.wantLimits(proxy, from("198.51.100.99"), first("ip"))
}

// Where both limits hold, the answer tells of the buyer's.
func (s *server) limitsBoth() {
	u := s.User(1000)
	s.wantLimits(s.dial(), call("GET", fmt.Sprint("/balance?user_id=", u), ""), first("user"))
}

func (s *server) limitsNobody() {
	u, conn := s.User(1000), s.dial()
	for range 300 {
		s.wantLimits(conn, call("GET", fmt.Sprint("/balance?user_id=", u), ""), "")
	}
}

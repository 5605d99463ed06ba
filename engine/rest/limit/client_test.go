package limit_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"stampede/engine/rest/limit"
)

func TestKey(t *testing.T) {
	for _, c := range [][2]string{
		{"192.0.2.7", "192.0.2.7"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"},
		{"2001:db8:1:3::1", "2001:db8:1:3::"},
		{"fe80::1%eth0", "fe80::"},
		{"::1", "::"},
	} {
		if got := limit.Key(netip.MustParseAddr(c[0])); got != netip.MustParseAddr(c[1]) {
			t.Errorf("key of %s: %v, want %s", c[0], got, c[1])
		}
	}
	if got := limit.Key(netip.Addr{}); got.IsValid() {
		t.Errorf("key of no address: %v", got)
	}
}

func TestParseProxies(t *testing.T) {
	got, err := limit.ParseProxies([]string{"10.0.0.0/8", " 192.0.2.1 ", "2001:db8::/32", "::1", "::ffff:172.16.0.0/108", "::ffff:198.51.100.7"})
	want := []string{"10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32", "::1/128", "172.16.0.0/12", "198.51.100.7/32"}
	if err != nil || len(got) != len(want) {
		t.Fatalf("%v %v", got, err)
	}
	for i := range want {
		if got[i] != netip.MustParsePrefix(want[i]) {
			t.Errorf("block %d: %v, want %s", i, got[i], want[i])
		}
	}
	if none, err := limit.ParseProxies(nil); err != nil || len(none) != 0 {
		t.Errorf("none: %v %v", none, err)
	}

	const neither = "neither an address (192.0.2.1, 2001:db8::1) nor a CIDR block (10.0.0.0/8)"
	const broad = "this block is every address: anybody could claim to be anybody; name the networks of the load balancers"
	for _, c := range [][2]string{
		{"", neither},
		{"lb.example", neither},
		{"10.0.0.0/33", neither},
		{"10.0.0.1:80", neither},
		{"fe80::1%eth0", neither},
		{"10.0.0.0/8,::1", neither},
		{"0.0.0.0/0", broad},
		{"::/0", broad},
		{"::ffff:0.0.0.0/96", broad},
		{"10.1.2.3/8", "the address has bits behind the /8; the block is 10.0.0.0/8"},
	} {
		p, err := limit.ParseProxies([]string{"10.0.0.0/8", c[0]})
		if want := `trusted proxy "` + c[0] + `": ` + c[1]; p != nil || err == nil || err.Error() != want {
			t.Errorf("%q: %v, %v\nwant %s", c[0], p, err, want)
		}
	}
}

// The proxies are 10.0.0.0/8 and 2001:db8:aaaa::/48.
func TestProxies_Client(t *testing.T) {
	const lb, lb6 = "10.0.0.1", "2001:db8:aaaa::1"
	for _, c := range []struct {
		name, peer, want string
		fields           []string
	}{
		{"no proxy", "192.0.2.1", "192.0.2.1", nil},
		{"no proxy, and a claim", "192.0.2.1", "192.0.2.1", []string{"198.51.100.9"}},
		{"no proxy, and a claim to be one", "192.0.2.1", "192.0.2.1", []string{"198.51.100.9, 10.0.0.2"}},
		{"no proxy, mapped", "::ffff:192.0.2.1", "192.0.2.1", []string{"198.51.100.9"}},
		{"through a proxy", lb, "192.0.2.1", []string{"192.0.2.1"}},
		{"through a mapped proxy", "::ffff:10.0.0.1", "192.0.2.1", []string{"192.0.2.1"}},
		{"through two", lb, "192.0.2.1", []string{"192.0.2.1, 10.0.0.2"}},
		{"through two, a field each", lb, "192.0.2.1", []string{"192.0.2.1", "10.0.0.2"}},
		{"through two, by both protocols", lb6, "2001:db8::5", []string{"2001:db8::5,10.0.0.2 , 2001:db8:aaaa:9::2"}},
		{"a claim through a proxy", lb, "192.0.2.1", []string{"198.51.100.9, 192.0.2.1"}},
		{"a claim through a proxy, in a field of its own", lb, "192.0.2.1", []string{"198.51.100.9", "192.0.2.1"}},
		{"a claim to be a proxy, through one", lb, "192.0.2.1", []string{"198.51.100.9, 10.0.0.3, 192.0.2.1, 10.0.0.2"}},
		{"a claim that is garbage", lb, "192.0.2.1", []string{`"><script>,,;=, 192.0.2.1`}},
		{"a claim that is long", lb, "192.0.2.1", []string{strings.Repeat("1.1.1.1,", 1000), "192.0.2.1"}},
		{"a proxy that calls by itself", lb, lb, nil},
		{"a proxy that says nothing", lb, lb, []string{""}},
		{"a proxy that does not know", lb, lb, []string{"198.51.100.9, unknown"}},
		{"a second proxy that does not know", lb, "10.0.0.2", []string{"198.51.100.9, , 10.0.0.2"}},
		{"only proxies", lb, "10.0.0.3", []string{"10.0.0.3, 10.0.0.2"}},
		{"spaces and tabs", lb, "192.0.2.1", []string{"  1.1.1.1 ,\t192.0.2.1\t "}},
		{"a port", lb, "192.0.2.1", []string{"192.0.2.1:4711"}},
		{"a port of IPv6", lb, "2001:db8::5", []string{"[2001:db8::5]:4711"}},
		{"brackets", lb, "2001:db8::5", []string{"[2001:db8::5]"}},
		{"mapped", lb, "192.0.2.1", []string{"::ffff:192.0.2.1"}},
		{"a mapped proxy in the list", lb, "192.0.2.1", []string{"192.0.2.1, [::ffff:10.0.0.2]:80"}},
		{"a zone", lb, lb, []string{"fe80::1%eth0"}},
		{"a peer with a zone", "fe80::1%eth0", "fe80::1", []string{"198.51.100.9"}},
		{"IPv4 in brackets", lb, lb, []string{"[192.0.2.1]"}},
		{"half a bracket", lb, lb, []string{"[2001:db8::5"}},
		{"a port too large", lb, lb, []string{"192.0.2.1:65536"}},
		{"no port", lb, lb, []string{"192.0.2.1:"}},
		{"octal", lb, lb, []string{"010.0.0.1"}},
		{"short", lb, lb, []string{"10.1"}},
		{"a number", lb, lb, []string{"167772161"}},
		{"a block", lb, lb, []string{"192.0.2.0/24"}},
		{"two without a comma", lb, lb, []string{"198.51.100.9 192.0.2.1"}},
		{"a null byte", lb, lb, []string{"192.0.2.1\x00"}},
		{"a long one", lb, lb, []string{strings.Repeat("0", 10_000)}},
		{"no address at all", "", "", []string{"192.0.2.1"}},
	} {
		proxies := limit.Proxies{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8:aaaa::/48")}
		if got := proxies.Client(address(c.peer), fields(c.fields...)); got != address(c.want) {
			t.Errorf("%s: %v, want %s", c.name, got, c.want)
		}
		if got := limit.Proxies(nil).Client(address(c.peer), fields(c.fields...)); got != address(c.peer).Unmap().WithZone("") {
			t.Errorf("%s, and nobody is trusted: %v", c.name, got)
		}
	}
}

func address(text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(text)
}

func fields(text ...string) (f [][]byte) {
	for _, t := range text {
		f = append(f, []byte(t))
	}
	return f
}

func TestProxies_ClientLooksAtSoManyHops(t *testing.T) {
	proxies := limit.Proxies{netip.MustParsePrefix("10.0.0.0/8")}
	for n, want := range map[int]string{limit.HopsMax - 1: "192.0.2.1", limit.HopsMax: "10.0.0.9", 1000: "10.0.0.9"} {
		chain := append([]string{"192.0.2.1"}, slices.Repeat([]string{"10.0.0.9"}, n)...)
		for _, f := range [][][]byte{fields(strings.Join(chain, ", ")), fields(chain...)} {
			if got := proxies.Client(address("10.0.0.1"), f); got != address(want) {
				t.Errorf("behind %d proxies, in %d fields: %v, want %s", n, len(f), got, want)
			}
		}
	}
}

// Whatever a client sends, a proxy appends whom it was called by, and that is who the client is.
func TestProxies_NoClaimHelps(t *testing.T) {
	proxies := limit.Proxies{netip.MustParsePrefix("10.0.0.0/8")}
	claims := rapid.SliceOfN(rapid.OneOf(
		rapid.String(), rapid.StringMatching(`[0-9a-f:.,\[\] ]{0,40}`),
		rapid.SampledFrom([]string{"10.0.0.2", "10.0.0.2,", ",", "[", "192.0.2.99, 10.0.0.2"}),
	), 0, 5)
	rapid.Check(t, func(t *rapid.T) {
		sent := claims.Draw(t, "claims")
		chain := "192.0.2.1" + strings.Repeat(", 10.0.0.7", rapid.IntRange(0, 3).Draw(t, "proxies"))
		own, appended := slices.Clone(sent), slices.Clone(sent)
		own = append(own, chain)
		if n := len(appended); n > 0 {
			appended[n-1] += ", " + chain
		} else {
			appended = own
		}
		for _, f := range [][]string{own, appended} {
			if got := proxies.Client(address("10.0.0.1"), fields(f...)); got != address("192.0.2.1") {
				t.Fatalf("%q: %v", f, got)
			}
		}
		if got := proxies.Client(address("192.0.2.1"), fields(sent...)); got != address("192.0.2.1") {
			t.Fatalf("%q, past the proxies: %v", sent, got)
		}
	})
}

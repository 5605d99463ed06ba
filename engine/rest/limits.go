package rest

import (
	"net"
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"stampede/engine/rest/limit"
)

// Limits bound what one client may ask for. Each process counts for itself.
type Limits struct {
	UserRate int // requests a second of a buyer, and as many at once; 0: no limit
	IPRate   int // the same of an address, an IPv6 network of 64 bits counting as one
	// Proxies are the load balancers whose X-Forwarded-For is believed.
	Proxies limit.Proxies
}

// limitKeysMax bounds the memory of each kind of limit, to some 60 MB.
const limitKeysMax = 1 << 20

// limiter counts requests.
type limiter struct {
	users     *limit.Buckets[int64]      // nil: no limit
	addresses *limit.Buckets[netip.Addr] // nil: no limit
	proxies   limit.Proxies
}

func newLimiter(l Limits) *limiter {
	counts := &limiter{proxies: l.Proxies}
	if l.UserRate > 0 {
		counts.users = limit.NewBuckets[int64](l.UserRate, 0, limitKeysMax)
	}
	if l.IPRate > 0 {
		counts.addresses = limit.NewBuckets[netip.Addr](l.IPRate, 0, limitKeysMax)
	}
	return counts
}

// client returns the address of who sent the request.
func (l *limiter) client(ctx *fasthttp.RequestCtx) netip.Addr {
	peer, ok := ctx.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.IPv4Unspecified() // tests without a network: all count as one
	}
	var forwarded [][]byte
	if len(l.proxies) > 0 {
		forwarded = ctx.Request.Header.PeekAll(fasthttp.HeaderXForwardedFor)
	}
	return l.proxies.Client(peer.AddrPort().Addr(), forwarded)
}

// address counts a request for the address that it comes from.
func (l *limiter) address(ctx *fasthttp.RequestCtx) error {
	if l.addresses == nil {
		return nil
	}
	return limited(ctx, "ip", l.addresses.Take(limit.Key(l.client(ctx)), time.Now()))
}

// user counts a request for the buyer who acts in it.
func (l *limiter) user(ctx *fasthttp.RequestCtx, user int64) error {
	if l.users == nil {
		return nil
	}
	return limited(ctx, "user", l.users.Take(user, time.Now()))
}

// limited tells the client where it stands.
func limited(ctx *fasthttp.RequestCtx, policy string, d limit.Decision) error {
	d.Headers(policy, ctx.Response.Header.SetBytesV)
	if d.OK {
		return nil
	}
	return rateLimited.with("More than %d requests a second from this %s. Nothing was done; send it again later.", d.Limit, policy)
}

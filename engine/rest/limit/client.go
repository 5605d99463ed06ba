package limit

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

const (
	hopsMax    = 32 // addresses of X-Forwarded-For that are looked at
	addressMax = 64 // bytes of one; the longest IPv6 address with brackets and port has 53

	customerBits = 64 // of an IPv6 address: what one customer is given at the least
)

// Key is what connections and requests are counted by: an IPv4 address, or the /64 of an IPv6 address (one customer's).
func Key(addr netip.Addr) netip.Addr {
	addr = addr.Unmap()
	if !addr.Is6() {
		return addr
	}
	network, err := addr.Prefix(customerBits)
	if err != nil {
		return addr // an IPv6 address has 64 bits
	}
	return network.Addr()
}

// Proxies are load balancers whose X-Forwarded-For is believed. There are none in a nil one.
type Proxies []netip.Prefix

// ParseProxies reads addresses and CIDR blocks. A block of every address is refused: with it, clients would name
// themselves.
func ParseProxies(text []string) (Proxies, error) {
	var p Proxies
	for _, t := range text {
		block, err := parseBlock(strings.TrimSpace(t))
		if err != nil {
			return nil, fmt.Errorf("trusted proxy %q: %w", t, err)
		}
		p = append(p, block)
	}
	return p, nil
}

var (
	errNoBlock  = errors.New("neither an address (192.0.2.1, 2001:db8::1) nor a CIDR block (10.0.0.0/8)")
	errTooBroad = errors.New("this block is every address: anybody could claim to be anybody; name the networks of the load balancers")
)

func parseBlock(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	block, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, errNoBlock
	}
	if mapped := block.Bits() - 96; block.Addr().Is4In6() && mapped >= 0 {
		block = netip.PrefixFrom(block.Addr().Unmap(), mapped)
	}
	switch {
	case block.Bits() == 0:
		return netip.Prefix{}, errTooBroad
	case block != block.Masked():
		return netip.Prefix{}, fmt.Errorf("the address has bits behind the /%d; the block is %v", block.Bits(), block.Masked())
	}
	return block, nil
}

// trusts wants an address that is plain.
func (p Proxies) trusts(addr netip.Addr) bool {
	return slices.ContainsFunc(p, func(block netip.Prefix) bool { return block.Contains(addr) })
}

// Client returns the address of the client: the peer, or where the peer is a trusted proxy, the last address of
// X-Forwarded-For (all such fields, in order) that is not one. Each proxy appends whom it was called by, so what stands
// before that address is only what the client says.
//
// What cannot be read ends the search, as does the 32nd address: the client is then the last proxy that was reached.
func (p Proxies) Client(peer netip.Addr, forwardedFor [][]byte) netip.Addr {
	client := plain(peer)
	hops := 0
	for _, field := range slices.Backward(forwardedFor) {
		for more := true; more; hops++ {
			if hops == hopsMax || !p.trusts(client) {
				return client
			}
			var last []byte
			field, last, more = cutLast(field)
			addr, ok := parseHop(bytes.TrimSpace(last))
			if !ok {
				return client
			}
			client = addr
		}
	}
	return client
}

// cutLast splits a list before its last element; more tells whether there are others.
func cutLast(list []byte) (rest, last []byte, more bool) {
	comma := bytes.LastIndexByte(list, ',')
	if comma < 0 {
		return nil, list, false
	}
	return list[:comma], list[comma+1:], true
}

// parseHop reads an address as proxies write it: with or without a port, IPv6 with or without brackets.
func parseHop(text []byte) (addr netip.Addr, ok bool) {
	if len(text) == 0 || len(text) > addressMax {
		return netip.Addr{}, false
	}
	s := string(text)
	addr, err := netip.ParseAddr(s)
	if inner, found := strings.CutPrefix(s, "["); err != nil && found && strings.HasSuffix(inner, "]") {
		addr, err = netip.ParseAddr(inner[:len(inner)-1])
		if err == nil && !addr.Is6() {
			return netip.Addr{}, false
		}
	}
	if err != nil {
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(s)
		addr = withPort.Addr()
	}
	if err != nil || addr.Zone() != "" { // a zone means something on one machine only
		return netip.Addr{}, false
	}
	return plain(addr), true
}

// plain returns an address as it is compared: IPv4 as such, and without a zone.
func plain(addr netip.Addr) netip.Addr { return addr.Unmap().WithZone("") }

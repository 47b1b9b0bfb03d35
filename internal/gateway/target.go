package gateway

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// A target is what a connection is for, as far as the address that it was made
// to tells.
type target struct {
	endpoint
	proxy *proxyTarget
	// unnamed says that the address stands for some name, and only what is said
	// on the connection can tell for which one.
	unnamed bool
}

// target returns what a connection to an address of the sandbox is for.
func (s *Server) target(local netip.AddrPort) target {
	addr, port := local.Addr().Unmap().WithZone(""), local.Port()
	if p, ok := s.plan.proxies[addr]; ok {
		t := target{endpoint: endpoint{name: p.name, port: port}}
		if port == httpPort {
			t.proxy = &p
		}
		return t
	}
	if name, ok := s.plan.inside[addr]; ok {
		return target{endpoint: endpoint{name: name, port: port}}
	}
	if !nameAddrs.Contains(addr) {
		return target{endpoint: endpoint{addr: addr, port: port}}
	}
	name, ok := s.names.name(addr)
	return target{endpoint: endpoint{name: name, port: port}, unnamed: !ok}
}

// knows reports whether a name is allowed at any port.
func (c *plan) knows(name string) bool {
	for e := range c.brokers {
		if e.name == name {
			return true
		}
	}
	return slices.ContainsFunc(c.rules, func(r Rule) bool { return r.names(name) })
}

// allows reports whether an endpoint is allowed, by a rule or because a secret
// goes there.
func (c *plan) allows(e endpoint) bool {
	if c.brokers[e] != nil {
		return true
	}
	return slices.ContainsFunc(c.rules, func(r Rule) bool {
		if r.port != e.port {
			return false
		}
		if e.addr.IsValid() {
			return r.addr == e.addr
		}
		return r.names(e.name)
	})
}

// exact returns the names that rules and brokers name.
func (c *plan) exact() []string {
	var list []string
	for _, r := range c.rules {
		if r.name != "" && !r.wild {
			list = append(list, r.name)
		}
	}
	for e := range c.brokers {
		if e.name != "" {
			list = append(list, e.name)
		}
	}
	return list
}

// named completes a target by the name that TLS or HTTP asks for, and checks
// that this is what the connection was made for. An address needs no name, and
// its own spelling is fine. If it is not, why says so, and the endpoint is what
// was asked for instead.
func (t target) named(asked string) (e endpoint, why string) {
	e = t.endpoint
	if e.addr.IsValid() {
		addr, err := netip.ParseAddr(strings.Trim(asked, "[]"))
		if asked == "" || err == nil && addr == e.addr || e.addr.IsLoopback() && strings.EqualFold(asked, "localhost") {
			return e, ""
		}
		return endpoint{name: asked, port: e.port}, "asked for on a connection to " + e.String()
	}
	if asked == "" {
		return endpoint{name: t.show(), port: e.port}, "a connection that asks for no name"
	}
	name, err := canonical(asked)
	switch {
	case err == nil && t.unnamed:
		e.name = name
		return e, ""
	case err == nil && name == e.name:
		return e, ""
	}
	return endpoint{name: asked, port: e.port}, "asked for on a connection to " + t.show() + ":" + strconv.Itoa(int(e.port))
}

// show returns the host of a target, for people.
func (t target) show() string {
	if t.unnamed {
		return "an unknown name"
	}
	return t.host()
}

const whyNotAllowed = "not in network.allow"

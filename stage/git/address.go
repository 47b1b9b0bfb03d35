//go:build unix

package git

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/caissonrun/caisson"
)

// private are networks beside those that package netip knows as private that a
// task could reach something of the host's through, or nothing at all.
var private = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),      // this network
	netip.MustParsePrefix("100.64.0.0/10"),  // between a provider and its customers
	netip.MustParsePrefix("192.0.0.0/24"),   // of protocols
	netip.MustParsePrefix("198.18.0.0/15"),  // of benchmarks
	netip.MustParsePrefix("240.0.0.0/4"),    // reserved, and broadcast
	netip.MustParsePrefix("64:ff9b::/96"),   // holds an IPv4 address
	netip.MustParsePrefix("64:ff9b:1::/48"), // the same, locally
	netip.MustParsePrefix("2001::/23"),      // of protocols; tunnels
	netip.MustParsePrefix("2002::/16"),      // tunnels
	netip.MustParsePrefix("fec0::/10"),      // of sites
}

// public reports whether an address is one of the open internet.
func public(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	return addr.IsGlobalUnicast() && !addr.IsPrivate() &&
		!slices.ContainsFunc(private, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// mayReach reports whether web servers may be at an address.
func (s *Stager) mayReach(addr netip.Addr) bool { return s.opts.AllowPrivate || public(addr) }

var errPrivateAddress = errors.New("a private address")

func errPrivate(host string) error {
	return &caisson.Error{
		Kind: caisson.ErrDenied,
		Err:  fmt.Errorf("%q is %w, which inputs may not come from unless the operator sets stage.http.allow_private", host, errPrivateAddress),
	}
}

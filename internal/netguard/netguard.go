// Package netguard keeps what an outsider names from reaching this host's own
// networks. It looks at the address that is really connected to, so that no
// spelling of it, no redirect and no change of a name's address between check
// and use gets past.
package netguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
)

// ErrPrivate says that an address is not a public one.
var ErrPrivate = errors.New("not a public address: private, loopback and link-local networks are not reached from here")

// special are networks that are no part of the public Internet, besides those
// that netip knows by their properties.
var special = parse(
	"0.0.0.0/8",       // this network
	"100.64.0.0/10",   // shared by a provider's customers; cloud metadata
	"192.0.0.0/24",    // protocol assignments
	"192.0.2.0/24",    // documentation
	"198.18.0.0/15",   // benchmarks
	"198.51.100.0/24", // documentation
	"203.0.113.0/24",  // documentation
	"240.0.0.0/4",     // reserved, and broadcast
	"::/96",           // IPv4-compatible, and unspecified
	"100::/64",        // discard
	"2001::/23",       // protocol assignments, Teredo
	"2001:db8::/32",   // documentation
	"3fff::/20",       // documentation
	"5f00::/16",       // segment routing
	"fec0::/10",       // site-local
)

// Networks of IPv6 that hold an IPv4 address, and where it begins.
var (
	sixToFour = netip.MustParsePrefix("2002::/16")
	nat64     = parse("64:ff9b::/96", "64:ff9b:1::/48")
)

func parse(list ...string) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, text := range list {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	return prefixes
}

// Public reports whether an address is one of the public Internet.
func Public(addr netip.Addr) bool {
	addr = addr.WithZone("").Unmap()
	if !addr.IsValid() || !addr.IsGlobalUnicast() || addr.IsPrivate() || contains(special, addr) {
		return false
	}
	bytes := addr.As16()
	switch {
	case addr.Is4():
		return true
	case sixToFour.Contains(addr):
		return Public(netip.AddrFrom4([4]byte(bytes[2:6])))
	case contains(nat64, addr):
		return Public(netip.AddrFrom4([4]byte(bytes[12:16])))
	}
	return true
}

func contains(list []netip.Prefix, addr netip.Addr) bool {
	for _, p := range list {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// Control is for net.Dialer.Control: it refuses every address that is not
// public. Errors: ErrDenied, which is ErrPrivate too.
func Control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil || !Public(ap.Addr()) {
		return &caisson.Error{Item: address, Kind: caisson.ErrDenied, Err: ErrPrivate}
	}
	return nil
}

// Dialer returns a dialer that reaches public addresses only, or all of them if
// any is set.
func Dialer(timeout time.Duration, any bool) *net.Dialer {
	d := &net.Dialer{Timeout: timeout}
	if !any {
		d.Control = Control
	}
	return d
}

// CheckHost refuses a host that is an address and not a public one, before
// anything is looked up. A name passes: Control sees its address.
func CheckHost(host string) error {
	if addr, err := netip.ParseAddr(host); err == nil && !Public(addr) {
		return &caisson.Error{Item: fmt.Sprintf("%q", host), Kind: caisson.ErrDenied, Err: ErrPrivate}
	}
	return nil
}

package engine

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/caissonrun/caisson"
)

// maxSockets is how many sockets a gateway may have: all of them travel in one
// message of a unix socket, which holds 253 descriptors, and not alone.
const maxSockets = 200

// gateway checks what becomes sockets, lines of /etc/hosts and of resolv.conf.
func (v *validation) gateway(s *Spec) {
	g := s.Gateway
	if g == nil {
		return
	}
	v.addIf(s.Network.Mode == caisson.NetworkHost, "gateway", "not with the host's network, where everybody could connect")
	v.addIf(len(g.Sockets) > maxSockets, "gateway.sockets", fmt.Sprintf("there are %d, at most %d can be", len(g.Sockets), maxSockets))
	seen := make(map[Socket]bool)
	for i, socket := range g.Sockets {
		field := fmt.Sprintf("gateway.sockets[%d]", i)
		v.add(field, checkSocket(&socket))
		v.addIf(seen[socket], field, fmt.Sprintf("%s %s is there twice", socket.Network, socket.Address))
		seen[socket] = true
	}
	for _, name := range slices.Sorted(maps.Keys(g.Names)) {
		field := fmt.Sprintf("gateway.names.%q", name)
		v.addIf(!hostName(name), field, "not a host name")
		v.add(field, checkLoopback(g.Names[name]))
	}
	if g.Resolver != "" {
		v.add("gateway.resolver", checkLoopback(g.Resolver))
	}
	v.addIf(g.Everything && s.Network.Mode != caisson.NetworkAllow, "gateway.everything", "only with network allow")
}

// checkSocket wants a socket at an address of the loopback network, or at all.
func checkSocket(s *Socket) error {
	if s.Network != "tcp" && s.Network != "udp" {
		return fmt.Errorf("network %q is neither tcp nor udp", s.Network)
	}
	at, err := netip.ParseAddrPort(s.Address)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not IP:PORT", s.Address)
	case at.Port() == 0:
		return fmt.Errorf("%q has no port", s.Address)
	case at.Addr() == netip.IPv6Unspecified():
		return nil
	}
	return checkLoopback(at.Addr().String())
}

func checkLoopback(address string) error {
	ip, err := netip.ParseAddr(address)
	if err != nil || !ip.IsLoopback() || ip.Zone() != "" {
		return fmt.Errorf("%q is no address of the loopback network", address)
	}
	return nil
}

// hostName reports whether a name can stand in /etc/hosts, and mean itself.
func hostName(name string) bool {
	const longest = 253
	if name == "" || len(name) > longest || name == "localhost" {
		return false
	}
	if strings.Trim(name, "0123456789.") == "" {
		return false // a program could take it for an address
	}
	return strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
}

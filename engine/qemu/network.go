//go:build unix

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/cleanup"
	"github.com/caissonrun/caisson/internal/dhcp"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine"
	"github.com/caissonrun/caisson/internal/network"
)

var _ engine.NetworkLister = (*Engine)(nil)

// On network default QEMU makes a network for its guest alone, in a namespace of
// package network, whose filters hold for what QEMU does there on the guest's
// behalf. These are what QEMU calls itself and the guest in it; its DHCP says the
// same.
const (
	userAddress = "10.0.2.15/24"
	userGateway = "10.0.2.2"
	// userResolver is who is asked for names in a network that the keeper makes.
	userResolver = "10.0.2.3"
)

// cardMAC is the address of a machine's card. All machines have the same, so that a
// saved state fits; on a network of a name the guest is told another one.
func cardMAC(index int) string { return fmt.Sprintf("52:54:00:ca:15:%02x", index) }

// nets are what a sandbox is attached to; nil: nothing but its loopback.
type nets struct {
	record *network.Record
	// links are what cards on networks of a name must have, once these are there.
	links []network.Link
}

// networks is where networks are found and kept.
func (o *Options) networks() *network.Options {
	return &network.Options{
		Runtime: filepath.Join(o.Runtime, kept.NetworksDir), Ports: o.Ports, Installation: o.Installation,
		ConfigDir: o.CNIConfigDir, PluginDirs: o.CNIPluginDirs, Subnet: o.DefaultSubnet, VPNs: o.VPNs,
	}
}

// findNetworks looks for networks. Probe does so thoroughly.
func (o *Options) findNetworks(ctx context.Context, h *host) {
	h.nets = kept.FindNets(ctx, o.networks(), h.root, true)
	h.taps = network.TapsUsable()
	if !h.root {
		// The keeper makes it in user space, of ordinary sockets.
		h.nets.Closed = nil
	}
}

// netFeatures says which networks there are.
func (h *host) netFeatures(out *engine.Features) {
	h.nets.Features(out)
	if !h.root {
		out.Networks.Default, out.Ports = true, true
		return
	}
	if h.taps != nil {
		out.Networks.Named, out.Ports = false, out.Networks.Default
	}
}

// netMissing says why what is not there is not.
func (h *host) netMissing(o *Options, add func(what, why, do string)) {
	if !h.root {
		add(engine.WhatNamedNets, "without root no sandbox can be attached to one", "run as root, or use network default")
		add(engine.WhatSharedNets, "machines have no loopback device in common", "use engine oci")
		return
	}
	h.nets.Missing("engine.qemu", o.CNIConfigDir, add)
	if h.nets.Broken == nil && h.taps != nil && len(h.nets.Names) > 0 {
		add(engine.WhatNamedNets, h.taps.Error(), "load the module tun")
	}
	add(engine.WhatSharedNets, "machines have no loopback device in common", "use engine oci")
}

// joins prepares a sandbox's networks, if it asks for some. They are made after
// what p prepares already.
func (e *Engine) joins(spec *engine.Spec, set *setting, p *kept.Plan) error {
	if len(spec.Ports) == 0 && !kept.Attaches(&spec.Network) {
		return nil
	}
	rec, err := e.opts.networks().Plan(&network.Spec{ID: spec.ID, Network: spec.Network, Ports: spec.Ports, DNS: spec.DNS, User: !set.root})
	if err != nil {
		return err
	}
	set.nets = &nets{record: rec}
	named := !set.nets.user()
	switch {
	case named && len(rec.Attachments) > isolate.MaxMore:
		return kept.Unsupported("network", fmt.Errorf("a machine has %d cards at most", isolate.MaxMore))
	case named && spec.Forkable:
		return kept.Unsupported("forkable", errors.New("a copy would have the address of the original; use network default or none"))
	}
	if p.Record.Data, err = json.Marshal(&kept.NetworkData{Network: rec}); err != nil {
		return err
	}
	before := p.Prepare
	p.Prepare = func(ctx context.Context, slot int, undo *cleanup.List) error {
		if before != nil {
			if err := before(ctx, slot, undo); err != nil {
				return err
			}
		}
		undo.AddContext(rec.Remove)
		err := rec.Create(ctx)
		if err == nil && named {
			set.nets.links, err = rec.MakeTaps(ctx)
		}
		return kept.Plain(err)
	}
	return nil
}

// user reports whether the network is one of QEMU's own making, in a namespace with
// rules for what programs do: default, or one that leads through a VPN.
func (n *nets) user() bool { return len(n.record.Attachments) > 0 && n.record.Attachments[0].Alone() }

// addNetwork gives the machine its cards, and the guest what belongs to them.
func (set *setting) addNetwork(bs *boxSpec, m *machine.Spec) {
	n := set.nets
	if n == nil {
		return
	}
	model := ""
	if set.own != nil {
		model = set.own.Network
	}
	if n.record.User {
		m.Network = &machine.Network{FD: firstTap, Model: model, MAC: cardMAC(0)}
		bs.User = &userNet{Servers: nameServers(set.resolv), DNS: n.record.DNS, Ports: n.record.Attachments[0].Ports}
		bs.Guest.Interfaces = []guest.Interface{{Hardware: cardMAC(0), Addresses: []string{userAddress}, Gateways: []string{userGateway}}}
		return
	}
	bs.Box.NetNS = n.record.Path()
	if n.user() {
		m.Network = &machine.Network{Open: true, Model: model, MAC: cardMAC(0), Forwards: forwards(n.record.Attachments[0].Ports)}
		bs.Guest.Interfaces = []guest.Interface{{Hardware: cardMAC(0), Addresses: []string{userAddress}, Gateways: []string{userGateway}}}
		// The resolver that QEMU gives to a guest that asks by DHCP.
		resolv, _ := network.Resolv(n.record.DNS, n.record.FoundDNS(), set.resolv, true)
		bs.Box.Entries = append(bs.Box.Entries, isolate.Entry{Path: "/etc/resolv.conf", Contents: resolv})
		return
	}
	for i := range n.record.Attachments {
		m.Taps = append(m.Taps, machine.Tap{MAC: cardMAC(i), Model: model, FD: firstTap + i})
	}
	if set.own != nil {
		set.addLeases(bs, m)
	}
	for i := range n.links {
		l := &n.links[i]
		bs.Taps = append(bs.Taps, l.Tap)
		in := guest.Interface{Hardware: m.Taps[i].MAC, MAC: l.MAC, MTU: l.MTU, Addresses: l.Addresses, Gateways: l.Gateways}
		for _, r := range l.Routes {
			route := guest.Route{To: r.To.String()}
			if r.By.IsValid() {
				route.By = r.By.String()
			}
			in.Routes = append(in.Routes, route)
		}
		bs.Guest.Interfaces = append(bs.Guest.Interfaces, in)
	}
}

// addLeases has a system of its own told its addresses when it asks by DHCP, as such
// systems do before their agent runs. Its cards have the addresses of Ethernet that
// the networks gave out from the start: no saved state has to fit.
func (set *setting) addLeases(bs *boxSpec, m *machine.Spec) {
	n := set.nets
	contents, _ := network.Resolv(n.record.DNS, n.record.FoundDNS(), set.resolv, true)
	dns := &caisson.DNS{}
	for _, s := range nameServers(contents) {
		dns.Servers = append(dns.Servers, s.Addr().String())
	}
	bs.Leases = map[string]*dhcp.Lease{}
	for i := range n.links {
		l := &n.links[i]
		m.Taps[i].MAC = l.MAC
		if lease, ok := l.Lease(dns); ok {
			bs.Leases[l.Tap] = lease
		}
	}
}

// nameServers are those of the host's resolv.conf, also where only the host itself can
// reach them: a network in user space asks them for the guest.
func nameServers(resolv []byte) []netip.AddrPort {
	const port = 53
	var list []netip.AddrPort
	for line := range strings.Lines(string(resolv)) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(words[1]); err == nil && addr.Is4() {
			list = append(list, netip.AddrPortFrom(addr, port))
		}
	}
	return list
}

// forwards are the ports at which QEMU listens in its namespace, for those that are
// published there.
func forwards(ports []caisson.Port) []machine.Forward {
	var list []machine.Forward
	seen := map[machine.Forward]bool{}
	for _, p := range ports {
		f := machine.Forward{Protocol: p.Protocol, Port: p.Port}
		if !seen[f] {
			seen[f], list = true, append(list, f)
		}
	}
	return list
}

// hosts is /etc/hosts.
func (set *setting) hosts(s *engine.Spec) []byte {
	return append(network.Hosts(hostname(s), set.nets.inside()), kept.GatewayHosts(s.Gateway)...)
}

// inside is the record as the guest is to see it.
func (n *nets) inside() *network.Record {
	switch {
	case n == nil:
		return nil
	case !n.user() || n.record.User:
		return n.record
	}
	seen := *n.record
	at := seen.Attachments[0]
	at.Addresses = []string{userAddress}
	seen.Attachments = []network.Attachment{at}
	return &seen
}

// resolvConf is /etc/resolv.conf, unless the image's own stays.
func (set *setting) resolvConf(s *engine.Spec) ([]byte, bool) {
	if g := s.Gateway; g != nil && g.Resolver != "" {
		only := caisson.DNS{Servers: []string{g.Resolver}}
		if s.DNS != nil {
			only.Search, only.Options = s.DNS.Search, s.DNS.Options
		}
		contents, _ := network.Resolv(&only, nil, nil, false)
		return contents, true
	}
	var said *caisson.DNS
	if set.nets != nil {
		said = set.nets.record.FoundDNS()
		if set.nets.record.User && len(nameServers(set.resolv)) > 0 {
			said = &caisson.DNS{Servers: []string{userResolver}}
		}
	}
	contents, keep := network.Resolv(s.DNS, said, set.resolv, set.nets != nil)
	return contents, !keep
}

// remove detaches a sandbox from its networks. It can be called again.
func (e *Engine) remove(ctx context.Context, sandbox string, rec *kept.Record) error {
	return kept.RemoveNetworks(ctx, e.opts.networks(), sandbox, rec)
}

// Networks implements engine.NetworkLister.
func (e *Engine) Networks(_ context.Context, dir string) ([]engine.Network, error) {
	d, err := kept.ReadNetworkData(dir, Name)
	if err != nil {
		return nil, err
	}
	return kept.ListNetworks(d.Network)
}

package network

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/thread"
)

// The network "default" reaches the outside, by the host's address, and nothing
// that is near: not the host, not private and link-local addresses, not other
// sandboxes. It is a pair of devices that CNI's ptp plugin makes, and filters in
// two places. Those in the namespace are made before the first device, and
// nobody inside can change them; a firewall of the host that is loaded anew does
// not touch them. One more on the host drops what is sent to addresses that the
// host gets only later.

// defaultName is the network's name for plugins.
const defaultName = "caisson-default"

// nftProgram is what loads filters; from the package nftables.
const nftProgram = "nft"

// DefaultUsable returns nil if the network "default" can be had here: its
// plugins are installed and, if thorough is set, its filters can be loaded in a
// namespace, which is thrown away.
func (o *Options) DefaultUsable(ctx context.Context, thorough bool) error {
	if _, err := o.defaultConfig(); err != nil || !thorough {
		return err
	}
	return thread.Spend(func() error {
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return failure(caisson.ErrUnsupported, "network namespace", err)
		}
		return loadFilter(ctx, insideFilter(&filter{}))
	})
}

// planDefault is the attachment to the network "default".
func (o *Options) planDefault() (*Attachment, error) {
	config, err := o.defaultConfig()
	if err != nil {
		return nil, err
	}
	plugin, _ := findPlugin("ptp", o.pluginDirs())
	return &Attachment{Name: caisson.NetworkDefault, Interface: "eth0", Plugin: plugin, Config: config, Default: true}, nil
}

// defaultConfig is the configuration for plugins. The plugin firewall only lets
// through what another firewall of the host would drop.
func (o *Options) defaultConfig() (json.RawMessage, error) {
	subnet, err := o.defaultSubnet()
	if err != nil {
		return nil, err
	}
	list := []map[string]any{
		{"type": "ptp", "ipMasq": true, "ipam": map[string]any{
			"type": "host-local", "ranges": [][]map[string]string{{{"subnet": subnet.String()}}},
			"routes": []map[string]string{{"dst": "0.0.0.0/0"}},
		}},
		{"type": "portmap", "capabilities": map[string]bool{"portMappings": true}},
	}
	for _, name := range []string{"ptp", "host-local", "portmap"} {
		if _, err := findPlugin(name, o.pluginDirs()); err != nil {
			return nil, failure(caisson.ErrUnsupported, "network: default", err)
		}
	}
	if _, err := findPlugin("firewall", o.pluginDirs()); err == nil {
		list = append(list, map[string]any{"type": "firewall", "backend": "iptables"})
	}
	return json.Marshal(map[string]any{"cniVersion": "0.4.0", "name": defaultName, "plugins": list})
}

// defaultSubnet is where the sandboxes' addresses come from.
//
// Errors: ErrUnsupported if the host is in it already.
func (o *Options) defaultSubnet() (netip.Prefix, error) {
	text := o.Subnet
	if text == "" {
		text = DefaultSubnet
	}
	subnet, err := netip.ParsePrefix(text)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() > 28 || !Near(subnet.Addr()) {
		return subnet, failure(caisson.ErrUnsupported, "network: default", fmt.Errorf("%q is no private IPv4 network of 16 addresses or more", text))
	}
	for _, p := range hostPrefixes() {
		// A single address is the near end of a sandbox's own device.
		if p.Addr().Is4() && !p.IsSingleIP() && p.Overlaps(subnet) {
			return subnet, failure(caisson.ErrUnsupported, "network: default", fmt.Errorf("this host is in %s itself; configure another subnet", subnet))
		}
	}
	return subnet, nil
}

// hostPrefixes returns the host's addresses.
func hostPrefixes() []netip.Prefix {
	addrs, _ := net.InterfaceAddrs()
	var list []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()))
		}
	}
	return list
}

// A filter is what the filter in a namespace depends on.
type filter struct {
	host      []string // addresses of the host
	resolvers []string // that may be asked although they are near
	ports     []caisson.Port
}

// filterOf finds out what the filter of a record has to know.
func filterOf(a *Attachment) *filter {
	f := &filter{ports: a.Ports}
	for _, p := range hostPrefixes() {
		if p.Addr().Is4() {
			f.host = append(f.host, p.Addr().String())
		}
	}
	text, _ := os.ReadFile("/etc/resolv.conf")
	for _, server := range readResolv(text).Servers {
		if addr, err := netip.ParseAddr(server); err == nil && addr.Is4() && !addr.IsLoopback() && !slices.Contains(f.host, server) {
			f.resolvers = append(f.resolvers, addr.String())
		}
	}
	return f
}

// insideFilter is the filter of a namespace. What is near is refused at once, so
// that programs need not wait; everything else that is not let through is
// dropped, and so is all of IPv6 but for the loopback device.
func insideFilter(f *filter) string {
	var b strings.Builder
	b.WriteString("table inet caisson {\n")
	b.WriteString(" chain near {\n  meta l4proto tcp reject with tcp reset\n  reject\n }\n")
	b.WriteString(" chain output {\n  type filter hook output priority 0; policy drop;\n  oifname \"lo\" accept\n  ct state established,related accept\n")
	for _, r := range f.resolvers {
		fmt.Fprintf(&b, "  ip daddr %s udp dport 53 accept\n  ip daddr %s tcp dport 53 accept\n", r, r)
	}
	fmt.Fprintf(&b, "  ip daddr { %s } jump near\n", strings.Join(nearby, ", "))
	for _, h := range f.host {
		fmt.Fprintf(&b, "  ip daddr %s jump near\n", h)
	}
	b.WriteString("  meta nfproto ipv4 accept\n }\n")
	b.WriteString(" chain input {\n  type filter hook input priority 0; policy drop;\n  iifname \"lo\" accept\n  ct state established,related accept\n")
	for _, p := range f.ports {
		fmt.Fprintf(&b, "  meta nfproto ipv4 %s dport %d accept\n", p.Protocol, p.Port)
	}
	b.WriteString(" }\n}\n")
	return b.String()
}

// filterInside loads the filter of a namespace that has no devices yet.
func (r *Record) filterInside(ctx context.Context, a *Attachment) error {
	// What is near is seen from the host.
	rules := insideFilter(filterOf(a))
	return inNamespace(r.Path(), func() error { return loadFilter(ctx, rules) })
}

// filterOutside keeps the namespace's addresses from the host itself.
func (r *Record) filterOutside(ctx context.Context, a *Attachment) error {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n chain input {\n  type filter hook input priority -10;\n", r.tableName())
	for _, addr := range a.addresses() {
		fmt.Fprintf(&b, "  ip saddr %s ct state new,invalid,untracked drop\n", addr)
	}
	b.WriteString(" }\n}\n")
	return loadFilter(ctx, b.String())
}

// unfilter undoes filterOutside, if it was done.
func (r *Record) unfilter(ctx context.Context) error {
	// Adding first, a table that is not there can be deleted all the same.
	return loadFilter(ctx, fmt.Sprintf("add table inet %s\ndelete table inet %s\n", r.tableName(), r.tableName()))
}

// tableName is that of the host's filter for the namespace.
func (r *Record) tableName() string {
	sum := sha256.Sum256([]byte(r.Owner))
	return "caisson_" + hex.EncodeToString(sum[:8])
}

// loadFilter has nft load rules, all or none of them, in the namespace of the
// calling thread.
func loadFilter(ctx context.Context, rules string) error {
	path, err := exec.LookPath(nftProgram)
	if err != nil {
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if _, statErr := os.Stat(dir + nftProgram); statErr == nil {
				path, err = dir+nftProgram, nil
			}
		}
	}
	if err != nil {
		return failure(caisson.ErrUnsupported, "network: default", errors.New("nft is not installed; it is in the package nftables"))
	}
	limited, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	cmd := exec.CommandContext(limited, path, "-f", "-")
	cmd.Env = pluginEnv(nil)
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(rules)
	cmd.WaitDelay = lingering
	out, err := cmd.CombinedOutput()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	first, _, _ := bytes.Cut(bytes.TrimSpace(out), []byte("\n"))
	return failure(caisson.ErrUnavailable, "network: default", fmt.Errorf("nft: %w: %.300s", err, first))
}

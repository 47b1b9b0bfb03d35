//go:build unix

package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// On a shared network with an allow-list the daemon's own resolver is not asked,
// because it asks others. The containers have one file of names instead, which
// lies in the network's folder, and to which each adds its own.

// hostsName is that file.
const hostsName = "hosts"

// hostsBase is what it begins with.
const hostsBase = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"

// neighbourDevice is what daemons call a container's first network.
const neighbourDevice = "eth0"

// Neighbours are the others on such a network.
type neighbours struct {
	Network string `json:"network"`
	Hosts   string `json:"hosts"` // the file
	// Names are the container's own.
	Names []string `json:"names,omitempty"`
	// Fixed are names with their addresses, of the gateway.
	Fixed map[string]string `json:"fixed,omitempty"`
}

// meetNeighbours lets the container reach its neighbours, and them know it. Of
// the network's addresses the host's own stays out of reach.
func (b *box) meetNeighbours(ctx context.Context) error {
	n := b.spec.Neighbours
	if n == nil {
		return nil
	}
	own, err := b.address(ctx, n.Network)
	if err != nil {
		return err
	}
	gates, err := b.daemon.gates(ctx, n.Network)
	if err != nil {
		return err
	}
	if err := b.Guest.Spare(neighbourDevice, own.Masked().Addr().As4(), own.Bits(), gates); err != nil {
		return fmt.Errorf("network %s: %w", n.Network, err)
	}
	names := maps.Clone(n.Fixed)
	if names == nil {
		names = map[string]string{}
	}
	for _, name := range n.Names {
		names[name] = own.Addr().String()
	}
	return addHosts(n.Hosts, names)
}

// address returns the container's own on a network.
func (b *box) address(ctx context.Context, name string) (netip.Prefix, error) {
	r, err := call(ctx, "container", func(ctx context.Context) (client.ContainerInspectResult, error) {
		return b.daemon.ContainerInspect(ctx, b.spec.Name, client.ContainerInspectOptions{})
	})
	if err != nil {
		return netip.Prefix{}, err
	}
	if s := r.Container.NetworkSettings; s != nil {
		if at := s.Networks[name]; at != nil && at.IPAddress.Is4() {
			return netip.PrefixFrom(at.IPAddress, at.IPPrefixLen), nil
		}
	}
	return netip.Prefix{}, &caisson.Error{
		Item: "network " + name, Kind: caisson.ErrUnavailable, Err: errors.New("the daemon tells no address of the container"),
	}
}

// gates returns the addresses of IPv4 that the host has on a network.
func (d *daemon) gates(ctx context.Context, name string) (list [][4]byte, err error) {
	r, err := call(ctx, "network "+name, func(ctx context.Context) (client.NetworkInspectResult, error) {
		return d.NetworkInspect(ctx, name, client.NetworkInspectOptions{})
	})
	if err != nil {
		return nil, err
	}
	for _, c := range r.Network.IPAM.Config {
		switch {
		case c.Gateway.Is4():
			list = append(list, c.Gateway.As4())
		case !c.Gateway.IsValid() && c.Subnet.Addr().Is4():
			// Where it is not told it is the first.
			list = append(list, c.Subnet.Masked().Addr().Next().As4())
		}
	}
	return list, nil
}

// addHosts puts names into a file of names, in the place of what they meant
// before. The file stays the same one: containers have it mounted.
func addHosts(path string, names map[string]string) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return err
	}
	old, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	text := mergeHosts(old, names)
	if _, err := f.WriteAt(text, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// mergeHosts adds names to the text of such a file. It has one name on each line
// but its first.
func mergeHosts(old []byte, names map[string]string) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(old) {
		_, name, _ := strings.Cut(strings.TrimSpace(string(line)), "\t")
		if _, again := names[name]; !again {
			b.Write(line)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fmt.Fprintf(&b, "%s\t%s\n", names[name], name)
	}
	return b.Bytes()
}

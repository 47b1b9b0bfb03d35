package network

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
)

// A virtual machine on a network of a name takes the place of the device that the
// plugins have made in its namespace: what arrives there goes to a TAP device, and
// what comes from that goes out there, before the kernel's own network sees it.
// So the guest has the address that the plugins gave out, and no other: frames
// with another sender are dropped.

// tunDevice is where TAP devices come from.
const tunDevice = "/dev/net/tun"

// tapFlags are of a device for frames as QEMU wants them.
const tapFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

// TapsUsable returns nil if TAP devices can be had.
func TapsUsable() error {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return failure(caisson.ErrUnsupported, "network", fmt.Errorf("%s: %w", tunDevice, err))
	}
	return unix.Close(fd)
}

// MakeTaps makes a TAP device for each attachment of a namespace that is there,
// and returns what the cards behind them must have, in order. The devices go with
// the namespace.
func (r *Record) MakeTaps(ctx context.Context) ([]Link, error) {
	var list []Link
	for i := range r.Attachments {
		a := &r.Attachments[i]
		if a.Alone() {
			return nil, failure(caisson.ErrUnsupported, fmt.Sprintf("network: %s", a.Name), errors.New("its filters see no frames"))
		}
		l := Link{Tap: fmt.Sprintf("tap%d", i), Addresses: a.Addresses}
		err := inNamespace(r.Path(), func() error {
			if err := l.read(a.Interface); err != nil {
				return err
			}
			if err := makeTap(l.Tap, l.MTU); err != nil {
				return err
			}
			return loadFilter(ctx, l.forwarding(a.Interface))
		})
		if err != nil {
			return nil, failure(caisson.KindOf(err), fmt.Sprintf("network %q", a.Name), err)
		}
		list = append(list, l)
	}
	return list, nil
}

// read finds out what the device of the thread's namespace has that a card must
// have.
func (l *Link) read(device string) error {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return fmt.Errorf("device %s: %w", device, err)
	}
	l.MAC, l.MTU = dev.HardwareAddr.String(), dev.MTU
	f, err := os.Open("/proc/thread-self/net/route")
	if err != nil {
		return err
	}
	defer f.Close()
	if l.Routes, err = readRoutes(f, device); err != nil {
		return err
	}
	six, err := os.Open("/proc/thread-self/net/ipv6_route")
	if err != nil {
		return nil // the kernel has no IPv6
	}
	defer six.Close()
	l.Gateways = readGateways(six, device)
	return nil
}

// readRoutes reads the kernel's table of IPv4 routes: numbers are hexadecimal, and
// in the host's order of bytes.
func readRoutes(table io.Reader, device string) ([]Route, error) {
	var list []Route
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 8 || w[0] != device {
			continue
		}
		to, err := tableAddr(w[1])
		by, byErr := tableAddr(w[2])
		mask, maskErr := strconv.ParseUint(w[7], 16, 32)
		if err := errors.Join(err, byErr, maskErr); err != nil {
			return nil, fmt.Errorf("route %q: %w", lines.Text(), err)
		}
		route := Route{To: netip.PrefixFrom(to, bits.OnesCount32(uint32(mask)))}
		if !by.IsUnspecified() {
			route.By = by
		}
		list = append(list, route)
	}
	// Who leads elsewhere must be reached first.
	slices.SortStableFunc(list, func(a, b Route) int { return boolInt(a.By.IsValid()) - boolInt(b.By.IsValid()) })
	return list, lines.Err()
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func tableAddr(text string) (netip.Addr, error) {
	n, err := strconv.ParseUint(text, 16, 32)
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b), err
}

// readGateways reads the default routes of the kernel's table of IPv6 routes.
func readGateways(table io.Reader, device string) []string {
	var list []string
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		w := strings.Fields(lines.Text())
		if len(w) < 10 || w[9] != device || strings.Trim(w[0]+w[1], "0") != "" {
			continue
		}
		raw, err := hex.DecodeString(w[4])
		if err != nil || len(raw) != 16 {
			continue
		}
		if by := netip.AddrFrom16([16]byte(raw)); !by.IsUnspecified() {
			list = append(list, by.String())
		}
	}
	return list
}

// makeTap makes a TAP device that stays in the thread's namespace.
func makeTap(name string, mtu int) error {
	f, err := attachTap(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	req.SetUint32(uint32(mtu))
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, req); err != nil {
		return fmt.Errorf("device %s: mtu %d: %w", name, mtu, err)
	}
	// The host itself says nothing there.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0)
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("device %s: %w", name, err)
	}
	return nil
}

// attachTap opens a TAP device of the thread's namespace, or makes one.
func attachTap(name string) (*os.File, error) {
	fd, err := unix.Open(tunDevice, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", tunDevice, err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(tapFlags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("device %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// OpenTap opens a TAP device of the namespace at path, for a virtual machine.
func OpenTap(path, name string) (f *os.File, err error) {
	err = inNamespace(path, func() error {
		f, err = attachTap(name)
		return err
	})
	return f, err
}

// forwarding are the rules by which frames pass between a device and the TAP
// device. The guest may speak by its own addresses only, and is no router.
func (l *Link) forwarding(device string) string {
	var four, six []string
	for _, text := range l.Addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		if p.Addr().Is4() {
			four = append(four, p.Addr().String())
		} else {
			six = append(six, p.Addr().String())
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table netdev caisson_%s {\n", l.Tap)
	fmt.Fprintf(&b, " chain arrives {\n  type filter hook ingress device %q priority 0;\n  fwd to %q\n }\n", device, l.Tap)
	fmt.Fprintf(&b, " chain leaves {\n  type filter hook ingress device %q priority 0;\n  ether saddr != %s drop\n", l.Tap, l.MAC)
	if len(four) > 0 {
		own := strings.Join(four, ", ")
		fmt.Fprintf(&b, "  ip saddr { %s } fwd to %q\n  arp saddr ether %s arp saddr ip { %s } fwd to %q\n", own, device, l.MAC, own, device)
	}
	if len(six) > 0 {
		fmt.Fprintf(&b, "  icmpv6 type { nd-router-advert, nd-redirect } drop\n")
		fmt.Fprintf(&b, "  ip6 saddr { ::, fe80::/10, %s } fwd to %q\n", strings.Join(six, ", "), device)
	}
	b.WriteString("  drop\n }\n}\n")
	return b.String()
}

package agent

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

// configure serves wire.OpNetwork. It can be called again with the same.
func configure(n *wire.Network) error {
	for i := range n.Interfaces {
		in := &n.Interfaces[i]
		name, err := deviceOf(in)
		if err == nil {
			err = setDevice(name, in)
		}
		if err != nil {
			return fmt.Errorf("network device %q: %w", in.Name+in.Hardware, err)
		}
	}
	return nil
}

// deviceOf returns the name of a device.
func deviceOf(in *wire.Interface) (string, error) {
	if in.Hardware == "" {
		return in.Name, nil
	}
	const devices = "/sys/class/net"
	list, err := os.ReadDir(devices)
	if err != nil {
		return "", err
	}
	for _, e := range list {
		address, err := os.ReadFile(devices + "/" + e.Name() + "/address")
		if err == nil && strings.EqualFold(strings.TrimSpace(string(address)), in.Hardware) {
			return e.Name(), nil
		}
	}
	return "", &caisson.Error{Kind: caisson.ErrNotFound, Err: errors.New("there is no device of this address")}
}

// setDevice gives a device what it is to have.
func setDevice(name string, in *wire.Interface) error {
	if in.MAC != "" && !strings.EqualFold(in.MAC, in.Hardware) {
		if err := rename(name, in.MAC); err != nil {
			return fmt.Errorf("address %s: %w", in.MAC, err)
		}
	}
	index, err := raise(name, in.MTU)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, text := range in.Addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
		}
		if err := ask(fd, addressMessage(p, index, len(in.Routes) > 0)); err != nil {
			return fmt.Errorf("address %s: %w", p, err)
		}
	}
	for _, r := range in.Routes {
		if err := addRoute(fd, &r, index); err != nil {
			return fmt.Errorf("route to %s: %w", r.To, err)
		}
	}
	for _, text := range in.Gateways {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			return &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
		}
		if err := ask(fd, routeMessage(netip.PrefixFrom(anywhere(ip.Unmap()), 0), ip.Unmap(), index)); err != nil {
			return fmt.Errorf("route by %s: %w", ip, err)
		}
	}
	return nil
}

// addRoute adds a route of IPv4 or IPv6.
func addRoute(fd int, r *wire.Route, index uint32) error {
	to, err := netip.ParsePrefix(r.To)
	if err != nil {
		return &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
	}
	var by netip.Addr
	if r.By != "" {
		if by, err = netip.ParseAddr(r.By); err != nil {
			return &caisson.Error{Kind: caisson.ErrInvalid, Err: err}
		}
	}
	return ask(fd, routeMessage(to.Masked(), by.Unmap(), index))
}

// anywhere is the address of everything, of ip's kind.
func anywhere(ip netip.Addr) netip.Addr {
	if ip.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// rename gives a device another hardware address, which it must be off for.
func rename(name, mac string) error {
	hw, err := hex.DecodeString(strings.ReplaceAll(mac, ":", ""))
	if err != nil || len(hw) != 6 {
		return &caisson.Error{Kind: caisson.ErrInvalid, Err: errors.New("it is none of Ethernet's")}
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return err
	}
	r.SetUint16(r.Uint16() &^ unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return err
	}
	// struct ifreq with a struct sockaddr, which package unix does not know.
	var req [40]byte
	copy(req[:unix.IFNAMSIZ-1], name)
	binary.NativeEndian.PutUint16(req[unix.IFNAMSIZ:], unix.ARPHRD_ETHER)
	copy(req[unix.IFNAMSIZ+2:], hw)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFHWADDR, uintptr(unsafe.Pointer(&req[0]))); errno != 0 {
		return errno
	}
	return nil
}

// raise switches a device on and returns its number.
func raise(name string, mtu int) (index uint32, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	if mtu > 0 {
		r.SetUint32(uint32(mtu))
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFMTU, r); err != nil {
			return 0, fmt.Errorf("mtu %d: %w", mtu, err)
		}
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, r); err != nil {
		return 0, err
	}
	r.SetUint16(r.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	return r.Uint32(), err
}

// A message is one of the kernel's protocol for networks.
type message []byte

func newMessage(kind uint16, body []byte) message {
	m := binary.NativeEndian.AppendUint32(nil, 0)
	m = binary.NativeEndian.AppendUint16(m, kind)
	m = binary.NativeEndian.AppendUint16(m, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	return append(append(m, make([]byte, 8)...), body...)
}

// add appends an attribute, of a size that is a multiple of 4.
func (m message) add(kind uint16, value []byte) message {
	m = binary.NativeEndian.AppendUint16(m, uint16(unix.SizeofRtAttr+len(value)))
	return append(binary.NativeEndian.AppendUint16(m, kind), value...)
}

// addressMessage gives a device an address; bare leaves out the route to its
// network.
func addressMessage(p netip.Prefix, index uint32, bare bool) message {
	ip := p.Addr().AsSlice()
	// struct ifaddrmsg: family, bits, flags, scope, index. An address of IPv6 is
	// used at once, because nobody else in a guest's network has it.
	body := []byte{familyOf(p.Addr()), byte(p.Bits()), 0, unix.RT_SCOPE_UNIVERSE}
	if p.Addr().Is6() {
		body[2] = unix.IFA_F_NODAD
	}
	m := newMessage(unix.RTM_NEWADDR, binary.NativeEndian.AppendUint32(body, index)).add(unix.IFA_LOCAL, ip).add(unix.IFA_ADDRESS, ip)
	if bare && p.Addr().Is4() {
		m = m.add(unix.IFA_FLAGS, binary.NativeEndian.AppendUint32(nil, unix.IFA_F_NOPREFIXROUTE))
	}
	return m
}

// routeMessage makes a route to a network, by a neighbour or, with the zero
// address, on the link itself.
func routeMessage(to netip.Prefix, by netip.Addr, index uint32) message {
	scope := byte(unix.RT_SCOPE_UNIVERSE)
	if !by.IsValid() {
		scope = unix.RT_SCOPE_LINK
	}
	// struct rtmsg: family, bits of destination and source, tos, table, protocol,
	// scope, type, flags.
	body := []byte{familyOf(to.Addr()), byte(to.Bits()), 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0}
	m := newMessage(unix.RTM_NEWROUTE, body)
	if to.Bits() > 0 {
		m = m.add(unix.RTA_DST, to.Addr().AsSlice())
	}
	if by.IsValid() {
		m = m.add(unix.RTA_GATEWAY, by.AsSlice())
	}
	return m.add(unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, index))
}

func familyOf(ip netip.Addr) byte {
	if ip.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// ask sends a message and reads the kernel's answer. What is there already is as
// it should be.
func ask(fd int, m message) error {
	binary.NativeEndian.PutUint32(m, uint32(len(m)))
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, buf, 0)
	switch {
	case err != nil:
		return err
	case n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(buf[4:]) != unix.NLMSG_ERROR:
		return errors.New("the kernel gives no answer")
	}
	errno := syscall.Errno(-int32(binary.NativeEndian.Uint32(buf[unix.SizeofNlMsghdr:])))
	if errno == 0 || errno == unix.EEXIST {
		return nil
	}
	return errno
}

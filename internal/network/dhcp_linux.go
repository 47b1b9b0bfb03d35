package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/dhcp"
)

// A machine with a system of its own may ask for its address by DHCP. Nobody on its
// network is asked: the frames with such questions are dropped by the rules of
// forwarding, because nobody without an address may speak. A socket at the TAP
// device sees them before that, and nothing else of what the guest sends.

// serverMAC is who answers: an address of Ethernet that nobody was given.
var serverMAC = net.HardwareAddr{0x52, 0x55, 0x0a, 0x00, 0x02, 0x02}

// Lease is what a machine is told that asks for its address. It is false where the
// network has none of IPv4.
func (l *Link) Lease(dns *caisson.DNS) (*dhcp.Lease, bool) {
	out := &dhcp.Lease{ServerMAC: serverMAC, MTU: l.MTU}
	for _, text := range l.Addresses {
		if p, err := netip.ParsePrefix(text); err == nil && p.Addr().Is4() {
			out.Address = p
			break
		}
	}
	if !out.Address.IsValid() {
		return nil, false
	}
	for _, r := range l.Routes {
		if !r.By.IsValid() {
			if r.To == out.Address.Masked() {
				continue // it follows from the address
			}
		} else if !out.Server.IsValid() {
			out.Server = r.By
		}
		out.Routes = append(out.Routes, dhcp.Route{To: r.To, By: r.By})
	}
	if !out.Server.IsValid() {
		// Nobody leads out of the network. Whoever has this address is never asked.
		if out.Server = out.Address.Masked().Addr().Next(); out.Server == out.Address.Addr() {
			out.Server = out.Server.Next()
		}
	}
	if dns != nil {
		for _, s := range dns.Servers {
			if addr, err := netip.ParseAddr(s); err == nil {
				out.DNS = append(out.DNS, addr)
			}
		}
		if len(dns.Search) > 0 {
			out.Domain = dns.Search[0]
		}
	}
	return out, true
}

// questions are the frames that a socket for DHCP gets: packets of IPv4 that are
// whole, with UDP for a server's port.
var questions = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jf: 8},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 23},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_UDP, Jf: 6},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 20},
	{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: 0x3fff, Jt: 4},
	{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: 14},
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: 16},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 67, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: maxQuestion},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// maxQuestion is the largest frame that is read, and askRoom how many bytes of them
// wait.
const (
	maxQuestion = 2048
	askRoom     = 64 << 10
)

// OpenDHCP opens the socket at a TAP device of the namespace at path that sees what
// a machine asks.
func OpenDHCP(path, tap string) (f *os.File, err error) {
	err = inNamespace(path, func() error {
		fd, err := dhcpSocket(tap)
		if err != nil {
			return fmt.Errorf("device %s: %w", tap, err)
		}
		f = os.NewFile(uintptr(fd), "dhcp")
		return nil
	})
	return f, err
}

func dhcpSocket(tap string) (_ int, err error) {
	// It sees nothing before it has its filter: without a protocol no frame is its.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	filter := unix.SockFprog{Len: uint16(len(questions)), Filter: &questions[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &filter); err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return -1, err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, askRoom)
	dev, err := net.InterfaceByName(tap)
	if err != nil {
		return -1, err
	}
	// In the network's order of bytes.
	const all = (unix.ETH_P_ALL&0xff)<<8 | unix.ETH_P_ALL>>8
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
}

// AnswerDHCP answers at a socket of OpenDHCP until that is closed.
func AnswerDHCP(f *os.File, l *dhcp.Lease) {
	buf := make([]byte, maxQuestion)
	for {
		n, err := f.Read(buf)
		switch {
		case errors.Is(err, unix.ENETDOWN):
			continue // the device was switched off; it may come back
		case err != nil:
			return
		}
		if answer := l.Answer(buf[:n]); answer != nil {
			// One that is lost is asked for again.
			_, _ = f.Write(answer)
		}
	}
}

package isolate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/thread"
)

// loopback is the one device at which sockets of a sandbox's are reached.
const loopback = "lo"

// backlog is how many connections wait for somebody who serves a socket.
const backlog = 256

// checkSockets refuses sockets that could be reached from elsewhere, or that
// nobody could make.
func checkSockets(spec *Spec) error {
	if len(spec.Sockets) == 0 && !spec.Everything {
		return nil
	}
	if spec.None || spec.HostNetwork {
		return unsupported("gateway", "it needs a network of its own")
	}
	if len(spec.Sockets) > MaxSockets {
		return invalid("gateway", fmt.Sprintf("%d sockets are more than %d", len(spec.Sockets), MaxSockets))
	}
	for i := range spec.Sockets {
		s := &spec.Sockets[i]
		size := len(s.IP)
		if size != 0 && size != 4 && size != 16 || s.Port < 1 || s.Port > 65535 {
			return invalid("gateway", fmt.Sprintf("there is no socket %+v", *s))
		}
	}
	return nil
}

// OpenSockets opens what a sandbox is served at, in the network of the calling
// thread, whose loopback device is up. It needs rights over that network.
// Everything is Spec.Everything; shared says that others open the same sockets
// there. The descriptors, in the order of the list, do not block and are the
// caller's. On error none is left.
func OpenSockets(list []Socket, everything, shared bool) (fds []int, err error) {
	defer func() {
		if err != nil {
			closeAll(fds)
		}
	}()
	showSix()
	if everything {
		if err := ownEverything(); err != nil {
			return nil, &caisson.Error{Item: "gateway", Kind: caisson.ErrUnsupported, Err: err}
		}
	}
	for i := range list {
		fd, err := list[i].open(shared)
		if err != nil {
			return fds, socketError(&list[i], err)
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

// socketError sorts what went wrong.
func socketError(s *Socket, err error) error {
	kind := caisson.ErrUnsupported
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		kind, err = caisson.ErrInvalid, errors.New("another program on this network listens there; have it use another port")
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
		kind = caisson.ErrExhausted
	}
	return &caisson.Error{Item: "gateway", Kind: kind, Err: fmt.Errorf("%s: %w", s, err)}
}

// String returns the socket's place for messages.
func (s *Socket) String() string {
	text := "tcp "
	if s.UDP {
		text = "udp "
	}
	switch len(s.IP) {
	case 4:
		for i, b := range s.IP {
			if i > 0 {
				text += "."
			}
			text += strconv.Itoa(int(b))
		}
		return text + ":" + strconv.Itoa(s.Port)
	case 16:
		return text + fmt.Sprintf("[%x]:%d", s.IP, s.Port)
	}
	return text + "port " + strconv.Itoa(s.Port)
}

// open opens the socket, listening.
func (s *Socket) open(shared bool) (fd int, err error) {
	kind := unix.SOCK_STREAM
	if s.UDP {
		kind = unix.SOCK_DGRAM
	}
	family, addr := s.address()
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err == unix.EAFNOSUPPORT && len(s.IP) == 0 {
		// A kernel without IPv6: nobody can connect by it either.
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: s.Port}
		fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	}
	if err != nil {
		return -1, err
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if family == unix.AF_INET6 {
		only := 1
		if len(s.IP) == 0 {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return -1, err
		}
	}
	if shared {
		// All who share it have to be of one user, which no program in a sandbox is.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return -1, err
		}
	}
	if !s.UDP {
		// Connections of an earlier sandbox may still be on their way out.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, err
		}
	}
	// Whatever other devices there are: nothing that comes in by them is heard.
	if err := unix.BindToDevice(fd, loopback); err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, addr); err != nil {
		return -1, err
	}
	if s.UDP {
		return fd, nil
	}
	return fd, unix.Listen(fd, backlog)
}

// address is where the socket is bound.
func (s *Socket) address() (family int, addr unix.Sockaddr) {
	if len(s.IP) == 4 {
		return unix.AF_INET, &unix.SockaddrInet4{Port: s.Port, Addr: [4]byte(s.IP)}
	}
	six := &unix.SockaddrInet6{Port: s.Port}
	copy(six.Addr[:], s.IP)
	return unix.AF_INET6, six
}

// ownEverything makes every address one of this network's own, which its
// loopback device has: what is sent to anywhere arrives here. There is no packet
// filter to get wrong, and no way out. It can be called again.
func ownEverything() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("routes: %w", err)
	}
	defer unix.Close(fd)
	device, err := loopbackIndex()
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := addRoute(fd, &route{family: unix.AF_INET, device: device}); err != nil {
		return fmt.Errorf("route of IPv4: %w", err)
	}
	switch err := addRoute(fd, &route{family: unix.AF_INET6, device: device}); err {
	case nil, unix.EAFNOSUPPORT, unix.EOPNOTSUPP, unix.EACCES:
		// Without IPv6 here nothing can be sent by it.
		return nil
	default:
		return fmt.Errorf("route of IPv6: %w", err)
	}
}

// showSix switches IPv6 on for the loopback device where it is off, as in
// containers: otherwise there is no ::1 to listen at, and programs would be told
// that there is no way, in place of being refused.
func showSix() {
	const path = "/proc/sys/net/ipv6/conf/" + loopback + "/disable_ipv6"
	// Where it can't be read there is no IPv6; where it can't be written nothing
	// can be sent by it.
	if off, err := os.ReadFile(path); err == nil && len(off) > 0 && off[0] != '0' {
		_ = writeKernel(path, "0")
	}
}

// loopbackIndex returns the number of the loopback device.
func loopbackIndex() (uint32, error) { return deviceIndex(loopback) }

// deviceIndex returns the number of a device.
func deviceIndex(name string) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, r)
	return r.Uint32(), err
}

// A route says where addresses are: the device's own, or, near, those of others
// beside it.
type route struct {
	family byte
	to     []byte // none: every address
	bits   int    // of to that count
	near   bool
	device uint32
}

// addRoute has the kernel take a route among those that are looked at first,
// unless it is there.
func addRoute(fd int, r *route) error {
	const header, body, attribute = unix.SizeofNlMsghdr, unix.SizeofRtMsg, unix.SizeofRtAttr
	native := binary.NativeEndian
	msg := make([]byte, header+body)
	native.PutUint16(msg[4:], unix.RTM_NEWROUTE)
	native.PutUint16(msg[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	head := msg[header:]
	head[0], head[1] = r.family, byte(r.bits)
	head[4] = unix.RT_TABLE_LOCAL
	head[5] = unix.RTPROT_BOOT
	head[6], head[7] = unix.RT_SCOPE_HOST, unix.RTN_LOCAL
	if r.near {
		head[6], head[7] = unix.RT_SCOPE_LINK, unix.RTN_UNICAST
	}
	add := func(kind uint16, value []byte) {
		msg = native.AppendUint16(msg, uint16(attribute+len(value)))
		msg = append(native.AppendUint16(msg, kind), value...)
	}
	add(unix.RTA_OIF, native.AppendUint32(nil, r.device))
	if len(r.to) > 0 {
		add(unix.RTA_DST, r.to)
	}
	native.PutUint32(msg, uint32(len(msg)))
	if err := unix.Sendto(fd, msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	return acknowledged(fd)
}

// acknowledged reads the kernel's answer.
func acknowledged(fd int) error {
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

// joinSockets opens the sockets in a network that is not the sandbox's own, over
// which its init has no rights.
func (b *sandbox) joinSockets(spec *Spec) error {
	if spec.NetNS == "" || len(spec.Sockets) == 0 && !spec.Everything {
		return nil
	}
	return thread.Spend(func() (err error) {
		if err = enterNetwork(spec.NetNS); err != nil {
			return err
		}
		// Who waits at the socket of a sandbox that ends is handed to another one's,
		// where the kernel can do that: Linux 5.14.
		_ = writeKernel("/proc/sys/net/ipv4/tcp_migrate_req", "1")
		b.held, err = OpenSockets(spec.Sockets, spec.Everything, true)
		return err
	})
}

// sockets implements Box.Sockets.
func (b *sandbox) sockets() ([]int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []int
	for _, fd := range b.held {
		again, err := high(fd)
		if err != nil {
			closeAll(list)
			return nil, err
		}
		list = append(list, again)
	}
	return list, nil
}

// shut implements Box.Shut.
func (b *sandbox) shut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fd := range b.held {
		// Whoever accepts connections at a duplicate learns it. Who reads datagrams
		// would be given empty ones.
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && kind == unix.SOCK_STREAM {
			_ = unix.Shutdown(fd, unix.SHUT_RDWR)
		}
		unix.Close(fd)
	}
	b.held = nil
}

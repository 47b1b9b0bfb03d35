package agent

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
)

const (
	// maxConnections is how many connections to one socket are passed on at once. More
	// wait, as they do for a program that is slow to accept.
	maxConnections = 128
	// maxDatagram is the largest that is passed on: what fits into a frame.
	maxDatagram = wire.MaxBody - 64
)

// A gateway is what listens inside for the host.
type gateway struct {
	session *session
	call    *wire.Call
	key     uint32
	files   []*os.File
}

// listen serves wire.OpListen, until the host gives it up.
func (s *session) listen(c *wire.Call) {
	p, err := params[wire.Listen](c)
	if err == nil {
		err = checkSockets(p.Sockets, p.Everything)
	}
	if err == nil && s.machine() && !p.Everything {
		err = ownAddresses(p.Sockets)
	}
	var fds []int
	if err == nil {
		fds, err = isolate.OpenSockets(p.Sockets, p.Everything, false)
	}
	if err != nil {
		_ = c.End(nil, err)
		return
	}
	g := &gateway{session: s, call: c, key: p.Key}
	for _, fd := range fds {
		g.files = append(g.files, os.NewFile(uintptr(fd), "gateway"))
	}
	c.Datagrams(g.reply)
	for i := range p.Sockets {
		if p.Sockets[i].UDP {
			go g.receive(i)
		} else {
			go g.accept(i)
		}
	}
	// Whoever connects from here on waits until the host knows.
	if c.Note(nil) == nil {
		<-c.Over()
	}
	closeFiles(g.files)
}

// checkSockets refuses what would be answered from another address than it was
// sent to. Where every address is local, who sends to one has that address itself.
func checkSockets(list []isolate.Socket, everything bool) error {
	for i := range list {
		s := &list[i]
		if s.Port < 1 || s.Port > 65535 || len(s.IP) != 0 && len(s.IP) != 4 && len(s.IP) != 16 {
			return &caisson.Error{Item: "gateway", Kind: caisson.ErrInvalid, Err: errors.New("there is no socket " + s.String())}
		}
		if s.UDP && len(s.IP) == 0 && !everything {
			return &caisson.Error{Item: "gateway", Kind: caisson.ErrUnsupported, Err: errors.New("datagrams to every address")}
		}
	}
	return nil
}

// ownAddresses has the machine have the addresses of sockets itself: nobody else does
// in its network, or is to be reached by them.
func ownAddresses(list []isolate.Socket) error {
	for i := range list {
		ip, ok := netip.AddrFromSlice(list[i].IP)
		if !ok || ip.IsLoopback() || ip.IsUnspecified() {
			continue
		}
		prefix := netip.PrefixFrom(ip, ip.BitLen()).String()
		if err := setDevice("lo", &wire.Interface{Addresses: []string{prefix}}); err != nil {
			return &caisson.Error{Item: "gateway", Kind: caisson.ErrUnsupported, Err: err}
		}
	}
	return nil
}

// accept passes on the connections to one socket.
func (g *gateway) accept(index int) {
	room := make(chan struct{}, maxConnections)
	for {
		select {
		case room <- struct{}{}:
		case <-g.call.Over():
			return
		}
		conn, remote, err := acceptOne(g.files[index])
		if errors.Is(err, unix.ECONNABORTED) {
			<-room
			continue
		}
		if err != nil {
			return
		}
		go func() {
			defer func() { <-room }()
			g.pass(conn, &wire.Accepted{Key: g.key, Socket: index, Local: nameOf(conn), Remote: remote})
		}()
	}
}

// acceptOne waits for a connection.
func acceptOne(listener *os.File) (conn *os.File, remote string, err error) {
	raw, err := listener.SyscallConn()
	if err != nil {
		return nil, "", err
	}
	var fd int
	var from unix.Sockaddr
	waited := raw.Read(func(l uintptr) bool {
		fd, from, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return err != unix.EAGAIN && err != unix.EINTR
	})
	if err = errors.Join(waited, err); err != nil {
		return nil, "", err
	}
	return os.NewFile(uintptr(fd), "connection"), text(from), nil
}

// nameOf returns the address that a connection was meant for.
func nameOf(conn *os.File) (name string) {
	_ = onSocket(conn, func(fd int) error {
		at, err := unix.Getsockname(fd)
		name = text(at)
		return err
	})
	return name
}

// onSocket calls f with the socket's descriptor.
func onSocket(conn *os.File, f func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	return errors.Join(raw.Control(func(fd uintptr) { inner = f(int(fd)) }), inner)
}

// text returns an address as IP:PORT.
func text(a unix.Sockaddr) string {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port)).String()
	}
	return ""
}

// pass carries a connection, until either side has had enough.
func (g *gateway) pass(conn *os.File, a *wire.Accepted) {
	defer conn.Close()
	c, err := g.session.mux.Call(context.Background(), wire.OpAccept, a)
	if err != nil {
		return
	}
	defer c.Cancel()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if _, err := io.Copy(c.Out[0], conn); err != nil && !errors.Is(err, wire.ErrStopped) {
			// A reset is not an end.
			c.Cancel()
		}
		_ = c.Out[0].Close()
		c.Out[0].Drained(c)
	}()
	received := make(chan struct{})
	go func() {
		defer close(received)
		if _, err := io.Copy(conn, c.In[1]); err != nil {
			_ = c.In[1].Close()
			return
		}
		_ = onSocket(conn, func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
	}()
	select {
	case <-c.Over():
		// What the host wrote before its end still arrives.
		<-received
	case <-sent:
		select {
		case <-received:
		case <-c.Over():
			<-received
		}
	}
}

// receive passes on the datagrams to one socket.
func (g *gateway) receive(index int) {
	raw, err := g.files[index].SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, maxDatagram+1)
	for {
		var n int
		var from unix.Sockaddr
		var err error
		waited := raw.Read(func(fd uintptr) bool {
			n, from, err = unix.Recvfrom(int(fd), buf, 0)
			return err != unix.EAGAIN && err != unix.EINTR
		})
		if waited != nil {
			return
		}
		if err != nil || n > maxDatagram {
			continue
		}
		d := wire.Datagram{Socket: index, Peer: addrOf(from), Data: buf[:n]}
		g.call.Datagram(d.Append(nil))
	}
}

// reply sends what the host has to say to somebody.
func (g *gateway) reply(body []byte) {
	d, err := wire.ParseDatagram(body)
	if err != nil || d.Socket >= len(g.files) {
		return
	}
	_ = onSocket(g.files[d.Socket], func(fd int) error {
		to := sockaddrOf(fd, d.Peer)
		if to == nil {
			return unix.EAFNOSUPPORT
		}
		return unix.Sendto(fd, d.Data, unix.MSG_DONTWAIT, to)
	})
}

func addrOf(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// sockaddrOf returns an address for a socket, in the socket's own family; nil where
// there is none.
func sockaddrOf(fd int, a netip.AddrPort) unix.Sockaddr {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || !a.IsValid() || family == unix.AF_INET && !a.Addr().Unmap().Is4() {
		return nil
	}
	if family == unix.AF_INET {
		return &unix.SockaddrInet4{Addr: a.Addr().Unmap().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

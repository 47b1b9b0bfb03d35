package kept

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/thread"
)

// tryPort is that of AddTrial's socket for every address.
const tryPort = 443

// TryGateway connects, in the network of a sandbox with AddTrial's gateway, to
// addresses that are elsewhere, and looks whether it arrives here. It is for
// sandboxes without a shell whose network can be entered from outside.
func TryGateway(ctx context.Context, sb engine.Sandbox) error {
	s := base(sb)
	ns, err := s.NetworkNamespace(ctx)
	if err != nil {
		return err
	}
	sockets, err := gated{s}.Sockets(ctx)
	if err != nil {
		return err
	}
	for i := range sockets {
		defer sockets[i].Close()
	}
	// Addresses that are documented to be nobody's.
	for _, text := range []string{"192.0.2.1", "2001:db8::1"} {
		to := netip.AddrPortFrom(netip.MustParseAddr(text), tryPort)
		fd, err := connectIn(ns, to)
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENETUNREACH) && to.Addr().Is6() {
			continue // there is no IPv6
		}
		if err != nil {
			return fmt.Errorf("connect to %s in a sandbox: %w", to, err)
		}
		err = arrives(sockets[len(sockets)-1].Listener, to)
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("a connection to %s in a sandbox: %w", to, err)
		}
	}
	return nil
}

// connectIn connects a socket in a network namespace.
func connectIn(ns string, to netip.AddrPort) (fd int, err error) {
	family, addr := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()})
	if to.Addr().Is4() {
		family, addr = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	err = thread.Spend(func() (err error) {
		name, err := unix.Open(ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(name)
		if err := unix.Setns(name, unix.CLONE_NEWNET); err != nil {
			return err
		}
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return -1, err
	}
	// Bounds connect as well.
	patience := unix.NsecToTimeval(int64(arriveTime))
	if err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience); err == nil {
		err = unix.Connect(fd, addr)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// arriveTime is how long a connection may take that goes nowhere.
const arriveTime = 5 * time.Second

// arrives takes a connection, which must be meant for an address.
func arrives(l net.Listener, to netip.AddrPort) error {
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("caisson: bug: a listener is a %T", l)
	}
	if err := tcp.SetDeadline(time.Now().Add(arriveTime)); err != nil {
		return err
	}
	c, err := tcp.AcceptTCP()
	if err != nil {
		return err
	}
	defer c.Close()
	at, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return err
	}
	if got := netip.AddrPortFrom(at.Addr().Unmap(), at.Port()); got != to {
		return fmt.Errorf("it arrives as one to %s", got)
	}
	return nil
}

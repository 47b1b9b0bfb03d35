package usernet

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/caissonrun/caisson/internal/network"
)

// namePort is where names are asked for.
const namePort = 53

// Near reports whether an address is not of the outside: it is the host's own, or
// private, or of no single machine.
func Near(addr netip.Addr) bool {
	if !addr.Is4() || network.Near(addr) {
		return true
	}
	// The host may get addresses at any time.
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true
	}
	return slices.ContainsFunc(own, func(a net.Addr) bool {
		p, err := netip.ParsePrefix(a.String())
		return err == nil && p.Addr().Unmap() == addr
	})
}

// target returns where a connection to an address leads to, and false if it is
// refused. What is near is, but for servers of names.
func (n *Network) target(to netip.AddrPort) (netip.AddrPort, bool) {
	if to.Port() == namePort && len(n.opts.Servers) > 0 {
		if to.Addr() == Resolver {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.asked++
			return n.opts.Servers[n.asked%len(n.opts.Servers)], true
		}
		if slices.Contains(n.opts.Servers, to) && !to.Addr().IsLoopback() {
			return to, true
		}
	}
	return to, to.Port() != 0 && !n.opts.Near(to.Addr())
}

// meant is the address that something of the guest's was sent to.
func meant(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4(id.LocalAddress.As4()), id.LocalPort)
}

// connect connects the guest to the outside. It is told that a connection is there
// once it is.
func (n *Network) connect(r *tcp.ForwarderRequest) {
	to, ok := n.target(meant(r.ID()))
	if !ok || !n.begin(&n.tcp, maxTCP) {
		r.Complete(true)
		return
	}
	defer n.end(&n.tcp)
	ctx, cancel := context.WithTimeout(n.ctx, dialTime)
	outside, err := n.opts.Dial(ctx, "tcp4", to.String())
	cancel()
	if err != nil {
		r.Complete(true)
		return
	}
	if !n.keep(outside) {
		r.Complete(true)
		return
	}
	defer n.drop(outside)
	var wq waiter.Queue
	ep, failure := r.CreateEndpoint(&wq)
	r.Complete(failure != nil)
	if failure != nil {
		return
	}
	inside := gonet.NewTCPConn(&wq, ep)
	if n.keep(inside) {
		defer n.drop(inside)
		relay(inside, outside)
	}
}

// A halfCloser can say that nothing more comes.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// relay passes on what both say until both have said all, or one is gone.
func relay(a, b net.Conn) {
	var both sync.WaitGroup
	pass := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(halfCloser); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			// Whoever still waits for the other one waits in vain.
			_ = a.SetDeadline(time.Unix(1, 0))
			_ = b.SetDeadline(time.Unix(1, 0))
		}
	}
	both.Go(func() { pass(a, b) })
	pass(b, a)
	both.Wait()
}

// converse passes on datagrams between the guest and one address outside.
func (n *Network) converse(r *udp.ForwarderRequest) bool {
	asked := meant(r.ID())
	to, ok := n.target(asked)
	if !ok {
		return false // the guest is told that nobody is there
	}
	if !n.begin(&n.udp, maxUDP) {
		return true
	}
	var wq waiter.Queue
	ep, failure := r.CreateEndpoint(&wq)
	if failure != nil {
		n.end(&n.udp)
		return true
	}
	go func() {
		defer n.end(&n.udp)
		inside := gonet.NewUDPConn(&wq, ep)
		if !n.keep(inside) {
			return
		}
		defer n.drop(inside)
		outside, err := n.opts.Dial(n.ctx, "udp4", to.String())
		if err != nil || !n.keep(outside) {
			return
		}
		defer n.drop(outside)
		idle := idleTime
		if asked.Port() == namePort {
			idle = nameTime
		}
		exchange(inside, outside, idle)
	}()
	return true
}

// maxDatagram is the largest that is passed on.
const maxDatagram = 64 << 10

// exchange passes datagrams on until none has come for a while.
func exchange(a, b net.Conn, idle time.Duration) {
	var both sync.WaitGroup
	extend := func() {
		end := time.Now().Add(idle)
		_ = a.SetReadDeadline(end)
		_ = b.SetReadDeadline(end)
	}
	pass := func(to, from net.Conn) {
		buf := make([]byte, maxDatagram)
		for {
			size, err := from.Read(buf)
			if err != nil {
				break
			}
			extend()
			// One that can't be sent is lost, as datagrams are.
			_, _ = to.Write(buf[:size])
		}
		_ = a.SetReadDeadline(time.Unix(1, 0))
		_ = b.SetReadDeadline(time.Unix(1, 0))
	}
	extend()
	both.Go(func() { pass(a, b) })
	pass(b, a)
	both.Wait()
}

// fullGuest is a port of the guest's.
func fullGuest(port int) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(Guest.Addr().As4()), Port: uint16(port)}
}

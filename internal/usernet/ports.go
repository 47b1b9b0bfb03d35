package usernet

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"

	"github.com/caissonrun/caisson"
)

// publish listens at a port of the host for the guest.
func (n *Network) publish(p caisson.Port) error {
	at := net.JoinHostPort(p.HostIP, strconv.Itoa(p.HostPort))
	if p.Protocol == "udp" {
		conn, err := net.ListenPacket("udp", at)
		if err != nil {
			return portError(at, err)
		}
		return n.serve(conn, func() { n.datagrams(conn, p.Port) })
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return portError(at, err)
	}
	return n.serve(l, func() { n.accept(l, p.Port) })
}

// serve has f see to a socket that Close ends.
func (n *Network) serve(c interface{ Close() error }, f func()) error {
	if n.keep(c) {
		n.wg.Go(func() {
			defer n.drop(c)
			f()
		})
	}
	return nil
}

func portError(at string, err error) error {
	kind := caisson.ErrUnavailable
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		kind = caisson.ErrExists
	case errors.Is(err, fs.ErrPermission):
		kind = caisson.ErrDenied
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return &caisson.Error{Op: caisson.OpCreate, Item: fmt.Sprintf("port %s", at), Kind: kind, Err: err}
}

// retryTime is how long a socket that could not accept is left alone.
const retryTime = 100 * time.Millisecond

// accept connects those that come to a port of the guest's.
func (n *Network) accept(l net.Listener, port int) {
	for {
		outside, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-n.ctx.Done():
				return
			case <-time.After(retryTime):
			}
			continue
		}
		if !n.begin(&n.tcp, maxTCP) {
			outside.Close()
			continue
		}
		go func() {
			defer n.end(&n.tcp)
			n.enter(outside, port)
		}()
	}
}

// enter connects one of the host's to a port of the guest's.
func (n *Network) enter(outside net.Conn, port int) {
	if !n.keep(outside) {
		return
	}
	defer n.drop(outside)
	ctx, cancel := context.WithTimeout(n.ctx, guestTime)
	inside, err := gonet.DialContextTCP(ctx, n.stack, fullGuest(port), ipv4.ProtocolNumber)
	cancel()
	if err != nil {
		return
	}
	if n.keep(inside) {
		defer n.drop(inside)
		relay(inside, outside)
	}
}

// waiting is how many datagrams of one peer may wait.
const waiting = 32

// datagrams passes on those that come to a port, with a conversation for each who
// sends.
func (n *Network) datagrams(conn net.PacketConn, port int) {
	var mu sync.Mutex
	peers := map[netip.AddrPort]chan []byte{}
	buf := make([]byte, maxDatagram)
	for {
		size, from, err := conn.ReadFrom(buf)
		if err != nil {
			if errors.Is(err, net.ErrClosed) || n.ctx.Err() != nil {
				return
			}
			continue
		}
		addr := from.(*net.UDPAddr).AddrPort()
		data := append([]byte(nil), buf[:size]...)
		mu.Lock()
		in := peers[addr]
		mu.Unlock()
		if in == nil {
			if !n.begin(&n.udp, maxUDP) {
				continue
			}
			in = make(chan []byte, waiting)
			mu.Lock()
			peers[addr] = in
			mu.Unlock()
			go func() {
				defer n.end(&n.udp)
				n.talk(conn, addr, in, port)
				mu.Lock()
				delete(peers, addr)
				mu.Unlock()
			}()
		}
		select {
		case in <- data:
		default: // lost, as datagrams are
		}
	}
}

// talk passes datagrams of one peer to the guest and back.
func (n *Network) talk(conn net.PacketConn, addr netip.AddrPort, in <-chan []byte, port int) {
	to := fullGuest(port)
	inside, err := gonet.DialUDP(n.stack, nil, &to, ipv4.ProtocolNumber)
	if err != nil || !n.keep(inside) {
		return
	}
	defer n.drop(inside)
	back := make(chan struct{})
	n.wg.Go(func() {
		defer close(back)
		buf := make([]byte, maxDatagram)
		for {
			_ = inside.SetReadDeadline(time.Now().Add(idleTime))
			size, err := inside.Read(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(buf[:size], net.UDPAddrFromAddrPort(addr))
		}
	})
	for {
		select {
		case data := <-in:
			_ = inside.SetReadDeadline(time.Now().Add(idleTime))
			_, _ = inside.Write(data)
		case <-back:
			return
		}
	}
}

//go:build unix

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
)

const (
	// maxWaiting is how many connections wait to be accepted at one socket.
	maxWaiting = 128
	// maxDatagrams is how many datagrams wait. More are lost, as they may be.
	maxDatagrams = 64
	// maxDatagram is the largest that can be sent.
	maxDatagram = wire.MaxBody - 64
)

// A Gateway is sockets inside of the guest that this process serves: isolate's
// Spec.Sockets and Spec.Everything, without a network between.
type Gateway struct {
	client  *Client
	key     uint32
	call    *wire.Call
	sockets []isolate.Socket
	conns   []chan net.Conn // by socket; nil for UDP
	packets []chan packet   // by socket; nil for TCP
	closed  chan struct{}
	once    sync.Once
}

type packet struct {
	from netip.AddrPort
	data []byte
}

// Listen opens sockets in the guest, in its only network. Those for datagrams have
// an address. They are there until Close, or the session's end.
//
// Errors: ErrInvalid if another program listens there; ErrUnsupported if the guest
// can't do it.
func (c *Client) Listen(ctx context.Context, sockets []isolate.Socket, everything bool) (*Gateway, error) {
	g := &Gateway{
		client: c, sockets: sockets, closed: make(chan struct{}),
		conns: make([]chan net.Conn, len(sockets)), packets: make([]chan packet, len(sockets)),
	}
	for i := range sockets {
		if sockets[i].UDP {
			g.packets[i] = make(chan packet, maxDatagrams)
		} else {
			g.conns[i] = make(chan net.Conn, maxWaiting)
		}
	}
	c.mu.Lock()
	c.nextKey++
	g.key = c.nextKey
	c.gateways[g.key] = g
	c.mu.Unlock()
	prepared, err := c.mux.Prepare(wire.OpListen, &wire.Listen{Key: g.key, Sockets: sockets, Everything: everything})
	if err != nil {
		g.Close()
		return nil, c.sorted(caisson.OpCreate, err)
	}
	prepared.Datagrams(g.received)
	g.call, err = prepared.Make(ctx)
	if err == nil {
		_, _, err = g.call.Next(ctx)
	}
	if err != nil {
		g.Close()
		return nil, c.sorted(caisson.OpCreate, err)
	}
	return g, nil
}

// Close closes the sockets. Connections stay. It may be called again.
func (g *Gateway) Close() error {
	g.once.Do(func() {
		g.client.mu.Lock()
		delete(g.client.gateways, g.key)
		g.client.mu.Unlock()
		close(g.closed)
		if g.call != nil {
			g.call.Cancel()
		}
		for _, waiting := range g.conns {
			discard(waiting)
		}
	})
	return nil
}

// discard closes connections that nobody will accept.
func discard(waiting chan net.Conn) {
	for {
		select {
		case conn := <-waiting:
			if conn == nil {
				return
			}
			conn.Close()
		default:
			return
		}
	}
}

// Listener returns what accepts the connections to a TCP socket, by its place in the
// list. Each has the address as its local one that it was meant for. Closing it
// leaves the socket as it is.
func (g *Gateway) Listener(index int) net.Listener {
	return &listener{g: g, index: index, closed: make(chan struct{})}
}

// Packets returns a UDP socket, by its place in the list. Closing it leaves the
// socket as it is.
func (g *Gateway) Packets(index int) net.PacketConn {
	p := &packetConn{g: g, index: index, closed: make(chan struct{})}
	p.deadline.changed = make(chan struct{})
	return p
}

// serve begins to serve a call of the agent's: a connection. It does not wait.
func (c *Client) serve(call *wire.Call) {
	conn, g, err := c.accepted(call)
	if err != nil {
		_ = call.Refuse(err)
		return
	}
	waiting := g.conns[conn.socket]
	select {
	case <-g.closed:
		_ = call.Refuse(net.ErrClosed)
		return
	default:
	}
	select {
	case waiting <- conn:
	default:
		_ = call.Refuse(errors.New("too many connections wait"))
	}
	select {
	case <-g.closed:
		discard(waiting)
	default:
	}
}

// accepted checks what the agent says about a connection.
func (c *Client) accepted(call *wire.Call) (*conn, *Gateway, error) {
	if call.Request.Op != wire.OpAccept {
		return nil, nil, errors.New("the host serves nothing but connections")
	}
	var a wire.Accepted
	if err := json.Unmarshal(call.Request.Params, &a); err != nil {
		return nil, nil, err
	}
	// A connection lasts, and what the agent has said about it may be long.
	call.Request.Params = nil
	c.mu.Lock()
	g := c.gateways[a.Key]
	c.mu.Unlock()
	if g == nil || a.Socket < 0 || a.Socket >= len(g.conns) || g.conns[a.Socket] == nil {
		return nil, nil, errors.New("nobody listens there")
	}
	local, err := netip.ParseAddrPort(a.Local)
	if err != nil {
		return nil, nil, errors.New("no address that it was meant for")
	}
	remote, err := netip.ParseAddrPort(a.Remote)
	if err != nil {
		return nil, nil, errors.New("no address that it is from")
	}
	return &conn{
		client: c, call: call, socket: a.Socket,
		local: net.TCPAddrFromAddrPort(bare(local)), remote: net.TCPAddrFromAddrPort(bare(remote)),
	}, g, nil
}

// bare takes away from an address what only a machine's own processes understand.
func bare(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

// addr returns a socket's address.
func (g *Gateway) addr(index int) netip.AddrPort {
	s := &g.sockets[index]
	ip, ok := netip.AddrFromSlice(s.IP)
	if !ok {
		ip = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(ip, uint16(s.Port))
}

// A listener is a socket for connections.
type listener struct {
	g      *Gateway
	index  int
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, l.failed(net.ErrClosed)
	default:
	}
	select {
	case conn := <-l.g.conns[l.index]:
		return conn, nil
	case <-l.closed:
	case <-l.g.closed:
	case <-l.g.call.Over():
		if err := l.g.client.Err(); err != nil {
			return nil, l.failed(err)
		}
	}
	return nil, l.failed(net.ErrClosed)
}

func (l *listener) failed(err error) error {
	return &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: err}
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.g.addr(l.index)) }

// A conn is a connection from inside.
type conn struct {
	client        *Client
	call          *wire.Call
	socket        int
	local, remote net.Addr
	once          sync.Once
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.call.In[0].Read(p)
	if errors.Is(err, wire.ErrEnded) {
		err = &net.OpError{Op: "read", Net: "tcp", Addr: c.remote, Err: errors.New("connection reset by the guest")}
	}
	return n, err
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.call.Out[1].Write(p)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		err = &net.OpError{Op: "write", Net: "tcp", Addr: c.remote, Err: err}
	}
	return n, err
}

// CloseWrite ends what is written, as for a TCP connection.
func (c *conn) CloseWrite() error { return c.call.Out[1].Close() }

// Close implements net.Conn. What was written still arrives.
func (c *conn) Close() error {
	c.once.Do(func() {
		_ = c.call.In[0].Close()
		_ = c.call.Out[1].Close()
		_ = c.client.mux.Go(func() {
			c.call.Out[1].Drained(c.call)
			_ = c.call.End(nil, nil)
		})
	})
	return nil
}

// LocalAddr implements net.Conn: the address that the connection was meant for.
func (c *conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.call.In[0].SetDeadline(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.call.Out[1].SetDeadline(t)
	return nil
}

// received takes a datagram.
func (g *Gateway) received(body []byte) {
	d, err := wire.ParseDatagram(body)
	if err != nil || d.Socket >= len(g.packets) || g.packets[d.Socket] == nil {
		return
	}
	select {
	case g.packets[d.Socket] <- packet{from: d.Peer, data: append([]byte(nil), d.Data...)}:
	default:
	}
}

// A packetConn is a socket for datagrams.
type packetConn struct {
	g        *Gateway
	index    int
	closed   chan struct{}
	once     sync.Once
	deadline deadline
}

// ReadFrom implements net.PacketConn.
func (p *packetConn) ReadFrom(buf []byte) (int, net.Addr, error) {
	for {
		late, changed, stop := p.deadline.wait()
		select {
		case d := <-p.g.packets[p.index]:
			stop()
			return copy(buf, d.data), net.UDPAddrFromAddrPort(d.from), nil
		case <-late:
			return 0, nil, os.ErrDeadlineExceeded
		case <-changed:
			stop()
			continue
		case <-p.closed:
		case <-p.g.closed:
		case <-p.g.call.Over():
		}
		stop()
		return 0, nil, &net.OpError{Op: "read", Net: "udp", Addr: p.LocalAddr(), Err: net.ErrClosed}
	}
}

// WriteTo implements net.PacketConn. A datagram may be lost.
func (p *packetConn) WriteTo(data []byte, to net.Addr) (int, error) {
	peer, ok := to.(*net.UDPAddr)
	if !ok || len(data) > maxDatagram {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: os.ErrInvalid}
	}
	select {
	case <-p.closed:
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: to, Err: net.ErrClosed}
	default:
	}
	d := wire.Datagram{Socket: p.index, Peer: peer.AddrPort(), Data: data}
	p.g.call.Datagram(d.Append(nil))
	return len(data), nil
}

// Close implements net.PacketConn.
func (p *packetConn) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// LocalAddr implements net.PacketConn.
func (p *packetConn) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.g.addr(p.index)) }

// SetDeadline implements net.PacketConn.
func (p *packetConn) SetDeadline(t time.Time) error { return p.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (p *packetConn) SetReadDeadline(t time.Time) error {
	p.deadline.set(t)
	return nil
}

// SetWriteDeadline implements net.PacketConn: writing never waits.
func (p *packetConn) SetWriteDeadline(time.Time) error { return nil }

// A deadline is when reading ends.
type deadline struct {
	mu      sync.Mutex
	at      time.Time
	changed chan struct{}
}

func (d *deadline) set(t time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = t
	close(d.changed)
	d.changed = make(chan struct{})
}

// wait returns what tells that the deadline is over, or has been changed.
func (d *deadline) wait() (late <-chan time.Time, changed <-chan struct{}, stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return nil, d.changed, func() {}
	}
	t := time.NewTimer(time.Until(d.at))
	return t.C, d.changed, func() { t.Stop() }
}

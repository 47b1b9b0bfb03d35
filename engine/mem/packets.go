package mem

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A packet is on its way to a UDP socket of a gateway.
type packet struct {
	data []byte
	from *peer
}

// A reader is what both ends of UDP have: packets that come, a deadline, and
// an end.
type reader struct {
	mu       sync.Mutex
	deadline time.Time
	changed  chan struct{} // closed and made anew with the deadline
	closed   chan struct{}
	once     sync.Once
}

func newReader() *reader { return &reader{changed: make(chan struct{}), closed: make(chan struct{})} }

// next returns the next of what comes.
func next[P any](r *reader, come <-chan P, over <-chan struct{}) (p P, err error) {
	for {
		r.mu.Lock()
		deadline, changed := r.deadline, r.changed
		r.mu.Unlock()
		var late <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			late = timer.C
		}
		select {
		case p = <-come:
			return p, nil
		case <-r.closed:
			return p, net.ErrClosed
		case <-over:
			return p, net.ErrClosed
		case <-late:
			return p, os.ErrDeadlineExceeded
		case <-changed:
		}
	}
}

// Close ends whoever reads.
func (r *reader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

// SetReadDeadline wakes whoever reads.
func (r *reader) SetReadDeadline(t time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deadline = t
	close(r.changed)
	r.changed = make(chan struct{})
	return nil
}

// SetDeadline is SetReadDeadline: writing never waits.
func (r *reader) SetDeadline(t time.Time) error { return r.SetReadDeadline(t) }

// SetWriteDeadline does nothing: writing never waits.
func (r *reader) SetWriteDeadline(time.Time) error { return nil }

// packets are a caller's hold of a UDP socket.
type packets struct {
	*reader
	socket *socket
	mu     sync.Mutex
	peers  map[string]*peer // by address, for answers
}

func newPackets(s *socket) *packets {
	return &packets{reader: newReader(), socket: s, peers: make(map[string]*peer)}
}

// ReadFrom implements net.PacketConn.
func (c *packets) ReadFrom(data []byte) (int, net.Addr, error) {
	p, err := next(c.reader, c.socket.packets, c.socket.over)
	if err != nil {
		return 0, nil, err
	}
	from := p.from.LocalAddr()
	c.mu.Lock()
	c.peers[from.String()] = p.from
	c.mu.Unlock()
	return copy(data, p.data), from, nil
}

// WriteTo implements net.PacketConn.
func (c *packets) WriteTo(data []byte, to net.Addr) (int, error) {
	c.mu.Lock()
	p := c.peers[to.String()]
	c.mu.Unlock()
	if p == nil {
		return 0, syscall.ENETUNREACH
	}
	select {
	case p.answers <- slices.Clone(data):
	default: // lost, as packets may be
	}
	return len(data), nil
}

// LocalAddr implements net.PacketConn.
func (c *packets) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(c.socket.at) }

// A peer is a program's end of UDP.
type peer struct {
	*reader
	socket  *socket
	at, to  netip.AddrPort
	answers chan []byte
}

// newPeer returns a program's end, which is closed with ctx.
func newPeer(ctx context.Context, s *socket, from, to netip.AddrPort) *peer {
	p := &peer{reader: newReader(), socket: s, at: from, to: to, answers: make(chan []byte, backlog)}
	context.AfterFunc(ctx, func() { p.Close() })
	return p
}

// Read implements net.Conn.
func (p *peer) Read(data []byte) (int, error) {
	answer, err := next(p.reader, p.answers, p.socket.over)
	return copy(data, answer), err
}

// Write implements net.Conn.
func (p *peer) Write(data []byte) (int, error) {
	select {
	case p.socket.packets <- packet{slices.Clone(data), p}:
	default: // lost, as packets may be
	}
	return len(data), nil
}

// ReadFrom implements net.PacketConn.
func (p *peer) ReadFrom(data []byte) (int, net.Addr, error) {
	n, err := p.Read(data)
	return n, p.RemoteAddr(), err
}

// WriteTo implements net.PacketConn.
func (p *peer) WriteTo(data []byte, _ net.Addr) (int, error) { return p.Write(data) }

// LocalAddr implements net.Conn.
func (p *peer) LocalAddr() net.Addr { return net.UDPAddrFromAddrPort(p.at) }

// RemoteAddr implements net.Conn.
func (p *peer) RemoteAddr() net.Addr { return net.UDPAddrFromAddrPort(p.to) }

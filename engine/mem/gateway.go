package mem

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

var _ engine.Gatekeeper = (*Sandbox)(nil)

// backlog is how many connections wait at a socket that nobody serves.
const backlog = 128

// A socket is one of a gateway: where connections of programs wait for whoever
// serves it.
type socket struct {
	engine.Socket
	at      netip.AddrPort
	calls   chan net.Conn // of tcp
	packets chan packet   // of udp
	over    chan struct{} // closed when the last sandbox that has it is gone
	holders int           // sandboxes that have it; guarded by lan.mu
}

// openGateway puts the sockets that its spec asks for on the box's network. On
// a shared one they are those of the sandboxes before, where these are there.
func (b *box) openGateway() {
	g := b.spec.Gateway
	if g == nil {
		return
	}
	b.lan.mu.Lock()
	defer b.lan.mu.Unlock()
	b.lan.everything = b.lan.everything || g.Everything
	if b.lan.sockets == nil {
		b.lan.sockets = make(map[engine.Socket]*socket)
	}
	for _, want := range g.Sockets {
		s := b.lan.sockets[want]
		if s == nil {
			s = &socket{
				Socket: want, at: netip.MustParseAddrPort(want.Address), over: make(chan struct{}),
				calls: make(chan net.Conn, backlog), packets: make(chan packet, backlog),
			}
			b.lan.sockets[want] = s
		}
		s.holders++
		b.sockets = append(b.sockets, s)
	}
}

// closeGateway takes the box's hold of its sockets away.
func (b *box) closeGateway() {
	if b.lan == nil {
		return
	}
	b.lan.mu.Lock()
	defer b.lan.mu.Unlock()
	for _, s := range b.sockets {
		if s.holders--; s.holders > 0 {
			continue
		}
		close(s.over)
		delete(b.lan.sockets, s.Socket)
		for len(s.calls) > 0 {
			(<-s.calls).Close()
		}
	}
	b.sockets = nil
}

// gatewayFiles returns what the sandbox's /etc has of its gateway.
func gatewayFiles(g *engine.Gateway) map[string]string {
	if g == nil {
		return nil
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for _, name := range slices.Sorted(maps.Keys(g.Names)) {
		hosts += fmt.Sprintf("%s %s\n", g.Names[name], name)
	}
	files := map[string]string{"hosts": hosts}
	if g.Resolver != "" {
		files["resolv.conf"] = fmt.Sprintf("nameserver %s\n", g.Resolver)
	}
	return files
}

// Sockets implements engine.Gatekeeper.
func (s *Sandbox) Sockets(ctx context.Context) ([]engine.OpenSocket, error) {
	if err := s.engine.enter(ctx, caisson.OpExec, s.box); err != nil {
		return nil, err
	}
	if f := s.engine.features(); !f.Gateway {
		return nil, failure(caisson.OpExec, s.box, caisson.ErrUnsupported, "this engine has no gateways")
	}
	s.box.mu.Lock()
	defer s.box.mu.Unlock()
	switch {
	case s.box.destroyed || s.box.aborted():
		return nil, s.box.gone(caisson.OpExec)
	case s.box.ended:
		return nil, failure(caisson.OpExec, s.box, caisson.ErrEnded, "the program has ended")
	}
	open := make([]engine.OpenSocket, 0, len(s.box.sockets))
	for _, socket := range s.box.sockets {
		o := engine.OpenSocket{Socket: socket.Socket}
		if socket.Network == "udp" {
			o.Packets = newPackets(socket)
		} else {
			o.Listener = &gateListener{socket: socket, closed: make(chan struct{})}
		}
		open = append(open, o)
	}
	return open, nil
}

// A gateListener is a caller's hold of a TCP socket.
type gateListener struct {
	socket *socket
	closed chan struct{}
	once   sync.Once
}

// Accept implements net.Listener.
func (l *gateListener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.socket.calls:
		return c, nil
	case <-l.closed:
	case <-l.socket.over:
	}
	return nil, net.ErrClosed
}

// Close implements net.Listener.
func (l *gateListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *gateListener) Addr() net.Addr { return net.TCPAddrFromAddrPort(l.socket.at) }

// socketFor returns the socket at which a connection arrives: the one of that
// very address, or the one for all.
func (l *lan) socketFor(network string, to netip.AddrPort) *socket {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, at := range []netip.AddrPort{to, netip.AddrPortFrom(netip.IPv6Unspecified(), to.Port())} {
		for _, s := range l.sockets {
			if s.Network == network && s.at == at {
				return s
			}
		}
	}
	return nil
}

// reaches reports whether an address is one of the network's own.
func (l *lan) reaches(ip netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ip.IsLoopback() || l.everything
}

// callGateway connects p to a socket of the gateway. Without one at that
// address there is none and no error.
func (p *Proc) callGateway(network string, to netip.AddrPort) (net.Conn, error) {
	s := p.box.lan.socketFor(network, to)
	if s == nil {
		return nil, nil
	}
	from := netip.AddrPortFrom(to.Addr(), p.box.lan.nextPort())
	if network == "udp" {
		return newPeer(p.ctx, s, from, to), nil
	}
	inside, outside := duplex(from, to)
	select {
	case <-s.over:
		return nil, syscall.ECONNREFUSED
	default:
	}
	select {
	case s.calls <- outside:
		// A process's connections end with it.
		context.AfterFunc(p.ctx, func() { inside.Close() })
		return inside, nil
	default:
		return nil, syscall.ECONNREFUSED
	}
}

// nextPort returns a port for the near end of a connection.
func (l *lan) nextPort() uint16 {
	const first = 40000
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = (l.ports + 1) % 20000
	return uint16(first + l.ports)
}

// Resolve returns the addresses of a name: those in /etc/hosts, or what the
// gateway's resolver says.
func (p *Proc) Resolve(name string) ([]string, error) {
	p.checkpoint()
	g := p.box.spec.Gateway
	switch {
	case name == "localhost" || slices.Contains(p.box.lan.names, name):
		return []string{"127.0.0.1"}, nil
	case g != nil && g.Names[name] != "":
		return []string{g.Names[name]}, nil
	case g == nil || g.Resolver == "":
		return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	resolver := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return p.Connect("udp", net.JoinHostPort(g.Resolver, "53"))
	}}
	addresses, err := resolver.LookupHost(p.ctx, strings.TrimSuffix(name, ".")+".")
	p.checkpoint()
	return addresses, err
}

// An end is one end of a TCP connection: what is written to one comes out of the
// other, and each direction can be closed by itself.
type end struct {
	in, out       net.Conn // ends of two pipes
	local, remote netip.AddrPort
}

// duplex returns both ends of a connection.
func duplex(near, far netip.AddrPort) (inside, outside *end) {
	there, here := net.Pipe()
	back, forth := net.Pipe()
	return &end{in: back, out: there, local: near, remote: far}, &end{in: here, out: forth, local: far, remote: near}
}

func (e *end) Read(p []byte) (int, error)         { return e.in.Read(p) }
func (e *end) Write(p []byte) (int, error)        { return e.out.Write(p) }
func (e *end) CloseWrite() error                  { return e.out.Close() }
func (e *end) Close() error                       { return errors.Join(e.in.Close(), e.out.Close()) }
func (e *end) LocalAddr() net.Addr                { return net.TCPAddrFromAddrPort(e.local) }
func (e *end) RemoteAddr() net.Addr               { return net.TCPAddrFromAddrPort(e.remote) }
func (e *end) SetReadDeadline(t time.Time) error  { return e.in.SetReadDeadline(t) }
func (e *end) SetWriteDeadline(t time.Time) error { return e.out.SetWriteDeadline(t) }
func (e *end) SetDeadline(t time.Time) error {
	return errors.Join(e.in.SetReadDeadline(t), e.out.SetWriteDeadline(t))
}

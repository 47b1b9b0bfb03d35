// Package usernet is a network for one virtual machine, made by this process
// alone: what the machine sends are frames on a connection, and what it wants of
// the outside are ordinary sockets of this process, as any program of its user
// may open them. It needs no rights, no device and no namespace.
//
// QEMU itself has no network then, and connects nowhere: whoever has taken it over
// can send frames, and what may be connected to is decided here, for each
// connection by its address.
//
// A guest reaches what is outside, by TCP and UDP of IPv4, and a server of names. It
// does not reach the host, nor private and link-local addresses. All that it can
// make this process hold is bounded.
package usernet

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/dhcp"
)

// The addresses of each such network. They are those of QEMU's own, so that what is
// written for that works.
var (
	Guest    = netip.MustParsePrefix("10.0.2.15/24")
	Gateway  = netip.MustParseAddr("10.0.2.2")
	Resolver = netip.MustParseAddr("10.0.2.3")
)

// Bounds of what a guest can have open.
const (
	maxTCP = 512
	maxUDP = 256
	// maxDialing is how many connections may be on their way.
	maxDialing = 128
	// bufferSize is what a connection may hold in each direction.
	bufferSize = 256 << 10
	// queued is how many frames may wait for the guest; what is more is lost, and sent
	// again.
	queued = 1024
	// dialTime is how long somebody outside may take to answer.
	dialTime = 30 * time.Second
	// idleTime is how long a conversation of datagrams may be silent, and nameTime one
	// with a server of names.
	idleTime = 90 * time.Second
	nameTime = 15 * time.Second
	// guestTime is how long the guest may take to take a connection to a port of its.
	guestTime = 10 * time.Second
)

const (
	nic = 1
	// mtu is what a packet may have; a frame has a header besides.
	mtu = 1500
	// gatewayMAC is this end's address: of those that nobody was given.
	gatewayMAC = "\x52\x55\x0a\x00\x02\x02"
)

// Options says what there is. Its zero value is a network without names and ports.
type Options struct {
	// Servers are asked for names, on behalf of Resolver; they may be the host's own. A
	// guest may ask one that is near by its own address, too, but for the loopback's.
	Servers []netip.AddrPort
	// DNS is what DHCP tells. Nil: Resolver, if there are Servers.
	DNS *caisson.DNS
	// Ports of the host lead to ports of the guest; their HostIP and HostPort are set.
	Ports []caisson.Port
	// Near reports which addresses are never connected to. Nil: Near.
	Near func(netip.Addr) bool
	// Dial connects to the outside. Nil: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Network is one that is there. Close it.
type Network struct {
	opts   Options
	conn   io.ReadWriteCloser
	link   *channel.Endpoint
	stack  *stack.Stack
	lease  *dhcp.Lease
	ctx    context.Context //nolint:containedctx // that of all that the network does
	cancel context.CancelFunc
	wg     sync.WaitGroup

	writing sync.Mutex // held while a frame is written

	mu     sync.Mutex
	closed bool
	open   map[io.Closer]struct{} // what Close ends
	tcp    int
	udp    int
	asked  int // conversations with servers of names
}

// New makes a network for the machine at the other end of conn, a stream of frames,
// each with its length before it: what QEMU has as "-netdev socket". The network is
// conn's owner from then on, also on an error.
//
// Errors: ErrExists if one of the ports is taken; ErrDenied if this user may not
// listen there.
func New(conn io.ReadWriteCloser, opts *Options) (*Network, error) {
	n := &Network{conn: conn, open: map[io.Closer]struct{}{}}
	if opts != nil {
		n.opts = *opts
	}
	if n.opts.Near == nil {
		n.opts.Near = Near
	}
	if n.opts.Dial == nil {
		n.opts.Dial = new(net.Dialer).DialContext
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.lease = n.opts.lease()
	if err := n.makeStack(); err != nil {
		conn.Close()
		n.cancel()
		return nil, err
	}
	for _, p := range n.opts.Ports {
		if err := n.publish(p); err != nil {
			n.Close()
			return nil, err
		}
	}
	n.wg.Add(2)
	go n.fromGuest()
	go n.toGuest()
	return n, nil
}

// lease is what DHCP tells.
func (o *Options) lease() *dhcp.Lease {
	l := &dhcp.Lease{
		Address: Guest, Server: Gateway, ServerMAC: net.HardwareAddr(gatewayMAC), MTU: mtu,
		Routes: []dhcp.Route{{To: netip.MustParsePrefix("0.0.0.0/0"), By: Gateway}},
	}
	if o.DNS == nil {
		if len(o.Servers) > 0 {
			l.DNS = []netip.Addr{Resolver}
		}
		return l
	}
	for _, s := range o.DNS.Servers {
		if addr, err := netip.ParseAddr(s); err == nil {
			l.DNS = append(l.DNS, addr)
		}
	}
	if len(o.DNS.Search) > 0 {
		l.Domain = o.DNS.Search[0]
	}
	return l
}

// makeStack makes the host's end. It takes connections to any address.
func (n *Network) makeStack() error {
	// What is sent to a loopback address is refused as all that is near, and not dropped.
	four := ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true})
	n.stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{four, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	})
	n.link = channel.New(queued, mtu+header.EthernetMinimumSize, tcpip.LinkAddress(gatewayMAC))
	s := n.stack
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: bufferSize}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: bufferSize, Max: bufferSize}
	moderate, sack := tcpip.TCPModerateReceiveBufferOption(false), tcpip.TCPSACKEnabled(true)
	var errs []tcpip.Error
	for _, option := range []tcpip.SettableTransportProtocolOption{&receive, &send, &moderate, &sack} {
		errs = append(errs, s.SetTransportProtocolOption(tcp.ProtocolNumber, option))
	}
	address := tcpip.ProtocolAddress{
		Protocol:          ipv4.ProtocolNumber,
		AddressWithPrefix: tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(Gateway.As4()), PrefixLen: Guest.Bits()},
	}
	errs = append(errs,
		s.CreateNIC(nic, ethernet.New(n.link)),
		s.AddProtocolAddress(nic, address, stack.AddressProperties{}),
		s.SetPromiscuousMode(nic, true),
		s.SetSpoofing(nic, true),
	)
	for _, err := range errs {
		if err != nil {
			return fmt.Errorf("network in user space: %s", err)
		}
	}
	s.SetRouteTable([]tcpip.Route{{Destination: address.AddressWithPrefix.Subnet(), NIC: nic}})
	s.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(s, 0, maxDialing, n.connect).HandlePacket)
	s.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(s, n.converse).HandlePacket)
	return nil
}

// Close ends the network and all that is open in it. It can be called again.
func (n *Network) Close() error {
	n.mu.Lock()
	first := !n.closed
	n.closed = true
	var list []io.Closer
	for c := range n.open {
		list = append(list, c)
	}
	n.mu.Unlock()
	if !first {
		n.wg.Wait()
		return nil
	}
	n.cancel()
	err := n.conn.Close()
	for _, c := range list {
		_ = c.Close()
	}
	n.wg.Wait()
	n.stack.Close()
	n.link.Close()
	n.stack.Wait()
	return err
}

// keep has Close end c, or ends it at once where the network is closed. It reports
// whether c is of use.
func (n *Network) keep(c io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		_ = c.Close()
		return false
	}
	n.open[c] = struct{}{}
	return true
}

// drop closes c, which keep has kept.
func (n *Network) drop(c io.Closer) {
	n.mu.Lock()
	delete(n.open, c)
	n.mu.Unlock()
	_ = c.Close()
}

// begin counts one more of what there may be limit of, and says whether it may be. It
// is one more that Close waits for; end takes it back.
func (n *Network) begin(count *int, limit int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || *count >= limit {
		return false
	}
	*count++
	n.wg.Add(1)
	return true
}

func (n *Network) end(count *int) {
	n.mu.Lock()
	*count--
	n.mu.Unlock()
	n.wg.Done()
}

package usernet_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/link/ethernet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/usernet"
)

// outside is an address that documents use, and nobody has.
const outside = "203.0.113.7"

// A guest is a machine at the other end of a network.
type guest struct {
	t     *testing.T
	stack *stack.Stack
	conn  net.Conn
}

// connected returns a guest of a network for which everything outside is at the
// loopback address.
func connected(t *testing.T, opts usernet.Options) *guest {
	t.Helper()
	opts.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return new(net.Dialer).DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}
	ours, theirs := net.Pipe()
	n, err := usernet.New(theirs, &opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	four := ipv4.NewProtocolWithOptions(ipv4.Options{AllowExternalLoopbackTraffic: true})
	g := &guest{t, stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{four, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol},
	}), ours}
	link := channel.New(64, 1514, "\x52\x54\x00\x01\x02\x03")
	own := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(usernet.Guest.Addr().As4()), PrefixLen: 24}
	if err := g.stack.CreateNIC(1, ethernet.New(link)); err != nil {
		t.Fatal(err)
	}
	address := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: own}
	if err := g.stack.AddProtocolAddress(1, address, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	g.stack.SetRouteTable([]tcpip.Route{
		{Destination: own.Subnet(), NIC: 1},
		{Destination: ipv4Everything(), Gateway: tcpip.AddrFrom4(usernet.Gateway.As4()), NIC: 1},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() {
		defer func() { done <- struct{}{} }()
		for pkt := link.ReadContext(ctx); pkt != nil; pkt = link.ReadContext(ctx) {
			view := pkt.ToView()
			_ = g.send(view.AsSlice())
			pkt.DecRef()
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			frame, err := g.receive()
			if err != nil {
				return
			}
			link.InjectInbound(0, stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)}))
		}
	}()
	t.Cleanup(func() {
		cancel()
		ours.Close()
		<-done
		<-done
		g.stack.Destroy()
	})
	return g
}

func ipv4Everything() tcpip.Subnet {
	s, _ := tcpip.NewSubnet(tcpip.AddrFrom4([4]byte{}), tcpip.MaskFromBytes(make([]byte, 4)))
	return s
}

func (g *guest) send(frame []byte) error {
	_, err := g.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
	return err
}

func (g *guest) receive() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(g.conn, head[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err := io.ReadFull(g.conn, frame)
	return frame, err
}

// at is an address for the guest's stack.
func at(text string) tcpip.FullAddress {
	a := netip.MustParseAddrPort(text)
	return tcpip.FullAddress{NIC: 1, Addr: tcpip.AddrFrom4(a.Addr().As4()), Port: a.Port()}
}

// patience is how long what must happen may take.
const patience = 30 * time.Second

func (g *guest) dial(address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return gonet.DialContextTCP(ctx, g.stack, at(address), ipv4.ProtocolNumber)
}

// echo serves one connection after another with what they say.
func echo(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestConnect(t *testing.T) {
	port := echo(t)
	g := connected(t, usernet.Options{})
	c, err := g.dial(outside + ":" + port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	said := bytes.Repeat([]byte("caisson "), 100_000)
	go func() {
		_, _ = c.Write(said)
		_ = c.(interface{ CloseWrite() error }).CloseWrite()
	}()
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, said) {
		t.Errorf("the answer has %d bytes, %v, want what was said", len(got), err)
	}
}

func TestRefused(t *testing.T) {
	port := echo(t)
	g := connected(t, usernet.Options{Servers: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53")}})
	for _, address := range []string{
		"127.0.0.1", "10.0.2.2", "10.0.2.3", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1",
	} {
		if c, err := g.dial(address + ":" + port); err == nil {
			c.Close()
			t.Errorf("%s is reached", address)
		}
	}
	for _, a := range hostAddresses() {
		if c, err := g.dial(a + ":" + port); err == nil {
			c.Close()
			t.Errorf("%s of the host is reached", a)
		}
	}
	// The host's own server of names is asked by the resolver's address alone.
	if c, err := g.dial("127.0.0.53:53"); err == nil {
		c.Close()
		t.Error("the loopback's server of names is reached")
	}
}

func hostAddresses() []string {
	var list []string
	all, _ := net.InterfaceAddrs()
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
			list = append(list, p.Addr().String())
		}
	}
	return list
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	if c, err := connected(t, usernet.Options{}).dial(outside + ":" + port); err == nil {
		c.Close()
		t.Error("a connection is there that nobody has taken")
	}
}

func TestNames(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go answer(server)
	g := connected(t, usernet.Options{Servers: []netip.AddrPort{server.LocalAddr().(*net.UDPAddr).AddrPort()}})
	g.asks("10.0.2.3:53")
}

// answer answers each datagram with itself.
func answer(server net.PacketConn) {
	buf := make([]byte, 2048)
	for {
		n, from, err := server.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = server.WriteTo(buf[:n], from)
	}
}

// asks sends a datagram and wants it back.
func (g *guest) asks(address string) {
	g.t.Helper()
	to := at(address)
	c, err := gonet.DialUDP(g.stack, nil, &to, ipv4.ProtocolNumber)
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write([]byte("who?")); err != nil {
		g.t.Fatal(err)
	}
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "who?" {
		g.t.Errorf("the answer is %q, %v", buf[:n], err)
	}
}

func TestDatagrams(t *testing.T) {
	server, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go answer(server)
	_, port, _ := net.SplitHostPort(server.LocalAddr().String())
	connected(t, usernet.Options{}).asks(outside + ":" + port)
}

func TestPorts(t *testing.T) {
	free := freePort(t)
	ports := []caisson.Port{{HostIP: "127.0.0.1", HostPort: free, Port: 80, Protocol: "tcp"}, {HostIP: "127.0.0.1", HostPort: free, Port: 99, Protocol: "udp"}}
	g := connected(t, usernet.Options{Ports: ports})
	l, err := gonet.ListenTCP(g.stack, at("10.0.2.15:80"), ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("page"))
			c.Close()
		}
	}()
	address := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(free)).String()
	c, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); string(got) != "page" {
		t.Errorf("the port answers %q, %v", got, err)
	}
	own := at("10.0.2.15:99")
	u, err := gonet.DialUDP(g.stack, &own, nil, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go answer(u)
	d, err := net.Dial("udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	_ = d.SetDeadline(time.Now().Add(patience))
	buf := make([]byte, 100)
	_, _ = d.Write([]byte("who?"))
	if n, err := d.Read(buf); string(buf[:n]) != "who?" {
		t.Errorf("the port for datagrams answers %q, %v", buf[:n], err)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	if _, err := usernet.New(theirs, &usernet.Options{Ports: ports[:1]}); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("New(a port that is taken) = %v, want ErrExists", err)
	}
}

// freePort is one that nobody has, for TCP.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// TestHostile sends what no guest should.
func TestHostile(t *testing.T) {
	ours, theirs := net.Pipe()
	n, err := usernet.New(theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	g := &guest{t: t, conn: ours}
	_ = ours.SetDeadline(time.Now().Add(patience))
	for _, frame := range [][]byte{
		nil,
		{1},
		make([]byte, 14), make([]byte, 60),
		append(bytes.Repeat([]byte{0xff}, 12), 8, 0, 0x45), append(bytes.Repeat([]byte{0xff}, 12), 8, 6, 0, 1), bytes.Repeat([]byte{0x45}, 60_000),
	} {
		if err := g.send(frame); err != nil {
			t.Fatalf("a frame of %d bytes ends the network: %v", len(frame), err)
		}
	}
	// A length that no frame has ends it.
	if _, err := ours.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

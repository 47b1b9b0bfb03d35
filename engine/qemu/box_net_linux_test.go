package qemu

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/machine"
)

// testUserNet holds what a guest reaches by a network that its keeper makes, and who
// reaches it.
func testUserNet(t *testing.T, p *parts) {
	names, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	go answerNames(names)
	b := open(t, p.userNetSpec(t, names.LocalAddr().(*net.UDPAddr).AddrPort()))
	t.Run("Names", func(t *testing.T) {
		if got := output(t, b, "busybox nslookup -type=a some.name 10.0.2.3"); !strings.Contains(got, "192.0.2.99") {
			t.Errorf("a program is told %q", got)
		}
	})
	t.Run("Port", func(t *testing.T) {
		r := shell(t, b, "echo page | busybox nc -l -p 8080")
		// A connection that comes before anybody listens ends at once.
		eventually(t, "the port answers", func() bool {
			address := fmt.Sprintf("127.0.0.1:%d", b.spec.User.Ports[0].HostPort)
			conn, err := net.Dial("tcp4", address)
			if err != nil {
				return false
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(testLimit))
			got, _ := io.ReadAll(conn)
			return string(got) == "page\n"
		})
		r.ends(t)
	})
	t.Run("Near", func(t *testing.T) {
		l, err := net.Listen("tcp4", ":0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		all := []string{"10.0.2.2", "10.0.2.3", "169.254.169.254", "192.168.0.1"}
		own, _ := net.InterfaceAddrs()
		for _, a := range own {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Is4() {
				all = append(all, p.Addr().String())
			}
		}
		for _, a := range all {
			if code, _ := shell(t, b, fmt.Sprintf("busybox nc -w 5 %s %d < /dev/null", a, port)).ends(t); code == 0 {
				t.Errorf("%s is reached", a)
			}
		}
	})
}

// answerNames answers each question of type A.
func answerNames(conn net.PacketConn) {
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		reply := append(bytes.Clone(buf[:2]), 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0)
		reply = append(reply, buf[12:n]...)
		reply = append(reply, 0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 99)
		_, _ = conn.WriteTo(reply, from)
	}
}

// userNetSpec is a machine with such a network.
func (p *parts) userNetSpec(t *testing.T, names netip.AddrPort) *boxSpec {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().(*net.TCPAddr).Port
	l.Close()
	m := p.machine()
	m.Network = &machine.Network{FD: firstTap, MAC: cardMAC(0)}
	s := p.specOf(t, m)
	s.User = &userNet{
		Servers: []netip.AddrPort{names},
		Ports:   []caisson.Port{{HostIP: "127.0.0.1", HostPort: free, Port: 8080, Protocol: "tcp"}},
	}
	s.Guest.Interfaces = []guest.Interface{{Hardware: cardMAC(0), Addresses: []string{userAddress}, Gateways: []string{userGateway}}}
	return s
}

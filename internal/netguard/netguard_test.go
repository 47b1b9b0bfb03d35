package netguard_test

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/netguard"
)

func TestPublic(t *testing.T) {
	for text, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "2606:4700::1111": true, "172.32.0.1": true, "192.167.1.1": true, "100.128.0.1": true,
		"2002:0808:0808::1": true, "64:ff9b::808:808": true,
		"127.0.0.1": false, "127.255.255.254": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.100.100.200": false, "0.0.0.0": false, "0.1.2.3": false, "224.0.0.1": false,
		"255.255.255.255": false, "240.0.0.1": false, "192.0.0.192": false, "198.19.0.1": false,
		"::": false, "::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::127.0.0.1": false,
		"fe80::1": false, "fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false, "fec0::1": false,
		"2002:7f00:1::": false, "2002:a9fe:a9fe::": false, "64:ff9b::7f00:1": false, "64:ff9b:1::a00:1": false, "2001:0:1::": false,
		"2001:db8::1": false, "::ffff:8.8.8.8": true,
	} {
		if got := netguard.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("Public(%s) = %v, want %v", text, got, want)
		}
	}
	if netguard.Public(netip.Addr{}) {
		t.Error("no address is public")
	}
}

// Whatever name leads to it, a private address is not connected to.
func TestDialer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"} {
		conn, err := netguard.Dialer(time.Second, false).DialContext(t.Context(), "tcp", host+":"+port)
		if !errors.Is(err, netguard.ErrPrivate) || !errors.Is(err, caisson.ErrDenied) {
			t.Errorf("Dial(%s) = %v, want ErrPrivate", host, err)
		}
		if err == nil {
			conn.Close()
		}
	}
	conn, err := netguard.Dialer(time.Second, true).DialContext(t.Context(), "tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatalf("with any address allowed: %v", err)
	}
	conn.Close()
}

func TestCheckHost(t *testing.T) {
	for host, denied := range map[string]bool{"127.0.0.1": true, "::1": true, "::ffff:127.0.0.1": true, "example.com": false, "2130706433": false, "8.8.8.8": false} {
		if err := netguard.CheckHost(host); errors.Is(err, caisson.ErrDenied) != denied {
			t.Errorf("CheckHost(%s) = %v, want denied %v", host, err, denied)
		}
	}
}

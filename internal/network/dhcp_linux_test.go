package network_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/network"
)

func TestLease(t *testing.T) {
	l := network.Link{
		Addresses: []string{"fd00::2/64", "10.9.0.7/24"}, MTU: 1400,
		Routes: []network.Route{
			{To: netip.MustParsePrefix("10.9.0.0/24")},
			{To: netip.MustParsePrefix("0.0.0.0/0"), By: netip.MustParseAddr("10.9.0.1")},
		},
	}
	got, ok := l.Lease(&caisson.DNS{Servers: []string{"192.0.2.53", "2001:db8::53"}, Search: []string{"a.example", "b.example"}})
	if !ok || got.Address.String() != "10.9.0.7/24" || got.Server.String() != "10.9.0.1" || len(got.Routes) != 1 || got.Domain != "a.example" {
		t.Errorf("Lease = %+v, %v", got, ok)
	}
	if !slices.Contains(got.DNS, netip.MustParseAddr("192.0.2.53")) {
		t.Errorf("its servers of names are %v", got.DNS)
	}
	alone := network.Link{Addresses: []string{"10.9.0.1/24"}}
	if got, ok := alone.Lease(nil); !ok || got.Server.String() != "10.9.0.2" || len(got.Routes) != 0 {
		t.Errorf("Lease of a network without a way out = %+v, %v", got, ok)
	}
	six := network.Link{Addresses: []string{"fd00::2/64"}}
	if got, ok := six.Lease(nil); ok {
		t.Errorf("Lease of a network of IPv6 alone = %+v, want none", got)
	}
}

// TestDHCP asks as a guest does, at the TAP device that a QEMU would have.
func TestDHCP(t *testing.T) {
	r := newRig(t)
	needTaps(t)
	r.lan("lan", 1)
	rec := r.create(r.spec("lan"))
	links, err := rec.MakeTaps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lease, ok := links[0].Lease(rec.FoundDNS())
	if !ok {
		t.Fatalf("Lease of %+v: there is none", links[0])
	}
	f, err := network.OpenDHCP(rec.Path(), links[0].Tap)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		network.AnswerDHCP(f, lease)
	}()
	defer func() {
		f.Close()
		<-done
	}()
	tap, err := network.OpenTap(rec.Path(), links[0].Tap)
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	client, err := net.ParseMAC(links[0].MAC)
	if err != nil {
		t.Fatal(err)
	}
	const header = 10 // of virtio
	if _, err := tap.Write(append(make([]byte, header), discover(client)...)); err != nil {
		t.Fatal(err)
	}
	if err := tap.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	for buf := make([]byte, 4096); ; {
		n, err := tap.Read(buf)
		if err != nil {
			t.Fatalf("no offer: %v", err)
		}
		// Whatever else there is on the network comes as well.
		const given = header + 14 + 28 + 16
		if frame := buf[:n]; n > given+4 && bytes.Equal(frame[header:header+6], client) && frame[header+14+9] == unix.IPPROTO_UDP {
			if got := netip.AddrFrom4([4]byte(frame[given:])); got != lease.Address.Addr() {
				t.Errorf("the offer is %s, want %s", got, lease.Address.Addr())
			}
			return
		}
	}
}

// discover is the frame of a client that has no address.
func discover(client net.HardwareAddr) []byte {
	m := make([]byte, 240)
	m[0], m[1], m[2] = 1, 1, 6
	copy(m[28:], client)
	copy(m[236:], []byte{99, 130, 83, 99})
	m = append(m, 53, 1, 1, 255)
	f := append(bytes.Repeat([]byte{0xff}, 6), client...)
	f = append(f, 8, 0)
	ip := make([]byte, 28)
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(m)))
	binary.BigEndian.PutUint32(ip[16:], 0xffffffff)
	binary.BigEndian.PutUint16(ip[20:], 68)
	binary.BigEndian.PutUint16(ip[22:], 67)
	binary.BigEndian.PutUint16(ip[24:], uint16(8+len(m)))
	return append(append(f, ip...), m...)
}

// TestUser holds that a network in user space has ports and a record, and nothing
// else, whoever makes it.
func TestUser(t *testing.T) {
	opts := network.Options{Runtime: t.TempDir(), Installation: "test"}
	spec := network.Spec{ID: "u1", User: true, Network: caisson.Network{Mode: caisson.NetworkDefault}, Ports: []caisson.Port{{Port: 80}}}
	rec, err := opts.Plan(&spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := rec.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := rec.Load()
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Attachments[0].Ports[0]; p.HostPort == 0 || p.HostIP != "127.0.0.1" {
		t.Errorf("the port is published as %+v", p)
	}
	if err := got.Check(t.Context()); err != nil {
		t.Errorf("Check = %v", err)
	}
	again := spec
	again.ID, again.Ports = "u2", []caisson.Port{{Port: 81, HostPort: got.Attachments[0].Ports[0].HostPort}}
	other, err := opts.Plan(&again)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Create(t.Context()); !errors.Is(err, caisson.ErrExists) {
		t.Errorf("Create(a port that is taken) = %v, want ErrExists", err)
	}
	for range 2 {
		if err := rec.Remove(t.Context()); err != nil {
			t.Errorf("Remove = %v", err)
		}
	}
	if _, err := rec.Load(); !errors.Is(err, caisson.ErrNotFound) {
		t.Errorf("Load after Remove = %v, want ErrNotFound", err)
	}
	for name, n := range map[string]caisson.Network{"Named": {Mode: "lan"}, "None": {Mode: caisson.NetworkNone}} {
		bad := spec
		bad.Network = n
		if _, err := opts.Plan(&bad); !errors.Is(err, caisson.ErrUnsupported) {
			t.Errorf("Plan(%s) = %v, want ErrUnsupported", name, err)
		}
	}
}

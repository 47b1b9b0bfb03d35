package dhcp_test

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/caissonrun/caisson/internal/dhcp"
)

var lease = dhcp.Lease{
	Address: netip.MustParsePrefix("10.9.0.7/24"), Server: netip.MustParseAddr("10.9.0.1"), ServerMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1},
	Routes: []dhcp.Route{
		{To: netip.MustParsePrefix("0.0.0.0/0"), By: netip.MustParseAddr("10.9.0.1")},
		{To: netip.MustParsePrefix("10.20.0.0/16"), By: netip.MustParseAddr("10.9.0.2")},
	},
	DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")}, Domain: "a.example", MTU: 1400,
}

// client is the guest's address of Ethernet.
var client = []byte{0x52, 0x54, 0, 1, 2, 3}

// message makes the frame of a client's message.
func message(kind byte, options ...byte) []byte {
	m := make([]byte, 240)
	m[0], m[1], m[2] = 1, 1, 6
	copy(m[4:], "wxyz")
	copy(m[28:], client)
	copy(m[236:], []byte{99, 130, 83, 99})
	m = append(append(append(m, 53, 1, kind), options...), 255)
	f := append(bytes.Repeat([]byte{0xff}, 6), client...)
	f = append(f, 8, 0)
	ip := make([]byte, 20)
	ip[0], ip[9] = 0x45, 17
	binary.BigEndian.PutUint16(ip[2:], uint16(28+len(m)))
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp, 68)
	binary.BigEndian.PutUint16(udp[2:], 67)
	binary.BigEndian.PutUint16(udp[4:], uint16(8+len(m)))
	return append(append(append(f, ip...), udp...), m...)
}

// read returns the type of an answer, the address it gives, and its options.
func read(t *testing.T, f []byte) (kind byte, own netip.Addr, options map[byte][]byte) {
	t.Helper()
	if len(f) < 14+28+240 {
		t.Fatalf("the answer has %d bytes", len(f))
	}
	if sum(f[14:34]) != 0xffff {
		t.Error("the packet's checksum is wrong")
	}
	pseudo := append(bytes.Clone(f[26:34]), 0, 17, f[38], f[39])
	if sum(append(pseudo, f[34:]...)) != 0xffff {
		t.Error("the datagram's checksum is wrong")
	}
	m := f[42:]
	if string(m[4:8]) != "wxyz" || !bytes.Equal(m[28:34], client) {
		t.Errorf("the answer is to somebody else: %x", m[:34])
	}
	options = map[byte][]byte{}
	for b := m[240:]; len(b) > 1 && b[0] != 255; b = b[2+int(b[1]):] {
		options[b[0]] = b[2 : 2+int(b[1])]
	}
	return options[53][0], netip.AddrFrom4([4]byte(m[16:20])), options
}

func sum(b []byte) uint16 {
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	s := uint32(0)
	for ; len(b) > 0; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func TestAnswer(t *testing.T) {
	own := []byte{10, 9, 0, 7}
	server := []byte{54, 4, 10, 9, 0, 1}
	for name, c := range map[string]struct {
		frame []byte
		want  byte // 0: no answer
		given bool
	}{
		"Discover":        {message(1), 2, true},
		"Request":         {message(3, append([]byte{50, 4}, own...)...), 5, true},
		"RequestOfThis":   {message(3, append(append([]byte{50, 4}, own...), server...)...), 5, true},
		"RequestOfOther":  {message(3, append(append([]byte{50, 4}, own...), 54, 4, 10, 9, 0, 9)...), 0, false},
		"RequestWrong":    {message(3, 50, 4, 10, 9, 0, 8), 6, false},
		"Inform":          {message(8), 5, false},
		"Release":         {message(7), 0, false},
		"NoType":          {message(1)[:14+28+240], 0, false},
		"ShortOption":     {append(message(1)[:14+28+240], 53), 0, false},
		"Nothing":         {nil, 0, false},
		"OnlyEthernet":    {message(1)[:14], 0, false},
		"LyingHeaderSize": {changed(14, 0x4f), 0, false},
		"LyingLength":     {changed(16, 0xff), 0, false},
		"Fragment":        {changed(20, 0x20), 0, false},
		"OtherPort":       {changed(37, 68), 0, false},
		"LyingDatagram":   {changed(38, 0xff), 0, false},
		"NoCookie":        {changed(14+28+236, 0), 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := lease.Answer(c.frame)
			if c.want == 0 {
				if f != nil {
					t.Errorf("Answer = %x, want none", f)
				}
				return
			}
			kind, addr, _ := read(t, f)
			if kind != c.want || c.given != (addr == lease.Address.Addr()) {
				t.Errorf("Answer = type %d, address %s", kind, addr)
			}
		})
	}
}

// changed is a message with one byte changed.
func changed(at int, to byte) []byte {
	f := message(1)
	f[at] = to
	return f
}

func TestAnswerTells(t *testing.T) {
	_, _, options := read(t, lease.Answer(message(1)))
	for code, want := range map[byte]string{
		1: "\xff\xff\xff\x00", 3: "\x0a\x09\x00\x01", 6: "\xc0\x00\x02\x35", 15: "a.example", 26: "\x05\x78", 54: "\x0a\x09\x00\x01",
		121: "\x00\x0a\x09\x00\x01\x10\x0a\x14\x0a\x09\x00\x02",
	} {
		if got := string(options[code]); got != want {
			t.Errorf("option %d = %q, want %q", code, got, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(message(1))
	f.Add(message(3, 50, 4, 10, 9, 0, 7))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if out := lease.Answer(frame); len(out) > 600 {
			t.Errorf("the answer has %d bytes", len(out))
		}
	})
}

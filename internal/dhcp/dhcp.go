// Package dhcp tells one virtual machine which address it has, by DHCP (RFC 2131):
// a machine whose system asks that way, and that no agent is in. It works on
// frames, and opens nothing: who has the frames decides where they come from.
//
// What it reads is a guest's, and hostile: nothing of it is kept, and an answer
// depends on no more than the few fields that the protocol says.
package dhcp

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"time"
)

// A Lease is what one machine is told. Address, Server and ServerMAC are needed.
type Lease struct {
	// Address is the machine's, with the length of its network's prefix.
	Address netip.Prefix
	// Server is who answers, and ServerMAC by which address of Ethernet.
	Server    netip.Addr
	ServerMAC net.HardwareAddr
	// Routes are the ways out; one to 0.0.0.0/0 is the router as well.
	Routes []Route
	// DNS are servers of names, and Domain is what names are searched in.
	DNS    []netip.Addr
	Domain string
	MTU    int // 0: not told
}

// A Route says by whom a network is reached.
type Route struct {
	To netip.Prefix
	By netip.Addr // the zero value: it is on the link itself
}

// The parts of a frame with a message.
const (
	ethernetSize = 14
	ipSize       = 20
	udpSize      = 8
	cookieAt     = 236
	optionsAt    = 240
	// leastMessage is what old clients expect.
	leastMessage = 300
	serverPort   = 67
	clientPort   = 68
	protocolUDP  = 17
	broadcastBit = 0x8000
)

var (
	cookie    = []byte{99, 130, 83, 99}
	broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

// The types of message.
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
	inform   = 8
)

// The options that are read or written.
const (
	optMask      = 1
	optRouter    = 3
	optDNS       = 6
	optDomain    = 15
	optMTU       = 26
	optRequested = 50
	optTime      = 51
	optType      = 53
	optServer    = 54
	optRoutes    = 121
	optEnd       = 255
)

// Bounds of an answer, so that it fits into what each client takes.
const (
	maxDNS    = 6
	maxRoutes = 12
	maxDomain = 100
)

// leaseTime is how long an address is given for: who asks again gets it again.
const leaseTime = 24 * time.Hour

// Is reports whether a frame is a message to a DHCP server.
func Is(frame []byte) bool {
	_, ok := payload(frame)
	return ok
}

// payload returns the message in a frame.
func payload(frame []byte) ([]byte, bool) {
	if len(frame) < ethernetSize+ipSize || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return nil, false
	}
	ip := frame[ethernetSize:]
	size, whole := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	const fragment = 0x3fff
	if ip[0]>>4 != 4 || size < ipSize || whole > len(ip) || whole < size+udpSize ||
		ip[9] != protocolUDP || binary.BigEndian.Uint16(ip[6:])&fragment != 0 {
		return nil, false
	}
	udp := ip[size:whole]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp) != clientPort || binary.BigEndian.Uint16(udp[2:]) != serverPort ||
		length < udpSize || length > len(udp) {
		return nil, false
	}
	return udp[udpSize:length], true
}

// Answer returns the frame that answers one of the machine's. Nil: it is no message
// that wants an answer.
func (l *Lease) Answer(frame []byte) []byte {
	m, ok := payload(frame)
	if !ok || len(m) < optionsAt || m[0] != 1 || m[1] != 1 || m[2] != 6 || !bytes.Equal(m[cookieAt:optionsAt], cookie) {
		return nil
	}
	options := readOptions(m[optionsAt:])
	if len(options[optType]) != 1 {
		return nil
	}
	own, server := l.Address.Addr().As4(), l.Server.As4()
	meant := options[optServer] == nil || bytes.Equal(options[optServer], server[:])
	switch options[optType][0] {
	case discover:
		return l.reply(m, offer)
	case inform:
		return l.reply(m, ack)
	case request:
		wanted := options[optRequested]
		if client := m[12:16]; wanted == nil && !bytes.Equal(client, make([]byte, 4)) {
			wanted = client
		}
		switch {
		case !meant:
			return nil
		case wanted != nil && !bytes.Equal(wanted, own[:]):
			return l.reply(m, nak)
		}
		return l.reply(m, ack)
	}
	return nil
}

// readOptions returns the first of each option.
func readOptions(b []byte) map[byte][]byte {
	list := map[byte][]byte{}
	for len(b) > 0 && b[0] != optEnd {
		if b[0] == 0 {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			break
		}
		if _, twice := list[b[0]]; !twice {
			list[b[0]] = b[2 : 2+int(b[1])]
		}
		b = b[2+int(b[1]):]
	}
	return list
}

// reply makes the frame of an answer to a message.
func (l *Lease) reply(asked []byte, kind byte) []byte {
	m := make([]byte, optionsAt, leastMessage)
	m[0], m[1], m[2] = 2, 1, 6
	copy(m[4:8], asked[4:8])     // what the client tells answers by
	copy(m[10:12], asked[10:12]) // flags
	copy(m[28:44], asked[28:44]) // the client's address of Ethernet
	copy(m[cookieAt:], cookie)
	own, server := l.Address.Addr().As4(), l.Server.As4()
	option := func(code byte, data ...byte) { m = append(append(m, code, byte(len(data))), data...) }
	option(optType, kind)
	option(optServer, server[:]...)
	told := asked[12:16] // an address that the client has anyway
	if kind != nak {
		if options := readOptions(asked[optionsAt:]); options[optType][0] != inform {
			copy(m[16:20], own[:])
			told = own[:]
			option(optTime, binary.BigEndian.AppendUint32(nil, uint32(leaseTime.Seconds()))...)
		}
		l.describe(option)
	}
	m = append(m, optEnd)
	for len(m) < leastMessage {
		m = append(m, 0)
	}
	to, mac := [4]byte{255, 255, 255, 255}, broadcast
	if kind != nak && binary.BigEndian.Uint16(asked[10:])&broadcastBit == 0 {
		to, mac = [4]byte(told), net.HardwareAddr(asked[28:34])
	}
	return l.frame(m, to, mac)
}

// describe adds what the machine's network is like.
func (l *Lease) describe(option func(code byte, data ...byte)) {
	mask := net.CIDRMask(l.Address.Bits(), 32)
	option(optMask, mask...)
	var routes []byte
	for _, r := range l.Routes[:min(len(l.Routes), maxRoutes)] {
		to, by := r.To.Addr().As4(), [4]byte{}
		if r.By.IsValid() {
			by = r.By.As4()
		}
		if r.To.Bits() == 0 {
			option(optRouter, by[:]...)
		}
		routes = append(append(routes, byte(r.To.Bits())), to[:(r.To.Bits()+7)/8]...)
		routes = append(routes, by[:]...)
	}
	if len(l.Routes) > 1 {
		// Who knows this option leaves out the router.
		option(optRoutes, routes...)
	}
	var servers []byte
	for _, s := range l.DNS[:min(len(l.DNS), maxDNS)] {
		if s.Is4() {
			servers = append(servers, s.AsSlice()...)
		}
	}
	if len(servers) > 0 {
		option(optDNS, servers...)
	}
	if l.Domain != "" && len(l.Domain) <= maxDomain {
		option(optDomain, []byte(l.Domain)...)
	}
	if l.MTU > 0 {
		option(optMTU, binary.BigEndian.AppendUint16(nil, uint16(l.MTU))...)
	}
}

// frame puts a message into a datagram of UDP, that into a packet, and that into a
// frame.
func (l *Lease) frame(m []byte, to [4]byte, mac net.HardwareAddr) []byte {
	from := l.Server.As4()
	f := make([]byte, 0, ethernetSize+ipSize+udpSize+len(m))
	f = append(append(append(f, mac...), l.ServerMAC...), 0x08, 0x00)
	ip := make([]byte, ipSize)
	ip[0], ip[8], ip[9] = 0x45, 64, protocolUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(ipSize+udpSize+len(m)))
	copy(ip[12:16], from[:])
	copy(ip[16:20], to[:])
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))
	udp := make([]byte, udpSize)
	length := uint16(udpSize + len(m))
	binary.BigEndian.PutUint16(udp, serverPort)
	binary.BigEndian.PutUint16(udp[2:], clientPort)
	binary.BigEndian.PutUint16(udp[4:], length)
	check := ^fold(sum(sum(sum(protocolUDP+uint32(length), ip[12:20]), udp), m))
	if check == 0 {
		check = 0xffff // 0 means that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(append(append(f, ip...), udp...), m...)
}

// sum adds the words of b to a sum, which fold makes a checksum's.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

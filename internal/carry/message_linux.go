package carry

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// version is that of the messages. A reader takes no other one.
const version = 1

const (
	// addrSize is that of an address in a message: sixteen bytes and a port.
	addrSize = 18
	// connSize is that of the message about a connection: version, the address that
	// it was meant for, and the one that it is from.
	connSize = 1 + 2*addrSize
	// packetHead is what stands before the data of a datagram: version, and the
	// peer's address.
	packetHead = 1 + addrSize
)

// appendAddr appends an address. What has no zone has none afterwards.
func appendAddr(buf []byte, a netip.AddrPort) []byte {
	ip := a.Addr().As16()
	return binary.LittleEndian.AppendUint16(append(buf, ip[:]...), a.Port())
}

// readAddr reads an address at the beginning of buf.
func readAddr(buf []byte) netip.AddrPort {
	ip := netip.AddrFrom16([16]byte(buf)).Unmap()
	return netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(buf[16:]))
}

// connMessage tells of a connection.
func connMessage(local, remote netip.AddrPort) []byte {
	return appendAddr(appendAddr([]byte{version}, local), remote)
}

// readConn reads such a message, and reports whether it is one.
func readConn(buf []byte) (local, remote netip.AddrPort, ok bool) {
	if len(buf) != connSize || buf[0] != version {
		return local, remote, false
	}
	return readAddr(buf[1:]), readAddr(buf[1+addrSize:]), true
}

// packetMessage is the head of a datagram's message.
func packetMessage(peer netip.AddrPort) []byte { return appendAddr([]byte{version}, peer) }

// readPacket reads such a head, and reports whether it is one.
func readPacket(head []byte) (peer netip.AddrPort, ok bool) {
	if len(head) < packetHead || head[0] != version {
		return peer, false
	}
	return readAddr(head[1:]), true
}

// addrPort returns the address that a connection says it has; 0.0.0.0:0 if it says
// nothing that can be carried.
func addrPort(a net.Addr) netip.AddrPort {
	if has, ok := a.(interface{ AddrPort() netip.AddrPort }); ok && has.AddrPort().IsValid() {
		return has.AddrPort()
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

package wire

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

// A Datagram is one that has come to a socket inside, or goes out from it.
type Datagram struct {
	Socket int            // which of Listen.Sockets
	Peer   netip.AddrPort // whom it is from, or for
	Data   []byte
}

var errDatagram = errors.New("a datagram that is cut off")

// Append appends the datagram as the body of a KindDatagram: the socket in two
// bytes, the peer's port in two and its address in sixteen, then the data.
func (d *Datagram) Append(buf []byte) []byte {
	buf = binary.LittleEndian.AppendUint16(buf, uint16(d.Socket))
	buf = binary.LittleEndian.AppendUint16(buf, d.Peer.Port())
	ip := d.Peer.Addr().As16()
	return append(append(buf, ip[:]...), d.Data...)
}

// ParseDatagram reads such a body, which Data is a part of.
func ParseDatagram(body []byte) (d Datagram, err error) {
	if len(body) < 20 {
		return d, errDatagram
	}
	d.Socket = int(binary.LittleEndian.Uint16(body))
	ip := netip.AddrFrom16([16]byte(body[4:20])).Unmap()
	d.Peer = netip.AddrPortFrom(ip, binary.LittleEndian.Uint16(body[2:]))
	d.Data = body[20:]
	return d, nil
}

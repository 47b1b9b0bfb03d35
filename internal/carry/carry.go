// Package carry brings connections and datagrams from one process to another that
// has no socket of its own for them: out of a virtual machine, whose agent passes
// them on to the keeper, to whoever serves them on the host.
//
// A Carrier has what connects. For each socket it makes a pair of connected sockets,
// keeps one end, and hands out duplicates of the other, as often as it is asked.
// Each of these is a Listener or Packets in another process, and they share what
// comes: a connection, which is an end of a stream, or a datagram, is one message.
// While nobody serves they wait.
package carry

import "net"

// A Source is where the traffic of one socket comes from: one of both.
type Source struct {
	Listener net.Listener
	// Packets are those of a socket for datagrams. ReadFrom returns *net.UDPAddr.
	Packets net.PacketConn
}

// MaxDatagram is the largest datagram that is carried, in bytes. It is that of
// package guest.
const MaxDatagram = 32<<10 - 64

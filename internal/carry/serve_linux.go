package carry

import (
	"net"
	"os"

	"github.com/caissonrun/caisson"
)

// Listener returns what accepts the connections of a socket for TCP at addr, by the
// end that a Carrier has handed out, which stays the caller's. Connections have
// CloseWrite, and as their local address the one that they were meant for.
func Listener(end *os.File, addr net.Addr) (net.Listener, error) {
	return nil, caisson.ErrUnsupported
}

// Packets returns a socket for datagrams at addr, in the same way.
func Packets(end *os.File, addr net.Addr) (net.PacketConn, error) {
	return nil, caisson.ErrUnsupported
}

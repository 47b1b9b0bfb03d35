package engine

import (
	"context"
	"net"
)

// A Gateway is a way out of a sandbox besides its networks: sockets inside of it
// at which a process of this host listens. Proxies, allow-lists and brokered
// secrets are made of it (package internal/gateway); engines only know sockets.
type Gateway struct {
	// For lists what of the task it is there for, as errors call it:
	// "proxies.git". Empty: the gateway itself.
	For []string `json:"for,omitempty"`
	// Sockets listen from Create on until the main program has ended. With
	// Spec.SharedNetwork the same sockets may be asked for by every sandbox on
	// it; whichever gets a connection serves it.
	Sockets []Socket `json:"sockets"`
	// Names are those that the sandbox finds in /etc/hosts, by name, with the
	// address that they resolve to.
	Names map[string]string `json:"names,omitempty"`
	// Resolver is the address of the only server in the sandbox's resolv.conf.
	// Empty: resolv.conf is as without a gateway.
	Resolver string `json:"resolver,omitempty"`
	// Everything makes every address, of IPv4 and of IPv6, one of the sandbox's
	// own: a connection to anywhere arrives at the socket that listens at its
	// port on "[::]", with the address it was meant for as its local address, and
	// is refused at once where there is none. Only with caisson.NetworkAllow,
	// which means loopback and this.
	Everything bool `json:"everything,omitempty"`
}

// A Socket is where something listens inside of a sandbox.
type Socket struct {
	Network string `json:"network"` // "tcp" or "udp"
	// Address is "IP:PORT": an address of the loopback network, or "[::]:PORT"
	// for all of them, in which case both IPv4 and IPv6 arrive there.
	Address string `json:"address"`
}

// A Gatekeeper is a Sandbox whose Spec.Gateway is served from outside:
// Features.Gateway. A sandbox without a gateway has the method, too, and answers
// with none.
type Gatekeeper interface {
	// Sockets returns the sockets of Spec.Gateway, in that order, from the return
	// of Create or Recover on until the main program has ended; also in another process
	// than the one that created it, and again in the same. They stay open inside
	// while nobody serves them: whoever connects waits. The caller closes what it
	// gets, which does not close the socket for anybody else.
	//
	// Nobody but programs in this sandbox, or on its shared network, can connect.
	//
	// Errors: ErrEnded if the main program has ended; ErrAborted if the sandbox is
	// gone.
	Sockets(ctx context.Context) ([]OpenSocket, error)
}

// An OpenSocket is one that Gatekeeper has opened: a Listener for tcp, Packets
// for udp.
type OpenSocket struct {
	Socket
	Listener net.Listener
	Packets  net.PacketConn
}

// Close closes this process's hold of the socket.
func (s *OpenSocket) Close() error {
	if s.Listener != nil {
		return s.Listener.Close()
	}
	return s.Packets.Close()
}

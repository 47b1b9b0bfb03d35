//go:build !linux

package carry

import (
	"net"
	"os"

	"github.com/caissonrun/caisson"
)

// A Carrier can't be had here: other systems have no such sockets.
type Carrier struct{}

// New implements the Linux one's.
func New([]Source) (*Carrier, error) { return nil, caisson.ErrUnsupported }

// Sockets implements server.Gatekeeper.
func (c *Carrier) Sockets() ([]int, error) { return nil, caisson.ErrUnsupported }

// Shut implements server.Gatekeeper.
func (c *Carrier) Shut() {}

// Close has nothing to close.
func (c *Carrier) Close() error { return nil }

// Listener can't be had here.
func Listener(*os.File, net.Addr) (net.Listener, error) { return nil, caisson.ErrUnsupported }

// Packets can't be had here.
func Packets(*os.File, net.Addr) (net.PacketConn, error) { return nil, caisson.ErrUnsupported }

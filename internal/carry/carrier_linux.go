package carry

import (
	"errors"

	"github.com/caissonrun/caisson"
)

// A Carrier carries the traffic of sockets. Its methods may be called from any
// goroutine. It is a server.Gatekeeper.
type Carrier struct{}

// New begins to carry. The sources are the Carrier's from then on, also on error.
func New(sources []Source) (*Carrier, error) {
	return nil, caisson.ErrUnsupported
}

// Sockets returns an end for each source, in order, for Listener or Packets in
// another process. They are the caller's to close.
//
// Errors: net.ErrClosed after Shut.
func (c *Carrier) Sockets() ([]int, error) { return nil, caisson.ErrUnsupported }

// Shut has nothing more accepted: who waits to be served is refused, and whoever
// serves gets net.ErrClosed. Connections stay. It may be called again.
func (c *Carrier) Shut() {}

// Close is Shut, and cuts connections. Nothing of the Carrier runs when it returns.
func (c *Carrier) Close() error { return errors.ErrUnsupported }

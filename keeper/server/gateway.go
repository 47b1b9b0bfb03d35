//go:build unix

package server

import (
	"golang.org/x/sys/unix"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/keeper/internal/wire"
)

// A Gatekeeper is a Box with sockets inside that others serve. isolate.Box is
// one.
type Gatekeeper interface {
	// Sockets returns duplicates, always in the same order, which are the
	// caller's.
	Sockets() ([]int, error)
	// Shut closes them, for good: the program has ended.
	Shut()
}

var _ Gatekeeper = (*isolate.Box)(nil)

// sockets returns duplicates of the box's sockets, which are the caller's. They
// are there as long as the program can use them.
func (k *keeper) sockets() (fds []int, err error) {
	k.mu.Lock()
	doomed, phase := k.doomed, k.phase
	k.mu.Unlock()
	switch {
	case doomed:
		return nil, errDestroyed(caisson.OpStart)
	case phase > running:
		return nil, errEnded(caisson.OpStart)
	}
	err = k.use(func() error {
		if g, ok := k.box.(Gatekeeper); ok {
			fds, err = g.Sockets()
		}
		return err
	})
	return fds, err
}

// shut closes the box's sockets: nobody serves them after the program's end, and
// what still runs is to hear so at once.
func (k *keeper) shut() {
	_ = k.use(func() error {
		if g, ok := k.box.(Gatekeeper); ok {
			g.Shut()
		}
		return nil
	})
}

// sendSockets hands duplicates of the sockets to the client.
func (c *conn) sendSockets(reply *wire.Reply) error {
	fds, err := c.k.sockets()
	if err != nil {
		return err
	}
	c.send(reply, fds...)
	for _, fd := range fds {
		unix.Close(fd)
	}
	return nil
}

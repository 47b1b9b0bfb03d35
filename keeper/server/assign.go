//go:build unix

package server

import (
	"errors"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper/internal/wire"
	"github.com/caissonrun/caisson/keeper/redact"
)

// A Renewer is a Box that may have waited for its program for long.
type Renewer interface {
	// Renew tells it what time it is.
	Renew() error
}

// assign puts another program in the place of the one that was not started.
func (k *keeper) assign(a *wire.Assignment) error {
	if a == nil || len(a.Program.Args) == 0 {
		return failure(caisson.OpCreate, caisson.ErrInvalid, "the program has no arguments")
	}
	secrets, err := redact.Compile(a.Redact)
	if err != nil {
		return err
	}
	// Before it is anybody's: whoever starts it meanwhile starts the earlier one.
	if err := k.use(k.renew); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.doomed:
		return errDestroyed(caisson.OpCreate)
	case k.phase != created:
		return failure(caisson.OpCreate, caisson.ErrExists, "the program was started before")
	}
	s := k.spec
	s.Program, s.Input, k.output.secrets = a.Program, a.Input, secrets
	s.Timeout, s.StopSignal, s.Grace, s.Linger = a.Timeout, a.StopSignal, a.Grace, a.Linger
	s.OnExit, s.OnExitEnv = a.OnExit, a.OnExitEnv
	k.trimLater()
	return nil
}

// assign gives the program to the client, which owns it from then on: who made the
// sandbox does not see to what follows its end.
func (c *conn) assign(a *wire.Assignment) error {
	if err := c.k.assign(a); err != nil {
		return err
	}
	c.k.mu.Lock()
	for other := range c.k.conns {
		other.owner = false
	}
	c.k.owners = 0
	c.k.mu.Unlock()
	return c.own()
}

// renew renews the box, if that can be. One whose program somebody else starts can't
// be given another one.
func (k *keeper) renew() error {
	if _, ok := k.box.(Resident); ok {
		return &caisson.Error{Op: caisson.OpCreate, Kind: caisson.ErrUnsupported, Err: errors.New("the program belongs to somebody else")}
	}
	if r, ok := k.box.(Renewer); ok {
		return r.Renew()
	}
	return nil
}

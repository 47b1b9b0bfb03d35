//go:build unix

package docker

import (
	"fmt"

	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/internal/isolate"
)

// A gateway needs nothing of the daemon. The keeper, which is root of this host,
// enters the container's network from outside before anything of the task runs
// in it, and opens the sockets there. The first process keeps them, too: they are
// there as long as the container, whatever becomes of keepers and the daemon.

// openGateway opens the gateway's sockets.
func (b *box) openGateway() error {
	if b.spec.Gateway == nil {
		return nil
	}
	return b.Guest.Serve(b.spec.Gateway.Sockets, b.spec.Gateway.Everything)
}

// findGateway gets what an earlier keeper has opened.
func (b *box) findGateway() error {
	if b.spec.Gateway == nil {
		return nil
	}
	has, err := b.Guest.Served()
	if want := len(b.spec.Gateway.Sockets); err == nil && has != want {
		err = fmt.Errorf("gateway: the container has %d of its %d sockets", has, want)
	}
	return err
}

// A gateway is what a container has of engine.Gateway besides names.
type gateway struct {
	Sockets    []isolate.Socket `json:"sockets,omitempty"`
	Everything bool             `json:"everything,omitempty"`
}

// gatewayOf turns a gateway into what the keeper is told.
func gatewayOf(g *engine.Gateway) *gateway {
	if g == nil {
		return nil
	}
	return &gateway{Sockets: kept.Sockets(g), Everything: g.Everything}
}

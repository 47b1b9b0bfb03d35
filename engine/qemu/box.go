//go:build unix

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/internal/carry"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/internal/isolate"
	"github.com/caissonrun/caisson/internal/machine/qmp"
	"github.com/caissonrun/caisson/internal/usernet"
	"github.com/caissonrun/caisson/keeper/server"
)

const (
	// callTime is how long the agent, or QEMU, may take for what is quick. An
	// emulated processor on a busy host takes seconds.
	callTime = 20 * time.Second
	// killTime is how long the agent may take to kill everything before the machine
	// is ended for it: a keeper waits for half a minute.
	killTime = 15 * time.Second
	// endTime is how long QEMU may take to end once it has let go of a connection.
	endTime = 10 * time.Second
)

// A box is a virtual machine, as its keeper has it. QEMU is in a sandbox of its
// own and ends with the keeper.
//
// What the agent says, and what QEMU does, is up to whoever has taken over the
// guest: no call waits for either without an end.
type box struct {
	spec    *boxSpec
	qemu    *isolate.Box
	proc    *isolate.Proc // QEMU's
	qmp     *qmp.Client
	agent   *guest.Client
	console *console
	gate    *carry.Carrier   // nil without a gateway
	net     *usernet.Network // nil unless the keeper makes the network
	asked   []*os.File       // sockets at which DHCP is answered
	answers sync.WaitGroup   // those who answer
	inside  *guest.Gateway   // the gateway's sockets in the guest
	origin  engine.Origin    // what the machine began with; set while it boots
	person  guest.Person     // who programs run as; empty where the spec has numbers

	// showing is held while a viewer is handed over, so that they can be counted.
	showing sync.Mutex

	// How long the agent, or QEMU, may take: longer while the machine boots.
	callTime, killTime time.Duration

	// over is closed when the machine has ended; lost is set then.
	over chan struct{}

	mu      sync.Mutex
	lost    error         // why the machine has ended, unless it was closed
	last    event         // what QEMU has said of the machine's end
	main    *program      // the first that was started
	tried   bool          // one was to be started
	usage   isolate.Stats // the last that the guest has told
	told    bool          // usage is set
	paused  bool
	closing bool
	killed  string // why the machine was ended here; empty: it was not
	// programs are those that run, or still print.
	programs map[*program]struct{}
}

var (
	_ server.Box     = (*box)(nil)
	_ server.Drainer = (*box)(nil)
	_ server.Halter  = (*box)(nil)
	_ server.Doer    = (*box)(nil)
)

// OpenBox starts a machine and makes it ready for its program. It is a
// server.Opener.
func OpenBox(data json.RawMessage, adopt bool) (server.Box, error) {
	if adopt {
		return nil, unsupported("a machine ends with its keeper")
	}
	spec := new(boxSpec)
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, err
	}
	b := &box{spec: spec, over: make(chan struct{}), programs: map[*program]struct{}{}, killTime: killTime}
	b.callTime = max(callTime, b.patience())
	if spec.Meta {
		m, err := openMeta(b)
		if err != nil {
			return nil, err
		}
		return m, nil
	}
	if err := b.boot(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	b.callTime = callTime
	return b, nil
}

func unsupported(why string) error {
	return &caisson.Error{Item: Name, Kind: caisson.ErrUnsupported, Err: errors.New(why)}
}

// within is a context for a call that is quick.
func within(limit time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), limit)
}

// Root implements server.Box.
func (b *box) Root() (*os.File, error) {
	return nil, unsupported("a machine has no folder on this host that is its root")
}

//go:build unix

package qemu

import (
	"context"
	"encoding/json"
	"os"

	"github.com/caissonrun/caisson/internal/carry"
	"github.com/caissonrun/caisson/internal/guest"
	"github.com/caissonrun/caisson/keeper/server"
)

var _ server.Gatekeeper = (*box)(nil)

// openGateway has the agent listen for those who serve the sandbox, and carries to
// them what connects.
func (b *box) openGateway() error {
	g := b.spec.Guest.Gateway
	if g == nil || len(g.Sockets) == 0 {
		return nil
	}
	err := b.step("gateway", func(ctx context.Context) (err error) {
		b.inside, err = b.agent.Listen(ctx, g.Sockets, g.Everything)
		return err
	})
	if err != nil {
		return err
	}
	sources := make([]carry.Source, len(g.Sockets))
	for i := range g.Sockets {
		if g.Sockets[i].UDP {
			sources[i].Packets = b.inside.Packets(i)
		} else {
			sources[i].Listener = b.inside.Listener(i)
		}
	}
	b.gate, err = carry.New(sources)
	return err
}

// Sockets implements server.Gatekeeper.
func (b *box) Sockets() ([]int, error) {
	if b.gate == nil {
		return nil, nil
	}
	return b.gate.Sockets()
}

// Shut implements server.Gatekeeper. What connects in the guest from then on is
// refused there.
func (b *box) Shut() {
	if b.gate != nil {
		b.gate.Shut()
		_ = b.inside.Close()
	}
}

// doFiles answers kept.FilesOp: a connection for another process that sees to the
// guest's files, and whose the files are that the program writes.
func doFiles(b *box, _ json.RawMessage) (json.RawMessage, []*os.File, error) {
	owner := guest.Owner{}
	if user := b.spec.Guest.Setup.User; user != nil {
		owner = guest.Owner{UID: user.UID, GID: user.GID}
	}
	data, err := json.Marshal(owner)
	if err != nil {
		return nil, nil, err
	}
	conn, err := b.agent.Share()
	if err != nil {
		return nil, nil, err
	}
	return data, []*os.File{conn}, nil
}

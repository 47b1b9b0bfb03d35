//go:build unix

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/machine"
)

const (
	// maxViewers is how many may look at the screen at once. Each costs QEMU some
	// megabytes of what the guest could have.
	maxViewers = 16
	// viewerName is what QEMU calls a viewer's connection until it has it.
	viewerName = "viewer"
)

// doDisplay answers kept.OpDisplay: it hands one end of a connection to QEMU's VNC
// server and returns the other. Nothing of it stays here.
func doDisplay(b *box, _ json.RawMessage) (json.RawMessage, []*os.File, error) {
	b.showing.Lock()
	defer b.showing.Unlock()
	ctx, cancel := within(callTime)
	defer cancel()
	n, err := b.qmp.Viewers(ctx)
	if err != nil {
		return nil, nil, err
	}
	if n >= maxViewers {
		return nil, nil, &caisson.Error{
			Op: caisson.OpDisplay, Item: "screen", Kind: caisson.ErrExhausted, Err: fmt.Errorf("%d look at it, at most %d can", n, maxViewers),
		}
	}
	ours, theirs, err := machine.Pair()
	if err != nil {
		return nil, nil, err
	}
	defer ours.Close()
	defer theirs.Close()
	if err := b.addViewer(ctx, theirs); err != nil {
		return nil, nil, err
	}
	conn, ok := ours.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("caisson: bug: a pair is a %T", ours)
	}
	end, err := conn.File()
	if err != nil {
		return nil, nil, err
	}
	return nil, []*os.File{end}, nil
}

// addViewer hands a viewer to QEMU.
func (b *box) addViewer(ctx context.Context, end *os.File) error {
	if err := b.qmp.SendFile(ctx, viewerName, end); err != nil {
		return err
	}
	err := b.qmp.AddVNC(ctx, viewerName)
	if err != nil && ctx.Err() == nil {
		err = errors.Join(err, b.qmp.CloseFile(ctx, viewerName))
	}
	return err
}

//go:build unix

package guest

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
)

// maxBatch is how much data is put into one batch: the agent takes 8 MiB at once.
const maxBatch = 2 << 20

// A Batch is calls that the agent makes one after the other, up to the first that
// fails. On an emulated processor an answer takes as long as many a call does. Its
// methods are those of a Client; the zero value is empty.
type Batch struct {
	calls []wire.Request
	ops   []caisson.Op
	size  int // of all parameters, in bytes
}

// Len returns how many calls are in it.
func (b *Batch) Len() int { return len(b.calls) }

// Full reports whether it should be made before more is added.
func (b *Batch) Full() bool { return b.size > maxBatch }

func (b *Batch) add(op caisson.Op, name string, params any) error {
	data, err := json.Marshal(params)
	if err != nil {
		return err
	}
	b.calls, b.ops, b.size = append(b.calls, wire.Request{Op: name, Params: data}), append(b.ops, op), b.size+len(data)
	return nil
}

// Reseed is Client.Reseed.
func (b *Batch) Reseed(random []byte) error {
	return b.add(caisson.OpCreate, wire.OpSeed, &wire.Seed{Bytes: random})
}

// SetClock is Client.SetClock.
func (b *Batch) SetClock(now time.Time) error {
	return b.add(caisson.OpCreate, wire.OpClock, &wire.Clock{Nanoseconds: now.UnixNano()})
}

// SetHostname is Client.SetHostname.
func (b *Batch) SetHostname(name string) error {
	return b.add(caisson.OpCreate, wire.OpHostname, &wire.Path{Path: wire.Name(name)})
}

// Mount is Client.Mount.
func (b *Batch) Mount(m *Mount) error { return b.add(caisson.OpMount, wire.OpMount, m) }

// SetRoot is Client.SetRoot.
func (b *Batch) SetRoot(path string) error {
	return b.add(caisson.OpCreate, wire.OpRoot, &wire.Path{Path: wire.Name(path)})
}

// SetIdentity is Client.SetIdentity.
func (b *Batch) SetIdentity(id *Identity) error {
	return b.add(caisson.OpCreate, wire.OpIdentity, id)
}

// WriteFile is Client.WriteFile.
func (b *Batch) WriteFile(f *File) error {
	if err := checkFile(f); err != nil {
		return err
	}
	return b.add(caisson.OpCreate, wire.OpWrite, f)
}

// Setup is Client.Setup.
func (b *Batch) Setup(s *Setup) error { return b.add(caisson.OpCreate, wire.OpSetup, s) }

// SetNetwork is Client.SetNetwork.
func (b *Batch) SetNetwork(list []Interface) error {
	return b.add(caisson.OpCreate, wire.OpNetwork, &wire.Network{Interfaces: list})
}

// Do makes the calls of a batch. It returns how many were made before the one that
// failed.
//
// Errors: those of that call; ErrUnavailable if the session has ended.
func (c *Client) Do(ctx context.Context, b *Batch) (done int, err error) {
	if len(b.calls) == 0 {
		return 0, nil
	}
	var said wire.Batched
	if err := c.ask(ctx, caisson.OpCreate, wire.OpBatch, &wire.Batch{Calls: b.calls}, &said); err != nil {
		return 0, err
	}
	switch all := len(b.calls); {
	case said.Error == nil && said.Done == all:
		return all, nil
	case said.Error == nil || said.Done < 0 || said.Done >= all:
		return 0, c.broken(caisson.OpCreate, errors.New("it has not made the calls of a batch, and does not say why"))
	}
	return said.Done, c.sorted(b.ops[said.Done], said.Error)
}

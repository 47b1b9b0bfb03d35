//go:build unix

package guest

import (
	"context"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/internal/guest/wire"
	"github.com/caissonrun/caisson/internal/isolate"
)

// Ping returns when the agent has answered.
func (c *Client) Ping(ctx context.Context) error {
	return c.ask(ctx, "", wire.OpPing, nil, nil)
}

// Info returns what the agent says of itself. It is for people: nothing may depend on
// it.
func (c *Client) Info(ctx context.Context) (info Info, err error) {
	return info, c.ask(ctx, "", wire.OpInfo, nil, &info)
}

// Setup says how all programs run: who as, and with which limits. Without it they
// run as root, without.
//
// Errors: ErrExists if it was called before, or a program was started.
func (c *Client) Setup(ctx context.Context, s *Setup) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpSetup, s, nil)
}

// Kill kills every program and what it has started, and returns when nothing is
// left. Programs may be started again.
func (c *Client) Kill(ctx context.Context) error {
	return c.ask(ctx, caisson.OpSignal, wire.OpKill, nil, nil)
}

// Alive reports whether anything runs.
func (c *Client) Alive(ctx context.Context) (alive bool, err error) {
	return alive, c.ask(ctx, "", wire.OpAlive, nil, &alive)
}

// Freeze halts everything that runs or, with false, has it go on. Nothing can be
// started meanwhile.
func (c *Client) Freeze(ctx context.Context, on bool) error {
	op := wire.OpContinue
	if on {
		op = wire.OpFreeze
	}
	return c.ask(ctx, caisson.OpSignal, op, nil, nil)
}

// Halt halts everything that runs now, until Kill ends it. Programs can be started
// beside it, and run.
//
// Errors: ErrUnsupported without Setup.Group, or in a guest whose kernel has no
// cgroup v2.
func (c *Client) Halt(ctx context.Context) error {
	return c.ask(ctx, caisson.OpSignal, wire.OpHalt, nil, nil)
}

// Stats returns what the programs use; what can't be measured is -1. Where Setup has
// named no group, memory is the whole guest's.
func (c *Client) Stats(ctx context.Context) (isolate.Stats, error) {
	var s wire.Stats
	if err := c.ask(ctx, caisson.OpStats, wire.OpStats, nil, &s); err != nil {
		return isolate.Stats{}, err
	}
	for _, n := range []*int64{&s.CPU, &s.Memory, &s.PeakMemory, &s.PIDs, &s.OOMKills, &s.Throttled} {
		*n = max(*n, -1)
	}
	return isolate.Stats{
		CPU: time.Duration(s.CPU), Memory: caisson.Bytes(s.Memory), PeakMemory: caisson.Bytes(s.PeakMemory),
		PIDs: s.PIDs, OOMKills: s.OOMKills, Throttled: time.Duration(s.Throttled),
	}, nil
}

// LoadModule loads a kernel module, a file of the guest, with parameters as for
// insmod. One that is loaded already is no error.
func (c *Client) LoadModule(ctx context.Context, path, params string) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpModule, &wire.Path{Path: wire.Name(path), Params: params}, nil)
}

// Mount mounts a file system in the guest.
func (c *Client) Mount(ctx context.Context, m *Mount) error {
	return c.ask(ctx, caisson.OpMount, wire.OpMount, m, nil)
}

// Unmount unmounts what is mounted at a path.
func (c *Client) Unmount(ctx context.Context, path string) error {
	return c.ask(ctx, caisson.OpMount, wire.OpUnmount, &wire.Path{Path: wire.Name(path)}, nil)
}

// SetRoot makes what is mounted at a path the root of everything: programs, files,
// and paths of later calls. /proc, /sys, /dev and /run move there.
//
// Errors: ErrExists if a program was started, or set up, before.
func (c *Client) SetRoot(ctx context.Context, path string) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpRoot, &wire.Path{Path: wire.Name(path)}, nil)
}

// SetClock sets the guest's clock.
func (c *Client) SetClock(ctx context.Context, now time.Time) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpClock, &wire.Clock{Nanoseconds: now.UnixNano()}, nil)
}

// SetHostname names the guest.
func (c *Client) SetHostname(ctx context.Context, name string) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpHostname, &wire.Path{Path: wire.Name(name)}, nil)
}

// SetNetwork gives network devices their addresses and routes.
func (c *Client) SetNetwork(ctx context.Context, list []Interface) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpNetwork, &wire.Network{Interfaces: list}, nil)
}

// Reseed gives the kernel of a guest that is a copy of another one randomness of its
// own. From the next session on its Boot is another.
func (c *Client) Reseed(ctx context.Context, random []byte) error {
	return c.ask(ctx, caisson.OpCreate, wire.OpSeed, &wire.Seed{Bytes: random}, nil)
}

// Sync writes what the guest has not yet written to its disks.
func (c *Client) Sync(ctx context.Context) error {
	return c.ask(ctx, caisson.OpDestroy, wire.OpSync, nil, nil)
}

// PowerOff kills everything, writes what is to be written and switches the machine
// off, or has it start again. It returns as soon as the session has ended by that.
func (c *Client) PowerOff(ctx context.Context, reboot bool) error {
	err := c.ask(ctx, caisson.OpDestroy, wire.OpPowerOff, &wire.PowerOff{Reboot: reboot}, nil)
	select {
	case <-c.Done():
		// It can't answer any more.
		return nil
	default:
		return err
	}
}

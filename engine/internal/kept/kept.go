// Package kept is what engines share whose programs are owned by keepers of
// this host: the life of a sandbox around package keeper, from the handle that
// is written before anything is made to the sweep of what nobody owns. An
// engine decides what a sandbox is to be, as a keeper.Spec; everything else is
// here.
//
// An engine has one Sandboxes. It looks at the host with Examine, makes
// sandboxes with Create, tries one in Probe with Try, and passes the rest of
// the contract on: Recover, Sweep, Running and Close.
package kept

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/keeper"
)

// FilesOp is what a box of Options.Guests is asked for (keeper.Client.Do): a
// connection of guest.Client.Share, and, as the result, the guest.Owner that
// programs run as.
const FilesOp = "files"

// Options says whose sandboxes they are. All but IDs, Alone, Guests, Ended and
// Remove is required.
type Options struct {
	// Engine is the engine's name, as in handles, messages and configuration.
	Engine string
	// Groups begins the names of control groups: [a-z], another one for each
	// engine, because everything of its own that is swept is found by it.
	Groups string
	// Installation names the state folder that the engine works for: [a-z0-9],
	// at most 16. Sweep touches nothing of another one.
	Installation string
	// Runtime is an absolute folder for sockets and records of live sandboxes,
	// of this engine alone, that may be shared by installations. It is made if
	// it does not exist.
	Runtime string
	// IDs are the host ids that sandboxes are given where Caisson runs as root.
	IDs Range
	// Keeper is how keepers are started.
	Keeper keeper.Command
	// Alone says that a sandbox has one program and can't have another one beside
	// it: it is no engine.Execer, and has none of the other optional interfaces.
	Alone bool
	// Snapshots says that sandboxes' own boxes answer OpSnapshot and OpOrigin, and that
	// stats and pause work: each is an engine.Snapshotter.
	Snapshots bool
	// Guests says that sandboxes have neither a root folder nor sockets on this host:
	// the keeper's box answers FilesOp, and its sockets are those of a carry.Carrier.
	Guests bool
	// Ended kills what of a sandbox's programs outlives a keeper that was
	// killed and its control group. It may be called again. Nil: there is
	// nothing.
	Ended func(sandbox string, rec *Record) error
	// Remove removes what the engine has made for a sandbox besides what is
	// here, such as networks, once nothing of it runs. It must be repeatable,
	// and do with a Record that has only Run, where nothing else is known any
	// more. Nil: there is nothing.
	Remove func(ctx context.Context, sandbox string, rec *Record) error
	// Revive returns what a new keeper is told that takes up a sandbox whose
	// keeper was killed and whose programs outlive that. Errors: ErrNotFound if
	// there is nothing to take up. Nil: programs end with their keeper.
	Revive func(ctx context.Context, sandbox string, rec *Record) (*keeper.Spec, error)
}

// A Range is Count host ids (users and groups alike) from Base on, of which
// each sandbox is given Each. Nobody else may use them.
type Range struct {
	Base, Count uint32
	Each        int
}

// Slots is how many sandboxes the range is enough for.
func (r Range) Slots() int { return int(r.Count) / r.Each }

// First is the first host id of a slot.
func (r Range) First(slot int) int { return int(r.Base) + slot*r.Each }

// Sandboxes are all sandboxes of one engine and one installation. Its methods
// may be called from any goroutine.
type Sandboxes struct {
	opts   Options
	works  atomic.Pointer[Works] // by the last Probe
	links  links
	closed atomic.Bool

	launcher *keeper.Launcher
}

// Works is what of a live sandbox was seen to work. What a sandbox offers
// depends on it.
type Works struct{ Terminal, Stats, Pause, Gateway, Keep, Displays bool }

// New returns the sandboxes of an engine. It looks at nothing.
func New(opts *Options) *Sandboxes {
	return &Sandboxes{opts: *opts, launcher: keeper.NewLauncher(opts.Keeper)}
}

// Note says what works from now on. Until it is called everything does.
func (b *Sandboxes) Note(w Works) { b.works.Store(&w) }

// Close gives up what this process has of living sandboxes: their keepers then
// see to what follows.
func (b *Sandboxes) Close() error {
	b.closed.Store(true)
	return errors.Join(b.launcher.Close(), b.links.close())
}

// Open returns an error unless ctx goes on and Close was not called.
func (b *Sandboxes) Open(ctx context.Context, op caisson.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if b.closed.Load() {
		return &caisson.Error{Op: op, Item: b.opts.Engine, Kind: caisson.ErrUnavailable, Err: errors.New("the engine is closed")}
	}
	return nil
}

// Dir is the runtime folder of a sandbox.
func (b *Sandboxes) Dir(sandbox string) string {
	return filepath.Join(b.opts.Runtime, b.opts.Installation, sandbox)
}

// Group is the name of a sandbox's control group.
func (b *Sandboxes) Group(sandbox string) string { return b.groupPrefix() + sandbox }

// groupPrefix begins the names of an installation's control groups.
func (b *Sandboxes) groupPrefix() string { return b.opts.Groups + "-" + b.opts.Installation + "-" }

// CheckInstallation returns what is wrong with the name of an installation.
func CheckInstallation(name string) error {
	if len(name) > 16 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return fmt.Errorf("%q is no name", name)
	}
	return nil
}

// ended kills what a keeper has left behind that was killed itself: with
// isolation that is nothing, because its init goes with it.
func (b *Sandboxes) ended(sandbox string, rec *Record) error {
	err := killGroup(rec.Cgroup)
	if b.opts.Ended != nil {
		err = errors.Join(err, b.opts.Ended(sandbox, rec))
	}
	return err
}

// remove calls Options.Remove.
func (b *Sandboxes) remove(ctx context.Context, sandbox string, rec *Record) error {
	if b.opts.Remove == nil {
		return nil
	}
	return b.opts.Remove(ctx, sandbox, rec)
}

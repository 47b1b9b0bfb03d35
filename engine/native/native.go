// Package native runs a program as a process of this host, with all the
// isolation that the host and the caller's rights can give: mount, pid, ipc,
// uts, user and network namespaces, control groups, a system call filter,
// Landlock, no capabilities, and a root view that holds the host's programs
// and nothing else of it. Every live sandbox has user ids of its own if
// Caisson runs as root; otherwise it has the caller's.
//
// It shares the host's kernel. It needs Linux 5.12 with user namespaces; for
// the caller that is not root they must be open to everybody. On other systems,
// and where the operator asks for it, it runs programs without isolation.
//
// The making of a sandbox is package internal/isolate, called in the keeper
// (package keeper). This package decides what a sandbox is to be: see Create,
// which turns an engine.Spec into a keeper.Spec by a pure function. What it is
// for users stands in doc.md.
package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/keeper"
)

// Name is the engine's name.
const Name = "native"

// The values of Options.Isolation and of a task's option isolation.
const (
	Full = "full"
	None = kept.None
)

const (
	// idsPerSandbox is how many host ids a sandbox has: of its init, of its
	// user, and for one more group.
	idsPerSandbox = 3
	// groups begins the names of control groups.
	groups = "caisson"
)

// What Options are where they say nothing.
const (
	// DefaultUID and DefaultGID are who programs run as.
	DefaultUID = 1000
	DefaultGID = 1000
	// DefaultIDBase is far above what systems give to people and containers.
	DefaultIDBase = 1879048192
	// DefaultIDCount is for 21845 sandboxes.
	DefaultIDCount = 65536
)

// Options configures an Engine. Only Runtime and Keeper are required.
type Options struct {
	// Name is the engine's name, in handles and messages, where another engine
	// has its programs run by this one: [a-z]. Empty: Name.
	Name string
	// Shell is the command that a script is appended to. Empty: bash -c, and
	// sh -c where the host has no bash.
	Shell []string
	// UID and GID are who programs run as where the task names no user: ids of
	// the inside with full isolation, the host's without. Zero: DefaultUID and
	// DefaultGID with full isolation, the caller without.
	UID, GID int
	// IDBase is the first of IDCount host ids (users and groups alike) that
	// sandboxes are given where Caisson runs as root. Nobody else may use them.
	// Zero: DefaultIDBase and DefaultIDCount.
	IDBase, IDCount uint32
	// Isolation is Full or None. Empty: Full.
	Isolation string
	// AllowNone lets tasks ask for isolation none.
	AllowNone bool
	// AllowHostNetwork lets tasks ask for the host's network.
	AllowHostNetwork bool
	// Paths are folders and files of the host that every sandbox sees, read
	// only and at the same place, in addition to /usr.
	Paths []string
	// Installation names the state folder that this engine works for: [a-z0-9],
	// at most 16. Sweep touches nothing of another one. Empty: "0".
	Installation string
	// Runtime is an absolute folder for sockets and records of live sandboxes
	// that may be shared by installations. It is made if it does not exist.
	Runtime string
	// Keeper is how keepers are started.
	Keeper keeper.Command
	// Logger is told what has no other way to be seen. Nil: nobody.
	Logger *slog.Logger
}

// An Engine makes sandboxes out of processes of this host.
type Engine struct {
	opts   Options
	found  atomic.Pointer[found] // by the last Probe, or by the first Create
	idmaps kept.Idmaps
	boxes  *kept.Sandboxes
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Looker = (*Engine)(nil)
)

// New returns an engine. It looks at nothing but opts.
//
// Errors: ErrInvalid, for all options that are wrong.
func New(opts *Options) (*Engine, error) {
	e := &Engine{opts: *opts}
	o := &e.opts
	o.Shell, o.Paths = slices.Clone(o.Shell), slices.Clone(o.Paths)
	setDefault(&o.Name, Name)
	setDefault(&o.IDBase, DefaultIDBase)
	setDefault(&o.IDCount, DefaultIDCount)
	setDefault(&o.Isolation, Full)
	setDefault(&o.Installation, "0")
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	e.boxes = kept.New(&kept.Options{
		Engine: o.Name, Groups: o.groups(), Installation: o.Installation, Runtime: o.Runtime, IDs: o.ids(), Keeper: o.Keeper,
		Ended: killOrphans,
	})
	return e, nil
}

// setDefault gives an option that is not set its default.
func setDefault[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// check names everything that is wrong, by the keys of the configuration.
func (o *Options) check() error {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	add(len(o.Shell) > 0 && o.Shell[0] == "", "shell: no program is named")
	add(o.UID < 0 || o.UID > maxID, "uid: %d: use 0 to %d", o.UID, maxID)
	add(o.GID < 0 || o.GID > maxID, "gid: %d: use 0 to %d", o.GID, maxID)
	add(o.IDBase < 65536, "id_base: %d: below 65536 are the ids of people", o.IDBase)
	add(o.IDCount < idsPerSandbox, "id_count: %d: a sandbox needs %d", o.IDCount, idsPerSandbox)
	add(uint64(o.IDBase)+uint64(o.IDCount) > math.MaxUint32, "id_base, id_count: beyond %d", uint32(math.MaxUint32))
	add(o.Isolation != Full && o.Isolation != None, "isolation: %q is neither full nor none", o.Isolation)
	for _, p := range o.Paths {
		if err := checkPath(p); err != nil {
			add(true, "paths: %v", err)
		}
	}
	if err := kept.CheckInstallation(o.Installation); err != nil {
		add(true, "installation: %v", err)
	}
	add(!filepath.IsAbs(o.Runtime), "runtime: %q is not an absolute path", o.Runtime)
	add(len(o.Keeper) == 0, "keeper: no command is given")
	if len(wrong) == 0 {
		return nil
	}
	return &caisson.Error{
		Op: caisson.OpConfig, Item: "engine." + o.Name, Kind: caisson.ErrInvalid,
		Err: errors.New(strings.Join(wrong, "; ")),
	}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return e.opts.Name }

// Close implements engine.Engine. It gives up what this process has of living
// sandboxes: their keepers then see to what follows.
func (e *Engine) Close() error { return e.boxes.Close() }

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	return e.boxes.Recover(ctx, dir)
}

// Sweep implements engine.Engine.
func (e *Engine) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	return e.boxes.Sweep(ctx, live)
}

// Running implements engine.Looker.
func (e *Engine) Running(dir string) (bool, error) { return e.boxes.Running(dir) }

// killOrphans kills what a keeper without isolation has left behind, where
// there is no control group either.
func killOrphans(sandbox string, rec *kept.Record) error {
	if rec.Isolation != None {
		return nil
	}
	return kept.KillOrphans(mark(rec.Installation, sandbox))
}

// groups begins the names of control groups, which no other engine's begin
// with.
func (o *Options) groups() string {
	if o.Name == Name {
		return groups
	}
	return groups + o.Name
}

// ids are the host ids of sandboxes.
func (o *Options) ids() kept.Range {
	return kept.Range{Base: o.IDBase, Count: o.IDCount, Each: idsPerSandbox}
}

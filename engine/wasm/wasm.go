// Package wasm runs WebAssembly modules by wazero, a runtime that is part of
// this program: WASI preview 1, as Go's wasip1, Rust's wasm32-wasip1 and
// wasi-sdk make it.
//
// A module runs in its keeper, which is this program's own subcommand. What
// isolates is the language: a module has no system calls, no network, no
// signals and no memory but its own, and reaches only what it is handed, its
// arguments, environment, output, clocks, random numbers, and folders that it
// can't leave (folder.go). When its keeper is killed, it is lost.
//
// What it is for users stands in doc.md.
package wasm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
	"github.com/caissonrun/caisson/engine/internal/kept"
	"github.com/caissonrun/caisson/keeper"
)

// Name is the engine's name.
const Name = "wasm"

// compileTime is how long compiling may take. What a hostile module makes of it
// has no bound of its own: that of functions with many nested blocks grows by
// their square.
const compileTime = 2 * time.Minute

// Options configures an Engine. Runtime, Cache and Keeper are required.
type Options struct {
	// Memory is what a module's memory may grow to where its task says nothing.
	// Zero: what WebAssembly permits, 4 GiB.
	Memory caisson.Bytes
	// Patience is how long compiling a module may take. Zero: two minutes.
	Patience caisson.Duration
	// Installation names the state folder that this engine works for: [a-z0-9],
	// at most 16. Sweep touches nothing of another one. Empty: "0".
	Installation string
	// Runtime is an absolute folder for sockets and records of live sandboxes
	// that may be shared by installations. It is made if it does not exist.
	Runtime string
	// Cache is an absolute folder for compiled modules. It is made if it does
	// not exist, and must be open to this user alone: what is in it is run.
	Cache string
	// Keeper is how keepers are started that know Kind.
	Keeper keeper.Command
}

// An Engine makes sandboxes for modules.
type Engine struct {
	opts  Options
	boxes *kept.Sandboxes
	// broken is why the last Probe found that nothing works; nil: it works, or
	// was not tried.
	broken atomic.Pointer[error]
	// shares says that the last Probe found that a module's processor time can be
	// bounded here.
	shares atomic.Pointer[error]
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Looker = (*Engine)(nil)
)

// New returns an engine. It looks at nothing.
//
// Errors: ErrInvalid, for all options that are wrong.
func New(opts *Options) (*Engine, error) {
	e := &Engine{opts: *opts}
	o := &e.opts
	if o.Installation == "" {
		o.Installation = "0"
	}
	if o.Patience == 0 {
		o.Patience = caisson.Duration(compileTime)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	e.boxes = kept.New(&kept.Options{
		Engine: Name, Groups: "caissonwasm", Installation: o.Installation, Runtime: o.Runtime,
		IDs: kept.Range{Base: 1 << 30, Count: 1, Each: 1}, Keeper: o.Keeper, Alone: true,
	})
	return e, nil
}

// check names everything that is wrong, by the keys of the configuration.
func (o *Options) check() error {
	var wrong []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	add(o.Patience < 0, "patience: %v is negative", o.Patience)
	add(o.Memory < 0 || o.Memory > maxMemory, "memory: %s is not between 0 and %s", o.Memory, caisson.Bytes(maxMemory))
	if err := kept.CheckInstallation(o.Installation); err != nil {
		add(true, "installation: %v", err)
	}
	for what, path := range map[string]string{"runtime": o.Runtime, "cache": o.Cache} {
		add(!filepath.IsAbs(path), "%s: %q is not an absolute path", what, path)
	}
	add(len(o.Keeper) == 0, "keeper: no command is given")
	if len(wrong) == 0 {
		return nil
	}
	slices.Sort(wrong)
	return &caisson.Error{
		Op: caisson.OpConfig, Item: "engine.wasm", Kind: caisson.ErrInvalid, Err: errors.New(strings.Join(wrong, "; ")),
	}
}

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	return e.boxes.Recover(ctx, dir)
}

// Sweep implements engine.Engine.
func (e *Engine) Sweep(ctx context.Context, live []string) ([]string, error) {
	return e.boxes.Sweep(ctx, live)
}

// Running implements engine.Looker.
func (e *Engine) Running(dir string) (bool, error) { return e.boxes.Running(dir) }

// Close implements engine.Engine. Sandboxes live on.
func (e *Engine) Close() error { return e.boxes.Close() }

// Package script runs one program, the operator's, for every task: a task only
// says what the program is to do, as its options, which a JSON Schema of the
// operator's bounds. It is for workers that may do nothing but certain things,
// such as signing with a key that no task may see.
//
// It makes no sandboxes itself. A Runner, which is an engine for commands, runs
// the program with the isolation that the operator has chosen, and gives it all
// that every program has: a keeper, a log, a time limit, an exit that survives.
// What a sandbox offers beyond that and would let a task run something else or
// see the operator's files, such as an exec, is kept from it.
//
// The program's contract and what it is for users stand in doc.md.
package script

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Name is the engine's name.
const Name = "script"

// A Runner is the engine that runs the program. It is this one's alone.
type Runner interface {
	engine.Engine
	engine.Looker
	// Try runs a program in a sandbox, as a probe does, and returns an error
	// unless it succeeds. Dress completes what is to run.
	Try(ctx context.Context, dress func(*engine.Spec) error) error
}

// Options configures an Engine. Only In is required: without a program the
// engine is not usable, and says so.
type Options struct {
	// In runs the program. Its Features must have Command and Input.
	In Runner
	// Bare says that In's programs see the host's own files.
	Bare bool
	// Program is the program's argv; Program[0] is an absolute path.
	Program []string
	// Check are arguments behind Program with which it must succeed, without a
	// payload, for the engine to be usable. Empty: only the sandbox is tried.
	Check []string
	// Schema is the file with the JSON Schema of a task's options.
	Schema string
	// Files are files and folders of the host that the program sees beside
	// itself, read-only, by their last names.
	Files []string
	// Secrets are files of the host by names: the program has their contents as
	// /run/secrets/NAME, and they are redacted in the log.
	Secrets map[string]string
	// Network is caisson.NetworkNone or caisson.NetworkHost. Empty: none, or the
	// host's where programs see the host's own files.
	Network string
}

// An Engine runs the operator's program.
type Engine struct {
	opts  Options
	found atomic.Pointer[engine.Features] // by the last Probe
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Looker = (*Engine)(nil)
	_ engine.Judge  = (*Engine)(nil)
)

// New returns an engine. It looks at nothing but opts.
//
// Errors: ErrInvalid, for all options that are wrong.
func New(opts *Options) (*Engine, error) {
	e := &Engine{opts: *opts}
	o := &e.opts
	o.Program, o.Check, o.Files = slices.Clone(o.Program), slices.Clone(o.Check), slices.Clone(o.Files)
	o.Secrets = maps.Clone(o.Secrets)
	if o.Network == "" {
		o.Network = caisson.NetworkNone
		if o.Bare {
			o.Network = caisson.NetworkHost
		}
	}
	if err := o.check(); err != nil {
		return nil, err
	}
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
	set := len(o.Program) > 0
	add(set && !clean(o.Program[0]), "program: %q is not an absolute, clean path", first(o.Program))
	add(set && o.Schema == "", "schema: the program has none; a task could ask it for anything")
	add(o.Schema != "" && !clean(o.Schema), "schema: %q is not an absolute, clean path", o.Schema)
	taken := map[string]bool{filepath.Base(first(o.Program)): set}
	for _, f := range o.Files {
		add(!clean(f) || f == "/", "files: %q is not an absolute, clean path", f)
		add(taken[filepath.Base(f)], "files: two are called %q", filepath.Base(f))
		taken[filepath.Base(f)] = true
	}
	add(o.Bare && len(o.Files) > 0, "files: the program sees the host's own files; leave them out")
	add(o.Bare && len(o.Secrets) > 0, "secrets: they need isolation full")
	for _, name := range slices.Sorted(maps.Keys(o.Secrets)) {
		add(!clean(o.Secrets[name]), "secrets.%s: %q is not an absolute, clean path", name, o.Secrets[name])
	}
	add(o.Network != caisson.NetworkNone && o.Network != caisson.NetworkHost, "network: %q is neither none nor host", o.Network)
	add(o.Bare && o.Network == caisson.NetworkNone, "network: none needs isolation full")
	if len(wrong) == 0 {
		return nil
	}
	return &caisson.Error{
		Op: caisson.OpConfig, Item: "engine.script", Kind: caisson.ErrInvalid, Err: errors.New(strings.Join(wrong, "; ")),
	}
}

// first returns the first of a list, or nothing.
func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

func clean(path string) bool { return filepath.IsAbs(path) && filepath.Clean(path) == path }

// Name implements engine.Engine.
func (e *Engine) Name() string { return Name }

// Recover implements engine.Engine.
func (e *Engine) Recover(ctx context.Context, dir string) (engine.Sandbox, error) {
	inner, err := e.opts.In.Recover(ctx, dir)
	if err != nil {
		return nil, err
	}
	return wrap(inner, dir), nil
}

// Sweep implements engine.Engine.
func (e *Engine) Sweep(ctx context.Context, live []string) (removed []string, err error) {
	return e.opts.In.Sweep(ctx, live)
}

// Running implements engine.Looker.
func (e *Engine) Running(dir string) (bool, error) { return e.opts.In.Running(dir) }

// Close implements engine.Engine.
func (e *Engine) Close() error { return e.opts.In.Close() }

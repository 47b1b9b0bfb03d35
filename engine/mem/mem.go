// Package mem is the reference engine: it runs programs as goroutines of this
// process against real folders of the host. It isolates nothing. Tests of
// everything above the contract use it, because it is quick, needs no
// privileges, and can be told to fail at any step; it passes the conformance
// suite, so it fails as a real engine would.
package mem

import (
	"context"
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// A World is what the sandboxes of mem engines live in: it stands for the
// host. Engines that share one find each other's sandboxes, as the engine of
// a restarted program finds those of the one before.
type World struct{}

// NewWorld returns an empty world.
func NewWorld() *World { return &World{} }

// Options configures an Engine.
type Options struct {
	// Name is the engine's name. Empty: "mem".
	Name string
	// World is where its sandboxes live. Nil: a new one.
	World *World
	// Installation separates what Sweep may remove in a shared world.
	Installation string
	// MaxSandboxes is how many may live at once; 0: any number.
	MaxSandboxes int
	// Programs are run where Args[0], or its last path element, is their
	// name, besides the built-in ones.
	Programs map[string]Program
	// Features changes what Probe declares; what it takes away is refused. Nil:
	// nothing is changed.
	Features func(*engine.Features)
	// Fault is asked before every call that reaches a sandbox (or Probe, with
	// an empty id) and orders what goes wrong. Nil: nothing does.
	Fault func(op caisson.Op, id string) Fault
	// OnExit is called in place of starting Spec.OnExit. Nil: it is started
	// as a process of the host.
	OnExit func(id string, argv, env []string)
}

// A Fault is what goes wrong with one call. Its zero value is nothing. Delay
// comes first, then the others in the order of the fields.
type Fault struct {
	Delay time.Duration // the call takes so much longer; ctx cuts it short
	Hang  bool          // the call returns only when ctx ends
	Panic any           // the call panics with it
	// Lose has the sandbox vanish: the program is gone and its end was not
	// seen. The call then goes on.
	Lose bool
	// Exit has the program end so, whatever it does: {Reason: oom} or
	// {Reason: signaled, Signal: 11}. The call then goes on.
	Exit *caisson.Exit
	Err  error // the call returns it and has no effect
}

// An Engine is an engine.Engine without isolation.
type Engine struct{ engine.UnimplementedEngine }

var _ engine.Engine = (*Engine)(nil)

// New returns an engine. Nil opts work.
func New(opts *Options) *Engine { return &Engine{} }

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	return engine.Features{}, nil
}

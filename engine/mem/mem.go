// Package mem is the reference engine: it runs programs as goroutines of this
// process against real folders of the host. It isolates nothing. Tests of
// everything above the contract use it, because it is quick, needs no
// privileges, and can be told to fail at any step; it passes the conformance
// suite, so it fails as a real engine would.
//
// A program is a Go function, a [Program], that acts through a [Proc]. There
// are built-in ones, among them a little shell: see Builtins. Limits are
// counted, not enforced by a kernel: a Proc's memory is what it says it uses
// by Alloc, its processor time what it spends in Spin, and on its network is
// nobody but sandboxes that share it.
//
// A sandbox lives in a [World]. Its handle, and how its program ended, lie in
// Spec.Dir, so that an engine in another process finds a sandbox that was
// running lost, and one that had ended with its exit.
package mem

import (
	"time"

	"github.com/caissonrun/caisson"
	"github.com/caissonrun/caisson/engine"
)

// Options configures an Engine. The zero value works.
type Options struct {
	// Name is the engine's name. Empty: "mem".
	Name string
	// World is where its sandboxes live. Nil: a new one.
	World *World
	// Installation separates what Sweep may remove in a shared world.
	Installation string
	// MaxSandboxes is how many of this installation may live at once; 0: any
	// number.
	MaxSandboxes int
	// Programs are run where Args[0], or its last element, is their name. They
	// come before the built-in ones.
	Programs map[string]Program
	// Features changes what Probe declares: what it takes away is refused, what
	// it adds does not work. Nil: nothing is changed.
	Features func(*engine.Features)
	// Fault is asked at the beginning of every call of the contract, with the
	// sandbox's id ("" in Probe and Sweep), and orders what goes wrong. Signal
	// and Stop are caisson.OpSignal. Nil: nothing goes wrong.
	Fault func(op caisson.Op, id string) Fault
	// OnExit is called in place of starting Spec.OnExit. Nil: it is started as
	// a process of the host.
	OnExit func(id string, argv, env []string)
}

// A Fault is what goes wrong with one call, in the order of the fields. The
// zero value is nothing.
type Fault struct {
	Delay time.Duration // the call begins so much later; its ctx cuts that short
	Hang  bool          // the call returns when its ctx ends, and has no effect
	Panic any           // the call panics with it
	Err   error         // the call returns it, and has no effect
	// Exit has the program end in this way, whatever it does: out of memory is
	// {Reason: oom, Signal: 9}, a crash {Reason: signaled, Signal: 11}, a lost
	// keeper {Reason: lost}. A program not started yet ends so when it is. The
	// call then goes on.
	Exit *caisson.Exit
}

// New returns an engine. Nil opts work.
func New(opts *Options) *Engine {
	e := &Engine{}
	if opts != nil {
		e.opts = *opts
	}
	if e.opts.Name == "" {
		e.opts.Name = "mem"
	}
	if e.opts.World == nil {
		e.opts.World = NewWorld()
	}
	e.world = e.opts.World
	return e
}

package engine

import (
	"context"

	"github.com/caissonrun/caisson"
)

// An Engine makes sandboxes of one kind on this host. One value serves the
// whole process.
type Engine interface {
	// Name returns the engine's short name, such as "native". It is the name
	// used in configuration, logs and test output, and never changes.
	Name() string

	// Probe finds out what this engine can do on this host right now, by doing
	// it: that a device exists or that a program is installed proves nothing.
	// It changes nothing that outlives the call and takes at most a few
	// seconds, also where a runtime hangs. What can't be done stands in
	// Features.Missing, in words an operator can act on.
	//
	// An engine that can't run anything at all returns Features that say so
	// (Usable is false) and no error.
	//
	// Errors: only ctx's, and ErrUnavailable where a daemon does not answer.
	Probe(ctx context.Context) (Features, error)

	// Create builds the sandbox that spec describes, with its mounts in place
	// and nothing of the task running inside.
	//
	// The engine must enforce everything that spec asks for or refuse the spec,
	// by the names of all fields at fault; it never drops one. It first writes
	// a handle to Spec.Dir and only then makes what the handle names.
	//
	// ctx bounds the call. If Create fails or ctx ends first, nothing is left
	// on the host: no process, mount, cgroup, folder, user or lock.
	//
	// Errors: ErrInvalid if spec contradicts itself; ErrUnsupported if it asks
	// for what Probe did not promise; ErrExists if spec.ID is live on this
	// host; ErrNotFound if a mount source or root file system is absent;
	// ErrDenied if the host or the operator forbids it; ErrExhausted if more
	// than Features.MaxSandboxes would live or the host is out of a resource;
	// ErrUnavailable if a daemon does not answer.
	Create(ctx context.Context, spec *Spec) (Sandbox, error)

	// Recover finds the sandbox whose handle lies in dir, a Spec.Dir of an
	// earlier process. The process that it finds has the same pid, log and
	// exit; one that ended meanwhile has its true Exit; one whose end nobody
	// saw has an Exit with ReasonLost, and nothing of it runs any more.
	//
	// Errors: ErrNotFound if dir has no handle; ErrInvalid if the handle is
	// not one of this engine's or is of a newer version.
	Recover(ctx context.Context, dir string) (Sandbox, error)

	// Sweep destroys everything that this engine made for this installation
	// and that belongs to none of the sandboxes in live (by Spec.ID), and
	// returns the ids, or other names, of what it removed. It never touches
	// what belongs to another installation.
	Sweep(ctx context.Context, live []string) (removed []string, err error)

	// Close releases what the engine itself holds. Sandboxes live on and can
	// be recovered by another Engine. After Close every other method returns
	// an error of kind ErrUnavailable; a second Close returns nil.
	Close() error
}

// A Sandbox is one isolated place, from Create to Destroy, for one program.
type Sandbox interface {
	// ID returns Spec.ID.
	ID() string

	// Start starts the program of the spec and returns when it runs. A program
	// that is not found, or can't be executed, is the task's failure: Start
	// returns a Process whose Exit has code 127 or 126 and a message. The
	// program may have ended before Start returns.
	//
	// If ctx ends first, either the program never runs or Process finds it.
	//
	// Errors: ErrExists if the program was started before (it is not
	// disturbed); ErrAborted if the sandbox was or is being destroyed.
	Start(ctx context.Context) (Process, error)

	// Process returns the program started, now or by an earlier process.
	//
	// Errors: ErrNotFound if none was started; ErrAborted as for Start.
	Process(ctx context.Context) (Process, error)

	// Destroy ends everything in the sandbox and removes the sandbox with all
	// that was made for it except Spec.Dir, Spec.Log and what the caller
	// mounted. It works from any state, while other calls are under way, from
	// several callers, and again and again: a sandbox that is gone is nil.
	// Waiting calls return; a Wait answers ReasonAborted if the program still
	// ran.
	//
	// Errors: anything that is left behind, by name. The caller may try again.
	Destroy(ctx context.Context) error
}

// A Process is the program that runs in a sandbox.
type Process interface {
	// Wait blocks until the program has ended, everything in the sandbox with
	// it, and its output is completely in the log, then returns how it ended.
	// Any number of callers may wait at any time; all get the same Exit.
	// Processes that the program left behind get Spec.Linger to end, then they
	// are killed.
	//
	// If ctx ends first, Wait returns ctx's error and the program runs on.
	Wait(ctx context.Context) (caisson.Exit, error)

	// Signal sends a signal by its Linux number to the program itself, not to
	// its children.
	//
	// Errors: ErrEnded if the program has ended; ErrAborted if the sandbox is
	// gone; ErrInvalid if there is no such signal.
	Signal(ctx context.Context, signal int) error

	// Stop asks for the program's end and returns when the asking is durable
	// with whoever carries it out, not when the program has ended: Wait tells
	// that. The sandbox and its files stay. Of several stops the first
	// decides the reason; a later one can only make it quicker.
	//
	// Errors: ErrEnded if the program has ended; ErrAborted if the sandbox is
	// gone.
	Stop(ctx context.Context, stop Stop) error
}

// A Stop is how a program is made to end: a signal, a time of grace, then a
// kill of everything in the sandbox.
type Stop struct {
	// Reason becomes the Exit's reason: stopped, killed, cancelled, timeout or
	// policy.
	Reason caisson.Reason `json:"reason"`
	// Signal is sent to the program first. Zero: Spec.StopSignal.
	Signal int `json:"signal,omitempty"`
	// Grace is how long the program then has. Zero or less: it is killed at
	// once, without the signal.
	Grace caisson.Duration `json:"grace,omitempty"`
}

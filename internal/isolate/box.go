// Package isolate makes and runs Linux sandboxes out of namespaces, cgroups,
// seccomp and Landlock: what engine native and the builtin runtime of engine
// oci share. The keeper is the only caller of Start; engines make Specs.
package isolate

import (
	"os"
	"time"

	"github.com/caissonrun/caisson"
)

// A Program is what Box.Spawn runs.
type Program struct {
	Args     []string `json:"args"`          // argv; Args[0] is looked up in Env's PATH
	Env      []string `json:"env,omitempty"` // NAME=value, complete
	Dir      string   `json:"dir,omitempty"` // inside; empty: /
	Terminal bool     `json:"terminal,omitempty"`
	Cols     uint16   `json:"cols,omitempty"`
	Rows     uint16   `json:"rows,omitempty"`
}

// A Box is a live sandbox, held by the process that called Start. When that
// process dies, everything in the sandbox dies with it.
type Box struct{}

// Start makes the sandbox: namespaces, root view, mounts, cgroup. Nothing of
// the task runs in it yet. On error nothing is left.
func Start(spec *Spec) (*Box, error) { panic("todo") }

// Spawn starts a program in the sandbox with stdin, stdout and stderr as its
// descriptors 0 to 2 (nil: /dev/null). With Program.Terminal they are ignored
// and Proc.Terminal is the master side. A program that can't be executed is an
// *ExecError.
func (b *Box) Spawn(p *Program, stdin, stdout, stderr *os.File) (*Proc, error) { panic("todo") }

// Root returns the sandbox's root folder as an O_PATH descriptor.
func (b *Box) Root() (*os.File, error) { panic("todo") }

// Kill kills every process in the sandbox but its init, and returns when none
// is left. It can be called again; the sandbox's files stay.
func (b *Box) Kill() error { panic("todo") }

// Alive reports whether a process other than init still runs in the sandbox.
func (b *Box) Alive() bool { panic("todo") }

// Freeze halts (or, with false, continues) every process in the sandbox.
func (b *Box) Freeze(on bool) error { panic("todo") }

// Stats returns what the sandbox uses; what can't be measured is -1.
func (b *Box) Stats() (Stats, error) { panic("todo") }

// Close kills everything, ends the sandbox and removes its cgroups. It can be
// called again; an error says what is left behind.
func (b *Box) Close() error { panic("todo") }

// Stats is what a sandbox uses. What can't be measured is -1.
type Stats struct {
	CPU        time.Duration
	Memory     caisson.Bytes
	PeakMemory caisson.Bytes
	PIDs       int64
	OOMKills   int64
	Throttled  time.Duration
}

// A Proc is a program started by Box.Spawn.
type Proc struct {
	PID      int      // on the host; 0 where it is not known
	Terminal *os.File // the master side of the terminal, or nil
}

// Wait blocks until the program has ended and returns its exit code, or the
// signal that ended it. It is called once.
func (p *Proc) Wait() (code, signal int, err error) { panic("todo") }

// Signal sends a signal to the program; it never reaches another process.
func (p *Proc) Signal(signal int) error { panic("todo") }

// An ExecError says that a program could not be executed.
type ExecError struct {
	Code int // 127 where it was not found, 126 otherwise
	Err  error
}

// Error implements error.
func (e *ExecError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.Err }

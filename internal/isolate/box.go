// Package isolate makes and runs Linux sandboxes out of namespaces, cgroups,
// seccomp and Landlock: what engine native and the builtin runtime of engine
// oci share. The keeper is the only caller of Start; engines make Specs.
//
// It needs Linux 5.12. Elsewhere only Spec.None works, in a reduced form.
package isolate

import (
	"errors"
	"os"
	"time"

	"github.com/caissonrun/caisson"
)

// ErrNoIdmap says that a file system can't be shown with other ids. The files
// must be given to the sandbox's ids on the host instead.
var ErrNoIdmap = errors.New("the file system has no idmapped mounts")

// A Program is what Box.Spawn runs.
type Program struct {
	Args     []string `json:"args"`          // argv; Args[0] is looked up in Env's PATH
	Env      []string `json:"env,omitempty"` // NAME=value, complete
	Dir      string   `json:"dir,omitempty"` // inside; empty: /
	Terminal bool     `json:"terminal,omitempty"`
	Cols     uint16   `json:"cols,omitempty"` // 0: 80
	Rows     uint16   `json:"rows,omitempty"` // 0: 24
}

// A Box is a live sandbox, held by the process that called Start. When that
// process dies, everything in the sandbox dies with it.
type Box struct{}

// IsInit reports whether this process was started by Start to be a sandbox's
// init. A main function must then call Main, before anything else.
func IsInit() bool { panic("todo") }

// Main is pid 1 of a sandbox. It does not return.
func Main() { panic("todo") }

// CheckIdmap returns nil if a bind of the folder or file at path may have an
// Owner, and ErrNoIdmap if its file system can't do that. It needs root.
func CheckIdmap(path string) error { panic("todo") }

// Start makes the sandbox: namespaces, root view, mounts, cgroup. Nothing of
// the task runs in it yet. On error nothing is left.
//
// Errors: kind ErrNotFound if RootFS or a mount's source is absent; ErrNoIdmap;
// ErrUnsupported if the kernel or the caller's rights do not suffice; ErrInvalid
// if spec contradicts itself.
func Start(spec *Spec) (*Box, error) { panic("todo") }

// PID returns the pid, on the host, of the sandbox's init, and 0 where there
// is none.
func (b *Box) PID() int { panic("todo") }

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

// Signal sends a signal to the program; it never reaches another process. A
// program that has ended is os.ErrProcessDone.
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

// Package isolate makes and runs Linux sandboxes out of namespaces, cgroups,
// seccomp and Landlock: what engine native and the builtin runtime of engine
// oci share. The keeper is the only caller of Start; engines make Specs.
//
// A sandbox has a user, mount, pid, ipc, uts and cgroup namespace of its own,
// and a network namespace unless the Spec says otherwise. Its pid 1 is this
// program once more, as sandbox-init: it builds the root view, starts programs
// when it is told to, and reaps them. The host's files are seen only where a
// Spec names them; /proc, /dev and the loopback device are new. Programs have
// no capabilities, no_new_privs, no descriptors but three, and an environment
// that is given. They share the host's kernel: what isolates is the kernel.
//
// It needs Linux 5.12, and user namespaces. As root, sandboxes have user ids of
// their own; otherwise there is one id, the caller's, which inside is the
// user's. Elsewhere than on Linux only Spec.None works, in a reduced form.
package isolate

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/caissonrun/caisson"
)

// ErrNoIdmap says that a file system can't be shown with other ids. The files
// must be given to the sandbox's ids on the host instead.
var ErrNoIdmap = errors.New("the file system has no idmapped mounts")

// ErrNoOverlay says that Spec.Changes can't be had here: the kernel, or the
// file system of one of the folders, can't do it. The sandbox needs a copy of
// its root file system instead.
var ErrNoOverlay = errors.New("no overlay can be mounted here")

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
//
// Its methods may be called from any goroutine.
type Box struct{ backend backend }

// A backend is what makes up a box: a sandbox with isolation, or none.
type backend interface {
	pid() int
	spawn(p *Program, stdio [3]*os.File) (*Proc, error)
	root() (*os.File, error)
	kill() error
	alive() bool
	freeze(on bool) error
	halt() error
	stats() (Stats, error)
	close() error
}

// Start makes the sandbox: namespaces, root view, mounts, cgroup. Nothing of
// the task runs in it yet. On error nothing is left.
//
// With Spec.None the calling process becomes the parent of everything that
// programs leave behind, and reaps it: until Close it must have no children
// of other making that it waits for.
//
// Errors: ErrNotFound if RootFS or a mount's source is absent; ErrDenied if it
// can't be reached or leads through a symbolic link; ErrNoIdmap; ErrUnsupported
// if the kernel or the caller's rights do not suffice; ErrExhausted;
// ErrInvalid if spec contradicts itself; what cgroup.Create returns.
func Start(spec *Spec) (*Box, error) {
	b, err := startBackend(spec)
	if err != nil {
		return nil, err
	}
	return &Box{b}, nil
}

// maxID is the largest user or group id. The one above it means "no change" to
// the kernel, which would leave a program the caller's rights.
const maxID = 1<<32 - 2

// checkUser refuses a user that does not exist, or that, without isolation,
// this process can't become.
func checkUser(u *User) error {
	if u == nil {
		return nil
	}
	for _, id := range append([]int{u.UID, u.GID}, u.Groups...) {
		if id < 0 || id > maxID {
			return &caisson.Error{Item: "user", Kind: caisson.ErrInvalid, Err: fmt.Errorf("there is no id %d", id)}
		}
	}
	if os.Geteuid() == 0 || u.UID == os.Getuid() && u.GID == os.Getgid() {
		return nil
	}
	return &caisson.Error{
		Item: "user", Kind: caisson.ErrDenied,
		Err: fmt.Errorf("%d:%d: only root can run programs as another user", u.UID, u.GID),
	}
}

// PID returns the pid, on the host, of the sandbox's init, and 0 where there
// is none.
func (b *Box) PID() int { return b.backend.pid() }

// Spawn starts a program in the sandbox with stdin, stdout and stderr as its
// descriptors 0 to 2 (nil: /dev/null). They stay the caller's. With
// Program.Terminal they are ignored and Proc.Terminal is the master side.
//
// Errors: *ExecError if the program can't be executed; ErrAborted if the
// sandbox is over; ErrUnavailable if it is paused.
func (b *Box) Spawn(p *Program, stdin, stdout, stderr *os.File) (*Proc, error) {
	return b.backend.spawn(p, [3]*os.File{stdin, stdout, stderr})
}

// MaxMore is how many descriptors besides the usual three a program can be
// started with.
const MaxMore = 6

// SpawnWith is Spawn with more descriptors for the program, from 3 on.
//
// Errors: as Spawn's; ErrUnsupported without isolation, and with gVisor.
func (b *Box) SpawnWith(p *Program, stdin, stdout, stderr *os.File, more []*os.File) (*Proc, error) {
	if len(more) == 0 {
		return b.Spawn(p, stdin, stdout, stderr)
	}
	s, ok := b.backend.(interface {
		spawnWith(p *Program, stdio [3]*os.File, more []*os.File) (*Proc, error)
	})
	if !ok || p.Terminal || len(more) > MaxMore {
		return nil, &caisson.Error{
			Item: "program", Kind: caisson.ErrUnsupported, Err: fmt.Errorf("it can't have %d descriptors more", len(more)),
		}
	}
	return s.spawnWith(p, [3]*os.File{stdin, stdout, stderr}, more)
}

// Root returns the sandbox's root folder as an O_PATH descriptor, which is the
// caller's. What is mounted inside is seen through it until Close.
func (b *Box) Root() (*os.File, error) { return b.backend.root() }

// Kill kills every process in the sandbox but its init, also while they are
// halted, and returns when none is left. It can be called again; the sandbox's
// files stay, and programs may be spawned again.
func (b *Box) Kill() error { return b.backend.kill() }

// Alive reports whether a process other than init still runs in the sandbox.
func (b *Box) Alive() bool { return b.backend.alive() }

// Freeze halts (or, with false, continues) every process in the sandbox: by the
// group where it is one of version 2, otherwise by SIGSTOP. While they are
// halted nothing can be spawned.
func (b *Box) Freeze(on bool) error { return b.backend.freeze(on) }

// Halt halts every process that is in the sandbox now, until Kill or Close ends
// it. Programs can be spawned beside them, and run.
//
// Errors: ErrUnsupported without isolation.
func (b *Box) Halt() error { return b.backend.halt() }

// Sockets returns duplicates of Spec.Sockets, in that order, which do not block
// and are the caller's; none after Shut or Close.
func (b *Box) Sockets() ([]int, error) {
	if g, ok := b.backend.(interface{ sockets() ([]int, error) }); ok {
		return g.sockets()
	}
	return nil, nil
}

// Shut closes Spec.Sockets. Nobody can connect any more, and whoever accepts
// connections at a duplicate gets an error. It can be called again.
func (b *Box) Shut() {
	if g, ok := b.backend.(interface{ shut() }); ok {
		g.shut()
	}
}

// Stats returns what the sandbox uses; what can't be measured is -1.
func (b *Box) Stats() (Stats, error) { return b.backend.stats() }

// Close kills everything, ends the sandbox and removes its cgroup. It returns
// when all mounts are gone. It can be called again; an error says what is left
// behind.
func (b *Box) Close() error { return b.backend.close() }

// Stats is what a sandbox uses. What can't be measured is -1.
type Stats struct {
	CPU        time.Duration
	Memory     caisson.Bytes
	PeakMemory caisson.Bytes
	PIDs       int64
	OOMKills   int64
	Throttled  time.Duration
}

// A Proc is a program started by Box.Spawn, or one of NewProc's. Its methods may be called from any
// goroutine.
type Proc struct {
	PID      int      // on the host; 0 where it is not known
	Terminal *os.File // the master side of the terminal, or nil; the caller's

	done         chan struct{} // closed when the end is known
	code, signal int

	mu   sync.Mutex
	send func(signal int) error // nil once it has ended
	drop func()                 // releases what send uses
}

func newProc() *Proc { return &Proc{done: make(chan struct{})} }

// NewProc returns a program that runs in this process, not in a Box: send
// delivers a signal to it, and end makes its end known, once.
func NewProc(send func(signal int) error) (p *Proc, end func(code, signal int)) {
	p = newProc()
	p.send = send
	return p, p.finish
}

// control tells how the program is signalled, and what to do when it has ended.
func (p *Proc) control(send func(signal int) error, drop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		drop()
	default:
		p.send, p.drop = send, drop
	}
}

// finish makes the end known.
func (p *Proc) finish(code, signal int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.code, p.signal = code, signal
	close(p.done)
	if p.drop != nil {
		p.drop()
		p.send, p.drop = nil, nil
	}
}

// Done is closed when the program has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait blocks until the program has ended and returns its exit code, or the
// signal that ended it. A program that ends because the sandbox does has been
// killed. Any number of callers get the same answer.
func (p *Proc) Wait() (code, signal int, err error) {
	<-p.done
	return p.code, p.signal, nil
}

// Signal sends a signal to the program; it never reaches another process. A
// program that has ended is os.ErrProcessDone.
func (p *Proc) Signal(signal int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.send == nil {
		return os.ErrProcessDone
	}
	return p.send(signal)
}

// An ExecError says that a program could not be executed.
type ExecError struct {
	Code int // 127 where it was not found, 126 otherwise
	Err  error
}

// Error implements error.
func (e *ExecError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *ExecError) Unwrap() error { return e.Err }
